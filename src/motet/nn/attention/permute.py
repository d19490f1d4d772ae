"""Reordering rows so that the way back is a gather too."""

from __future__ import annotations

import torch
from torch import Tensor


class _Permute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, index: Tensor, inverse: Tensor, valid: Tensor | None) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(inverse, valid)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, grad: Tensor):  # type: ignore[no-untyped-def]
        inverse, valid = ctx.saved_tensors
        grad = grad.index_select(0, inverse)
        if valid is not None:
            grad = grad * valid.view(-1, *[1] * (grad.dim() - 1))
        return grad, None, None, None


def permute(x: Tensor, index: Tensor, inverse: Tensor, valid: Tensor | None = None) -> Tensor:
    """x[index], whose gradient is grad[inverse]. (n, ...) -> (len(index), ...)

    Plain indexing has a scatter-add for its backward, many times slower on a GPU. `inverse` says
    for every row of x where it stands in the result; where x has rows that stand nowhere (padding),
    `valid` (n,) is False there.
    """
    return _Permute.apply(x, index, inverse, valid)
