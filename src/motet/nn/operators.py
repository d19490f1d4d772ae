"""The two tensor operators behind untied layers, and the sum over slices.

Tokens are sorted by modality, so modality m's weight meets one contiguous slice: no mask, no
gather. The slice bounds are a CPU tensor, `layout.offsets`, read when an operator runs: no wait
for the device, and to `torch.compile` the mix of modalities is data, so a new mix never compiles
anew.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

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
