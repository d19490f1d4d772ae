"""Pretrained encoders inside the model, trained with it: packed tokens in, one vector a token out.

The tokens of a batch are what they would be without: ids of a text, patches of a picture. The backbone
puts each text and each picture together from its tokens, runs the encoder, and gives the tokens' states
back in their order; whatever reads or leaves out tokens works as it does anywhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.nn.nets import MapGrid, TextNet, TokenGrid, efficientnet, from_description
from motet.types import BackboneSpec, Layout, ModalitySpec

PICTURES = 64  # run at once without a graph; bounds the memory of prediction


class Backbone(nn.Module, ABC):
    """What text and picture backbones share. `unfreeze_at`: the epoch from which it learns."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.unfreeze_at, self.frozen = 0, False

    def train(self, mode: bool = True) -> Backbone:
        """Frozen, it stays as it is in prediction, without dropout."""
        return super().train(mode and not self.frozen)

    def forward(self, values: Tensor, layout: Layout, modality: str) -> Tensor:
        """Tokens of `modality` as the layout has them: (n,) or (n, size) -> (n, width)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.read(values, layout, layout.slice_of(modality))

    @abstractmethod
    def read(self, values: Tensor, layout: Layout, here: slice) -> Tensor:
        """The tokens at `here` of the layout: (n,) or (n, size) -> (n, width)."""


class TextBackbone(Backbone):
    """Ids of a text's tokens, between the special ones of its encoder."""

    def __init__(self, net: nn.Module, spec: BackboneSpec) -> None:
        super().__init__(net)
        self.lead, self.tail = spec.lead, spec.tail

    def read(self, values: Tensor, layout: Layout, here: slice) -> Tensor:
        of = layout.sample[here]
        _, text, count = torch.unique_consecutive(of, return_inverse=True, return_counts=True)
        if not len(count):  # one empty text: its gradients are zeros, on this rank as on others
            count = values.new_zeros(1)
        first = count.cumsum(0) - count
        place = len(self.lead) + torch.arange(len(values), device=values.device) - first[text]
        around = len(self.lead) + len(self.tail)
        ids = values.new_zeros(len(count), max(1, int(count.max()) + around))
        at = torch.arange(ids.shape[1], device=ids.device)
        end = (len(self.lead) + count)[:, None]
        ids[:, : len(self.lead)] = values.new_tensor(self.lead)
        ids[text, place] = values
        for i, special in enumerate(self.tail):
            ids = torch.where(at == end + i, special, ids)
        mask = at < (end + len(self.tail)).clamp(min=1)
        return self.net(ids, mask.to(ids.dtype))[text, place]


class PictureBackbone(Backbone):
    """Patches of pictures, or of the frames of clips; a patch that is left out is grey."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, spec: BackboneSpec) -> None:
        super().__init__(net)
        self.patch, self.grid = spec.patch, spec.side // spec.patch
        self.register_buffer("mean", torch.tensor(spec.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std).view(3, 1, 1), persistent=False)

    def read(self, values: Tensor, layout: Layout, here: slice) -> Tensor:
        grid, patch = self.grid, self.patch
        sample, time = layout.sample[here], layout.time[here]
        fresh = torch.ones_like(sample)
        fresh[1:] = (sample[1:] != sample[:-1]) | (time[1:] != time[:-1])
        picture = fresh.cumsum(0) - 1
        cell = layout.row[here].long() * grid + layout.col[here].long()
        count = max(1, int(fresh.sum()))
        cells = values.new_zeros(count, grid * grid, values.shape[1])
        cells[picture, cell] = values
        # (P, row, col, y, x, 3) -> (P, 3, row, y, col, x)
        pixels = cells.view(count, grid, grid, patch, patch, 3).permute(0, 5, 1, 3, 2, 4)
        pixels = pixels.reshape(count, 3, grid * patch, grid * patch)
        pixels = ((pixels + 1) / 2 - self.mean) / self.std
        parts = [pixels] if torch.is_grad_enabled() else pixels.split(PICTURES)
        states = torch.cat([self.net(part) for part in parts])  # (P, row, col, width)
        return states.flatten(1, 2)[picture, cell]


def make_backbone(spec: ModalitySpec) -> Backbone:
    """The architecture that the spec describes, with random weights.

    Raises:
        ConfigError: a package is missing, or the description is of no use.
    """
    own = spec.backbone
    assert own is not None  # only called for modalities that have one
    where = f"the backbone {own.name!r} of {spec.name!r}"
    if spec.kind == "text" and own.architecture:
        return TextBackbone(TextNet(from_description(own.architecture, where)), own)
    if spec.kind in ("image", "video") and own.patch > 0 and len(own.mean) == len(own.std) == 3:
        if own.architecture:
            return PictureBackbone(TokenGrid(from_description(own.architecture, where)), own)
        return PictureBackbone(MapGrid(efficientnet()), own)
    raise ConfigError(f"{where}: described neither as one for texts nor for pictures.")


def begin_epoch(model: nn.Module, epoch: int) -> None:
    """Freeze the backbones whose time has not come, and free the others."""
    for module in model.modules():
        if isinstance(module, Backbone):
            module.frozen = epoch < module.unfreeze_at
            module.train(model.training)
