"""Layers with one weight per modality over a packed batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motet.nn import operators  # noqa: F401  (torch.ops.motet)
from motet.nn.elementwise import normalize
from motet.types import Layout

SHARED = "shared"


def autocast(x: Tensor, *others: Tensor) -> list[Tensor]:
    """The tensors in autocast's type where autocast is on: operators of our own are not on its list."""
    if not torch.is_autocast_enabled(x.device.type):
        return [x, *others]
    dtype = torch.get_autocast_dtype(x.device.type)
    return [t.to(dtype) for t in (x, *others)]


def _keys(modalities: Sequence[str], untie: bool) -> tuple[str, ...]:
    return tuple(modalities) if untie else (SHARED,)


def _table(keys: Sequence[str], start: Tensor) -> nn.ParameterDict:
    """A parameter a key, in the order of `keys`: from a plain dict it would come out sorted by name."""
    return nn.ParameterDict([(key, nn.Parameter(start.clone())) for key in keys])


class UntiedLinear(nn.Module):
    """One linear map per modality; with `untie=False` one for all.

    weight[m]: (d_out, d_in), bias[m]: (d_out,). Source: Liang et al. 2024, equation 2,
    arXiv:2411.04996.
    """

    def __init__(
        self, modalities: Sequence[str], d_in: int, d_out: int, *, bias: bool = False, untie: bool = True
    ) -> None:
        super().__init__()
        keys = _keys(modalities, untie)
        self.d_in, self.d_out = d_in, d_out
        self.weight = _table(keys, torch.empty(d_out, d_in))
        self.bias = _table(keys if bias else (), torch.zeros(d_out))
        for weight in self.weight.values():
            nn.init.trunc_normal_(weight, std=d_in**-0.5, a=-3 * d_in**-0.5, b=3 * d_in**-0.5)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, d_in) -> (T, d_out)
        weights, biases = list(self.weight.values()), list(self.bias.values())
        if len(weights) == 1:
            return F.linear(x, weights[0], biases[0] if biases else None)
        x, *rest = autocast(x, *weights, *biases)
        return torch.ops.motet.untied_linear(x, rest[: len(weights)], rest[len(weights) :], layout.offsets)


class UntiedNorm(nn.Module):
    """RMS norm or layer norm over the last axis, with weights per modality.

    Works on (T, D), and on (T, H, K) with `width` K (QK norm). Computed in fp32 at least.
    Sources: Zhang & Sennrich 2019, arXiv:1910.07467; Ba et al. 2016, arXiv:1607.06450.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        *,
        kind: str = "rms",
        eps: float = 1e-6,
        untie: bool = True,
    ) -> None:
        super().__init__()
        keys = _keys(modalities, untie)
        self.kind, self.eps = kind, eps
        self.weight = _table(keys, torch.ones(width))
        self.bias = _table(keys if kind == "layer" else (), torch.zeros(width))

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        weight, bias = list(self.weight.values()), list(self.bias.values())
        return normalize(x, weight, bias, layout, eps=self.eps)
