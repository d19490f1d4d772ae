"""Fusions of other papers behind the one interface, so that anybody can compare: TFN, LMF, MulT.

Each is called as fusion(x (T, D), layout) -> (B, D) and takes every subset of modalities in every
sample; a sample without any token gives zeros. The inner sizes are those at which the parameters of
three modalities roughly match those of Motet's own fusions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.nn.attention import make_plan
from motet.nn.modules import CrossModalAttention
from motet.nn.positions import sinusoidal
from motet.nn.rules import own_modality, same_sample
from motet.nn.segments import by_modality, segment_mean
from motet.types import Layout

CELLS = 729  # most cells of the tensor of `TensorFusion`, by default
STEP = 0.1  # seconds that count as one place in `CrossModalFusion`


class TensorFusion(nn.Module):
    """TFN: the outer product of all modalities' vectors, each with a 1 appended, through one linear map.

    The appended ones keep the products of fewer modalities; a modality that a sample lacks is nothing
    but its 1, so that what is left are exactly the products of those present. A modality's vector is
    a small network over the mean of its tokens. `inner`: the size of these vectors, by default the
    largest for which the tensor has at most 729 cells.

    Raises:
        ConfigError: `inner` below 1, or modalities so many that no tensor fits.

    Source: Zadeh et al. 2017, equations 2 and 3, arXiv:1707.07250.
    """

    def __init__(self, width: int, modalities: Sequence[str], *, inner: int | None = None) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        inner = int(CELLS ** (1 / len(self.modalities)) + 1e-9) - 1 if inner is None else inner
        if inner < 1:
            raise ConfigError(
                f"tensor fusion: vectors of {inner} numbers; with {len(self.modalities)} modalities the "
                "tensor is too large or empty. Use fusion=lowrank."
            )
        self.project = nn.ModuleDict({name: nn.Linear(width, inner) for name in modalities})
        self.out = nn.Linear((inner + 1) ** len(self.modalities), width, bias=False)  # a 1 is inside

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        vectors = _with_one(x, layout, self.project)
        cells = reduce(lambda a, b: torch.einsum("bi,bj->bij", a, b).flatten(1), vectors)
        return self.out(cells) * layout.present().any(1, keepdim=True)


class LowRankFusion(nn.Module):
    """LMF: the map of TFN as a sum of `rank` products of one vector a modality, never forming the tensor.

    Equal to `TensorFusion` whose weight is the sum over r of the outer products of the factors'
    rows r. `inner` (default: half the width): the size of a modality's vector.

    Raises:
        ConfigError: no rank, or `inner` below 1.

    Source: Liu et al. 2018, equation 8, arXiv:1806.00064; their public code adds weights of the ranks
    and a bias, which are left out: the factors hold both.
    """

    def __init__(
        self, width: int, modalities: Sequence[str], *, rank: int = 4, inner: int | None = None
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        inner = max(1, width // 2) if inner is None else inner
        if rank < 1 or inner < 1:
            raise ConfigError(f"low-rank fusion: rank={rank} and inner={inner} must be at least 1.")
        self.project = nn.ModuleDict({name: nn.Linear(width, inner) for name in modalities})
        self.factor = nn.ParameterDict(
            {name: nn.Parameter(torch.empty(rank, inner + 1, width)) for name in modalities}
        )
        for factor in self.factor.values():
            nn.init.normal_(factor, std=(inner + 1) ** -0.5)
            nn.init.ones_(factor[:, -1])  # at first a product with the others, not a vanishing one

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        vectors = _with_one(x, layout, self.project)
        parts = [
            torch.einsum("bi,rid->brd", z, self.factor[name])
            for z, name in zip(vectors, self.modalities, strict=True)
        ]
        return torch.stack(parts).prod(0).sum(1) * layout.present().any(1, keepdim=True)


class CrossModalFusion(nn.Module):
    """MulT: every modality hears every other through its own small transformer; then each looks at itself.

    Where the paper takes the last state of each modality, the mean of its tokens is taken: packed
    tokens may be patches, of which none is the last. Positions are times; the temporal convolution
    before is the model's own embedding. Missing modalities are not heard and count as zeros.
    `inner` (default: about a sixth of the width): the size of a state; `layers` of each transformer.

    Raises:
        ConfigError: an odd `inner`, one that `heads` do not divide, or no layer.

    Source: Tsai et al. 2019, section 3, arXiv:1906.00295.
    """

    def __init__(
        self,
        width: int,
        modalities: Sequence[str],
        *,
        heads: int = 4,
        inner: int | None = None,
        layers: int = 1,
    ) -> None:
        super().__init__()
        self.modalities, self.heads = tuple(modalities), heads
        step = math.lcm(2, heads)
        inner = step * max(1, width // (6 * step)) if inner is None else inner
        if inner < 2 or inner % heads or inner % 2 or layers < 1:
            raise ConfigError(
                f"cross-modal fusion: inner={inner} must be even and a multiple of heads={heads}, and layers="
                f"{layers} at least 1."
            )
        self.project = nn.ModuleDict({name: nn.Linear(width, inner, bias=False) for name in modalities})
        self.cross = nn.ModuleDict(
            {
                f"{source}_to_{target}": nn.ModuleList(
                    _CrossLayer(inner, heads, target, source) for _ in range(layers)
                )
                for target in modalities
                for source in modalities
                if source != target
            }
        )
        beside = inner * max(1, len(self.modalities) - 1)
        self.ask = nn.ModuleDict(
            {
                name: nn.Sequential(nn.LayerNorm(beside), nn.Linear(beside, 3 * beside, bias=False))
                for name in modalities
            }
        )
        self.memory = nn.ModuleDict({name: _AfterAttention(beside) for name in modalities})
        self.out = nn.Linear(beside * len(self.modalities), width)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        if not layout.tokens:
            return self.out.weight.new_zeros(layout.samples, self.out.out_features)
        low = torch.cat([self.project[m](x[layout.slice_of(m)]) for m in self.modalities])
        low = low + sinusoidal(layout.time / STEP, low.shape[1]).to(low.dtype)  # (T, d), level 0
        heard = torch.cat([self._heard(low, m, layout) for m in self.modalities])  # (T, (M-1) d)
        state = self._remember(heard, layout)
        pooled = segment_mean(state, *by_modality(layout))  # (M B, (M-1) d)
        beside = pooled.unflatten(0, (len(self.modalities), -1)).transpose(0, 1).flatten(1)
        return self.out(beside) * layout.present().any(1, keepdim=True)

    def _heard(self, low: Tensor, target: str, layout: Layout) -> Tensor:
        """The target's tokens after hearing each other modality, side by side. (T, d) -> (n, (M-1) d)"""
        here, found = layout.slice_of(target), []
        for source in self.modalities:
            if source != target:
                state = low[here]
                for layer in self.cross[f"{source}_to_{target}"].children():
                    state = layer(state, low, layout)
                found.append(state)
        return torch.cat(found or [low[here]], dim=1)

    def _remember(self, x: Tensor, layout: Layout) -> Tensor:
        """One self-attention layer, each modality with its own weights, all in one call."""
        here = {m: layout.slice_of(m) for m in self.modalities}
        qkv = torch.cat([self.ask[m](x[here[m]]) for m in self.modalities])
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).unbind(1)
        heard = make_plan(same_sample & own_modality, layout).attend(q, k, v).flatten(1)
        return torch.cat([self.memory[m](x[here[m]], heard[here[m]]) for m in self.modalities])


class _CrossLayer(nn.Module):
    """Equation 5 of MulT: the residual goes round the attention from the normalised state."""

    def __init__(self, width: int, heads: int, target: str, source: str) -> None:
        super().__init__()
        self.target = target
        self.norm_in, self.norm_low = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ask = CrossModalAttention(width, heads, target, source)
        self.norm_mlp, self.mlp = nn.LayerNorm(width), _mlp(width)

    def forward(self, state: Tensor, low: Tensor, layout: Layout) -> Tensor:  # (n, d), (T, d) -> (n, d)
        here = layout.slice_of(self.target)
        around = self.norm_low(low)
        mixed = torch.cat([around[: here.start], self.norm_in(state), around[here.stop :]])
        heard = self.norm_mlp(self.ask(mixed, layout)[here])
        return heard + self.mlp(heard)


class _AfterAttention(nn.Module):
    """What follows the attention in a pre-norm transformer layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp, self.mlp = nn.LayerNorm(width), _mlp(width)

    def forward(self, x: Tensor, heard: Tensor) -> Tensor:  # (n, D), (n, D) -> (n, D)
        x = x + self.out(heard)
        return x + self.mlp(self.norm_mlp(x))


def _mlp(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def _with_one(x: Tensor, layout: Layout, project: nn.ModuleDict) -> list[Tensor]:
    """Per modality its vector with a 1 appended, (B, inner + 1); zeros and the 1 where it is absent."""
    means = segment_mean(x, *by_modality(layout)).unflatten(0, (len(project), -1))
    present = layout.present()
    vectors = [F.gelu(p(means[m])) * present[:, m, None] for m, p in enumerate(project.values())]
    return [F.pad(z, (0, 1), value=1.0) for z in vectors]
