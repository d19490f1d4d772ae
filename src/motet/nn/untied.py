"""Layers with one weight per modality over a packed batch.

Tokens are sorted by modality, so modality m's weight meets one contiguous slice: no mask, no
gather. The slice bounds lie in `layout.offsets`, a CPU tensor that the operators below read when
they run: no wait for the device, and to `torch.compile` the mix of modalities is data, so a new
mix never compiles anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import register_flop_formula

from motet.types import Layout

SHARED = "shared"

torch.library.define(
    "motet::untied_linear", "(Tensor x, Tensor[] weights, Tensor[] biases, Tensor offsets) -> Tensor"
)
torch.library.define("motet::untied_outer", "(Tensor a, Tensor b, Tensor offsets) -> Tensor[]")
torch.library.define("motet::untied_sum", "(Tensor x, Tensor offsets) -> Tensor")


@torch.library.impl("motet::untied_linear", "CompositeExplicitAutograd")
def _linear(x: Tensor, weights: list[Tensor], biases: list[Tensor], offsets: Tensor) -> Tensor:
    """y[s] = x[s] @ W_m^T (+ b_m) for modality m's slice s. (T, d_in) -> (T, d_out)"""
    out = x.new_empty(x.shape[0], weights[0].shape[0])
    bounds = offsets.tolist()
    for m, weight in enumerate(weights):
        part, into = x[bounds[m] : bounds[m + 1]], out[bounds[m] : bounds[m + 1]]
        if biases:
            torch.addmm(biases[m], part, weight.t(), out=into)
        else:
            torch.mm(part, weight.t(), out=into)
    return out


@torch.library.register_fake("motet::untied_linear")
def _linear_shape(x: Tensor, weights: list[Tensor], biases: list[Tensor], offsets: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weights[0].shape[0])


@torch.library.impl("motet::untied_outer", "CompositeExplicitAutograd")
def _outer(a: Tensor, b: Tensor, offsets: Tensor) -> list[Tensor]:
    """a[s]^T @ b[s] for every modality's slice s: the weights' gradients. M x (d_a, d_b)"""
    bounds = offsets.tolist()
    return [torch.mm(a[start:stop].t(), b[start:stop]) for start, stop in pairwise(bounds)]


@torch.library.register_fake("motet::untied_outer")
def _outer_shape(a: Tensor, b: Tensor, offsets: Tensor) -> list[Tensor]:
    return [a.new_empty(a.shape[1], b.shape[1]) for _ in range(offsets.shape[0] - 1)]


@torch.library.impl("motet::untied_sum", "CompositeExplicitAutograd")
def _sum(x: Tensor, offsets: Tensor) -> Tensor:
    """Sum of x over every modality's slice. (T, ...) -> (M, ...)"""
    bounds = offsets.tolist()
    return torch.stack([x[start:stop].sum(0) for start, stop in pairwise(bounds)])


@torch.library.register_fake("motet::untied_sum")
def _sum_shape(x: Tensor, offsets: Tensor) -> Tensor:
    return x.new_empty(offsets.shape[0] - 1, *x.shape[1:])


def _save_linear(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weights, biases, offsets = inputs
    ctx.save_for_backward(x, offsets, *weights)
    ctx.biased = bool(biases)


def _linear_backward(ctx, grad):  # type: ignore[no-untyped-def]
    x, offsets, *weights = ctx.saved_tensors
    grad = grad.contiguous()
    grad_x = torch.ops.motet.untied_linear(grad, [w.t() for w in weights], [], offsets)
    grad_weights = torch.ops.motet.untied_outer(grad, x, offsets)
    grad_biases = list(torch.ops.motet.untied_sum(grad, offsets).unbind()) if ctx.biased else []
    return grad_x, grad_weights, grad_biases, None


torch.library.register_autograd("motet::untied_linear", _linear_backward, setup_context=_save_linear)


@register_flop_formula(torch.ops.motet.untied_linear)
def _linear_flops(x_shape, weight_shapes, *args, out_shape=None, **kwargs) -> int:  # type: ignore[no-untyped-def]
    return 2 * x_shape[0] * x_shape[1] * out_shape[1]


@register_flop_formula(torch.ops.motet.untied_outer)
def _outer_flops(a_shape, b_shape, *args, out_shape=None, **kwargs) -> int:  # type: ignore[no-untyped-def]
    return 2 * a_shape[0] * a_shape[1] * b_shape[1]


class _PerToken(torch.autograd.Function):
    """Each token's row of a per-modality table: table[modality]. (M, ...) -> (T, ...)

    The plain backward of indexing scatters with atomics; tokens are sorted, so a sum over slices
    does it.
    """

    @staticmethod
    def forward(ctx, table: Tensor, modality: Tensor, offsets: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(offsets)
        return table.index_select(0, modality)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        (offsets,) = ctx.saved_tensors
        return torch.ops.motet.untied_sum(grad, offsets), None, None


def per_token(table: Sequence[Tensor], layout: Layout) -> Tensor:
    """The vector of each token's modality: M x (D,) -> (T, D)."""
    return _PerToken.apply(torch.stack(list(table)), layout.modality, layout.offsets)


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

    def _of_tokens(self, table: nn.ParameterDict, x: Tensor, layout: Layout) -> Tensor:
        rows = list(table.values())
        value = rows[0] if len(rows) == 1 else per_token(rows, layout)
        return value.unsqueeze(1) if value.dim() == 2 and x.dim() == 3 else value

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        if self.kind == "layer":
            wide = wide - wide.mean(-1, keepdim=True)
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        wide = wide * self._of_tokens(self.weight, x, layout)
        if self.bias:
            wide = wide + self._of_tokens(self.bias, x, layout)
        return wide.to(x.dtype)
