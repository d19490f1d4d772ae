"""Norm, gate and rotation equal their written-out forms, forward and backward, and keep less."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from motet.nn.elementwise import normalize, swiglu
from motet.nn.positions import Rotary, RotaryConfig, apply_rotary
from motet.types import Layout

NAMES = ("text", "image", "audio")


def packed(tokens: int = 11) -> Layout:
    g = torch.Generator().manual_seed(0)
    modality = torch.randint(0, 2, (tokens,), generator=g)  # audio stays empty
    return Layout.build(NAMES, modality, torch.zeros(tokens, dtype=torch.long))[0]


@pytest.mark.parametrize("shift", [False, True])
@pytest.mark.parametrize("heads", [0, 3])
@pytest.mark.parametrize("tables", [1, 3])
def test_norm_equals_the_written_out_one_token_by_token(shift: bool, heads: int, tables: int) -> None:
    layout, g = packed(), torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).requires_grad_()

    x = numbers(layout.tokens, *([heads] if heads else []), 5)
    weight, bias = ([numbers(5) for _ in range(tables if used else 0)] for used in (True, shift))
    rows = []
    for token, m in zip(x, layout.modality.tolist(), strict=True):
        i = min(m, tables - 1)
        wide = token - token.mean(-1, keepdim=True) if shift else token
        wide = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()
        rows.append(wide * weight[i] + (bias[i] if shift else 0))
    naive, ours = torch.stack(rows), normalize(x, weight, bias, layout, eps=1e-6)
    torch.testing.assert_close(ours, naive, rtol=0, atol=1e-12)
    leaves = [x, *weight, *bias]
    upstream = torch.randn(naive.shape, generator=g, dtype=torch.float64)
    expected = torch.autograd.grad(naive, leaves, upstream, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(torch.autograd.grad(ours, leaves, upstream), expected, rtol=0, atol=1e-12)


def test_gate_and_rotation_have_the_gradients_of_their_written_out_forms() -> None:
    layout, g = packed(), torch.Generator().manual_seed(2)
    x = torch.randn(layout.tokens, 2, 8, generator=g, dtype=torch.float64).requires_grad_()
    rotary = Rotary(RotaryConfig(1.0, 0.0, 0.0), 8)(layout, torch.float64)
    assert torch.autograd.gradcheck(lambda t: apply_rotary(t, rotary), (x,))
    assert torch.autograd.gradcheck(swiglu, (x.flatten(1).detach().requires_grad_(),))
    gate, value = x.flatten(1).chunk(2, dim=-1)
    torch.testing.assert_close(swiglu(x.flatten(1)), F.silu(gate) * value, rtol=0, atol=0)


@pytest.mark.parametrize("tokens", [0, 1, 255, 256, 257, 700])
def test_gate_of_any_number_of_tokens_is_the_plain_one(tokens: int) -> None:
    """Rows are worked through some at a time; none is left out or met twice."""
    plain = torch.randn(tokens, 20, dtype=torch.float64, requires_grad=True)
    ours = plain.detach().clone().requires_grad_()
    gate, value = plain.chunk(2, dim=-1)
    expected, found = F.silu(gate) * value, swiglu(ours)
    by = torch.randn_like(expected)
    expected.backward(by)
    found.backward(by)
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-14, atol=1e-14)


def test_norm_and_gate_keep_nothing_but_their_input() -> None:
    layout = packed(400)
    x = torch.randn(400, 64).requires_grad_()
    weight = [torch.ones(64, requires_grad=True) for _ in NAMES]
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        for y in (normalize(x, weight, [], layout, eps=1e-6), swiglu(x)):
            y.sum()
    small = 400 * 4 + 3 * 64 * 4 + 400 * 8 + 5 * 8  # a number a token, the table, modalities, bounds
    assert sum(kept.values()) <= x.nbytes + small
