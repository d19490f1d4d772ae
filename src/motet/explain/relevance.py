"""Relevance: the answer's score, handed back layer by layer to the tokens that it came from.

Where a plain gradient asks what a nudge would change, this asks who brought what is there. One
backward pass: the model computes what it always does, and hooks change only how gradients flow
through the steps that are not linear, so that gradient times input is each token's part.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from motet.explain.capture import Capture, Score
from motet.explain.rollout import Importance, importance_of, input_gradient
from motet.nn.block import MLP, Attend
from motet.nn.fusion import AttentionFusion
from motet.nn.untied import UntiedNorm
from motet.types import TokenBatch


def relevance(
    model: nn.Module, batch: TokenBatch, captured: Capture, score: Score, *, sample: int = 0
) -> Importance:
    """What each embedded token brought to the score of one sample; below zero: it spoke against it.

    The rules: a norm's scale counts as a constant; an activation f(x) as x times the constant f(x)/x;
    of a product (weights and values, queries and keys, an MLP's gate and value) each factor gets half;
    a softmax, and what a fusion of one's own may do, is left as it is.

    Sources: Achtibat et al. 2024 (AttnLRP), section 3, arXiv:2402.05602; the norm as in Ali et al. 2022,
    arXiv:2202.07304.
    """
    return importance_of("relevance", captured, sample, token_relevance(model, batch, score))


def token_relevance(model: nn.Module, batch: TokenBatch, score: Score) -> Tensor:
    """`relevance` of every token to its own sample's score, all samples in one pass. (T,)"""
    with relevance_rules(model):
        x, gradient = input_gradient(model, batch, score)
    return (gradient * x).sum(-1)


@contextmanager
def relevance_rules(model: nn.Module) -> Iterator[None]:
    """Within, this model's gradients follow the rules of `relevance`; its outputs stay what they are."""
    with ExitStack() as hooks:
        for module in model.modules():
            for handle in _rules(module):
                hooks.callback(handle.remove)
        yield


def _rules(module: nn.Module) -> list[RemovableHandle]:
    match module:
        case Attend():
            return [module.register_forward_pre_hook(_attend)]
        case UntiedNorm() | nn.LayerNorm() | nn.RMSNorm():
            return [module.register_forward_hook(_norm)]
        case nn.GELU():
            return [module.register_forward_hook(lambda _, args, out: _constants(out, args[0]))]
        case MLP():
            return _mlp(module)
        case AttentionFusion():  # its queries are weights, which take no part
            halves = (module.key, module.value)
            return [linear.register_forward_hook(lambda _, __, out: _part(out, 0.5)) for linear in halves]
        case _:
            return []


def _attend(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    q, k, v, plan = args
    return _part(q, 0.25), _part(k, 0.25), _part(v, 0.5), plan


def _norm(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
    x = args[0]
    if isinstance(module, nn.LayerNorm) or (isinstance(module, UntiedNorm) and module.kind == "layer"):
        x = x - x.mean(-1, keepdim=True)
    bias = module.forward(torch.zeros_like(args[0]), *args[1:])
    return _constants(out, x, scaled=out - bias)


def _mlp(mlp: MLP) -> list[RemovableHandle]:
    raised: list[Tensor] = []

    def after_up(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> None:
        raised[:] = [out]

    def before_down(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        factors = raised.pop().chunk(2 if mlp.gated else 1, dim=-1)
        return _constants(args[0], *factors), *args[1:]

    return [mlp.up.register_forward_hook(after_up), mlp.down.register_forward_pre_hook(before_down)]


def _part(x: Tensor, part: float) -> Tensor:
    """x itself, letting only a part of its gradient through."""
    return x.detach() + part * (x - x.detach())


def _constants(out: Tensor, *factors: Tensor, scaled: Tensor | None = None) -> Tensor:
    """`out` itself, with gradients as if it were the mean over the factors of a constant times each.

    scaled: what the constants make of the factors, where that is not all of `out`.
    """
    scaled = (out if scaled is None else scaled).detach()
    result = out.detach()
    for factor in factors:
        there = factor.detach().abs() > 1e-9
        constant = torch.where(there, scaled / torch.where(there, factor.detach(), 1.0), 0.0)
        result = result + constant / len(factors) * (factor - factor.detach())
    return result.to(out.dtype)
