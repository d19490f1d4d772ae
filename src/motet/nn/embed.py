"""From what the tokens hold (ids or vectors) to packed states of the model's width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from motet.errors import MismatchError
from motet.nn.positions import sinusoidal, sinusoidal_grid
from motet.types import Layout, ModalitySpec


@dataclass(frozen=True)
class EmbedConfig:
    """`positions`: sinusoidal features of time and grid place, added to the tokens; "auto" adds them where
    the attention turns no rotary positions. `time_unit`: seconds that count as one step of them."""

    dropout: float = 0.1
    positions: Literal["auto", "sinusoidal", "none"] = "auto"
    time_unit: float = 0.1


class ModalityEmbedding(nn.Module):
    """Tokens of one modality: ids from a table, vectors by one linear map; plus the modality's own vector.

    Vectors of a pretrained encoder are first brought to one scale by a layer norm; others are left
    as their processor scaled them, since a norm would take away loudness or brightness.
    """

    def __init__(self, spec: ModalitySpec, width: int) -> None:
        super().__init__()
        self.spec = spec
        self.kind = nn.Parameter(torch.randn(width) * 0.02)
        self.norm = None if spec.features is None else nn.LayerNorm(spec.features)
        self.size = spec.features or spec.size
        self.ids = spec.input == "ids" and spec.backbone is None
        if self.ids:
            self.table = nn.Embedding(spec.size, width)
            nn.init.normal_(self.table.weight, std=0.5)  # the spread that `project` gives unit inputs
        else:
            self.project = nn.Linear(self.size, width)

    def forward(self, values: Tensor) -> Tensor:  # (n,) or (n, size) -> (n, D)
        if self.ids:
            return self.table(values) + self.kind
        if values.ndim != 2 or values.shape[1] != self.size:
            raise MismatchError(
                f"modality {self.spec.name!r}: got tokens of shape {tuple(values.shape[1:])}, the model "
                f"takes {self.size} numbers a token. Prepare the data with the model's own processors."
            )
        return self.project(values if self.norm is None else self.norm(values)) + self.kind


class TokenEmbedding(nn.Module):
    """All modalities: values[m] (counts[m],) or (counts[m], size) -> packed x (T, D)."""

    def __init__(
        self, specs: Sequence[ModalitySpec], width: int, config: EmbedConfig, *, rotary: bool
    ) -> None:
        super().__init__()
        self.config = config
        self.modality = nn.ModuleDict({spec.name: ModalityEmbedding(spec, width) for spec in specs})
        self.grids = {spec.name: spec.kind in ("image", "video") for spec in specs}
        self.places = config.positions == "sinusoidal" or (config.positions == "auto" and not rotary)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, values: Mapping[str, Tensor], layout: Layout) -> Tensor:
        parts = []
        for name, embed in self.modality.items():
            # Without tokens too: its gradients are then zeros, on this rank as on others, as in the blocks.
            if name in values:
                x = embed(values[name])
                parts.append(x + self._position(name, layout, x.shape[1]).to(x.dtype) if self.places else x)
        if not parts:  # a batch of samples without any token
            some = next(self.parameters())
            return some.new_zeros(0, self.width)
        return self.dropout(torch.cat(parts))

    @property
    def width(self) -> int:
        some = next(iter(self.modality.values()))
        assert isinstance(some, ModalityEmbedding)
        return len(some.kind)

    def _position(self, name: str, layout: Layout, width: int) -> Tensor:
        here = layout.slice_of(name)
        place = sinusoidal(layout.time[here] / self.config.time_unit, width)
        if self.grids[name]:
            place = place + sinusoidal_grid(layout.row[here], layout.col[here], width)
        return place
