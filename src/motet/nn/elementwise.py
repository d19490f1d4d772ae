"""Norms, rotation and gates: steps that cost memory traffic, not arithmetic.

Written out, each keeps several tensors of the size of its input for the backward. The functions
here keep the input alone and work the rest out again, in fewer passes. All are made of tensor
operations that a compiler sees through and fuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from motet.nn import operators  # noqa: F401  (torch.ops.motet)
from motet.types import Layout


def _rows(table: Tensor, x: Tensor, modality: Tensor) -> Tensor:
    """The row of each token's modality, to go with x of (T, [H,] W). One row stands for all."""
    rows = table if len(table) == 1 else table.index_select(0, modality)
    return rows.unsqueeze(1) if x.dim() == 3 else rows


def _by_modality(x: Tensor, table: Tensor, offsets: Tensor) -> Tensor:
    """Sum of x over each modality's tokens, and over heads: the gradient of `table`. -> (M, W)"""
    x = x.sum(1) if x.dim() == 3 else x
    total = x.sum(0, keepdim=True) if len(table) == 1 else torch.ops.motet.untied_sum(x, offsets)
    return total.to(table.dtype)


class _Normalize(torch.autograd.Function):
    """n = (x - mean) r with r = (mean square + eps)^-1/2, y = n w + b; n is worked out again."""

    @staticmethod
    def forward(ctx, x, weight, bias, modality, offsets, eps):  # type: ignore[no-untyped-def]
        wide = x if x.dtype == torch.float64 else x.float()
        mean = wide.mean(-1, keepdim=True) if bias is not None else None
        wide = wide if mean is None else wide - mean
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
        ctx.save_for_backward(x, weight, bias, mean, scale, modality, offsets)
        y = (wide * scale).mul_(_rows(weight, x, modality))
        return (y if bias is None else y.add_(_rows(bias, x, modality))).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        x, weight, bias, mean, scale, modality, offsets = ctx.saved_tensors
        grad, wide = grad.to(scale.dtype), x.to(scale.dtype)
        normal = (wide if mean is None else wide - mean) * scale
        grad_weight = _by_modality(grad * normal, weight, offsets)
        grad_bias = None if bias is None else _by_modality(grad, bias, offsets)
        grad = grad * _rows(weight, x, modality)
        along = (grad * normal).mean(-1, keepdim=True)
        if mean is not None:
            grad.sub_(grad.mean(-1, keepdim=True))
        grad_x = grad.addcmul_(normal, along, value=-1).mul_(scale)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None


def normalize(
    x: Tensor, weight: Sequence[Tensor], bias: Sequence[Tensor], layout: Layout, *, eps: float
) -> Tensor:
    """RMS norm over the last axis; with `bias`, layer norm. (T, [H,] W) -> the same

    weight, bias: a vector (W,) per modality, or one for all. Computed in fp32 at least.
    Sources: Zhang & Sennrich 2019, arXiv:1910.07467; Ba et al. 2016, arXiv:1607.06450.
    """
    shift = torch.stack(list(bias)) if bias else None
    return _Normalize.apply(x, torch.stack(list(weight)), shift, layout.modality, layout.offsets, eps)


def _in_cache(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The same rows of every tensor; on a CPU so few that what one step writes the next finds cached."""
    rows = 256 if tensors[0].device.type == "cpu" else max(1, len(tensors[0]))
    return zip(*(t.split(rows) for t in tensors), strict=True)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        y = x.new_empty(len(x), x.shape[1] // 2)
        for x_, y_ in _in_cache(x, y):
            gate, value = x_.chunk(2, dim=-1)
            torch.ops.aten.silu.out(gate, out=y_).mul_(value)
        return y

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        for x_, grad_, grad_x_ in _in_cache(x, grad, grad_x):
            gate, value = x_.chunk(2, dim=-1)
            of_gate, of_value = grad_x_.chunk(2, dim=-1)
            torch.ops.aten.silu.out(gate, out=of_value).mul_(grad_)
            torch.mul(grad_, value, out=of_gate)
            torch.ops.aten.silu_backward.grad_input(of_gate, gate, grad_input=of_gate)
        return grad_x


def swiglu(x: Tensor) -> Tensor:
    """silu(gate) * value, the two halves of the last axis. (T, 2 I) -> (T, I)

    Source: Shazeer 2020, arXiv:2002.05202.
    """
    if torch.compiler.is_compiling():
        gate, value = x.chunk(2, dim=-1)
        return F.silu(gate) * value
    return _SwiGLU.apply(x)
