"""The rules of relevance, each against what its paper says it must add up to."""

import pytest
import torch
from torch import Tensor, nn

from motet.explain.capture import capture
from motet.explain.relevance import relevance, relevance_rules
from motet.nn.attention import make_plan
from motet.nn.block import MLP, Attend, BlockConfig
from motet.nn.rules import same_sample
from motet.nn.untied import UntiedNorm
from tests.explain.test_capture import SPECS, good, make_batch, make_model

NAMES = [spec.name for spec in SPECS]


def leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def test_outputs_stay_what_they_are_and_no_hook_stays() -> None:
    model, batch = make_model().train(), make_batch()
    with torch.no_grad():
        plain = model.eval()(batch)
        with relevance_rules(model):
            ruled = model(batch)
    torch.testing.assert_close(ruled.predictions["mood"], plain.predictions["mood"])
    relevance(model.train(), batch, capture(model, batch), good)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
def test_an_mlp_hands_back_all_that_it_gave(mlp: str) -> None:
    torch.manual_seed(0)
    layout = make_batch().layout
    module = MLP(BlockConfig(width=8, heads=2, mlp=mlp), NAMES).double()  # type: ignore[arg-type]
    x, weight = leaf(layout.tokens, 8), torch.randn(layout.tokens, 8, dtype=torch.float64)
    with relevance_rules(nn.Sequential(module)):
        out = module(x, layout)
        (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    torch.testing.assert_close((gradient * x).sum(-1), (out * weight).sum(-1))


@pytest.mark.parametrize("kind", ["rms", "layer", "torch"])
def test_a_norm_hands_back_all_but_its_bias(kind: str) -> None:
    torch.manual_seed(0)
    layout = make_batch().layout
    module = nn.LayerNorm(8) if kind == "torch" else UntiedNorm(NAMES, 8, kind=kind)
    for parameter in module.double().parameters():
        nn.init.normal_(parameter)
    args = () if kind == "torch" else (layout,)
    x, weight = leaf(layout.tokens, 8), torch.randn(layout.tokens, 8, dtype=torch.float64)
    with relevance_rules(nn.Sequential(module)):
        out = module(x, *args)
        (gradient,) = torch.autograd.grad((out * weight).sum(), x)
    bias = module(torch.zeros_like(x), *args)
    torch.testing.assert_close((gradient * x).sum(-1), ((out - bias) * weight).sum(-1))


def test_attention_gives_half_to_values_and_half_through_the_softmax() -> None:
    """The rules for softmax and for a product of matrices, written out on dense weights."""
    torch.manual_seed(0)
    layout = make_batch().layout
    q, k, v = (leaf(layout.tokens, 2, 4) for _ in range(3))
    weight = torch.randn(layout.tokens, 2, 4, dtype=torch.float64)
    plan, attend = make_plan(same_sample, layout), Attend()
    with relevance_rules(nn.Sequential(attend)):
        found = torch.autograd.grad((attend(q, k, v, plan) * weight).sum(), (q, k, v))
    got_q, got_k, got_v = (
        (gradient * x).sum(-1).detach() for gradient, x in zip(found, (q, k, v), strict=True)
    )
    with torch.no_grad():
        scores = torch.einsum("rhk,thk->hrt", q, k) / 2
        share = scores.masked_fill(~plan.mask(), -torch.inf).softmax(-1)
        brought = torch.einsum("rhk,thk->hrt", weight, v) * share  # each weight x value, the answer's parts
        through = (
            0.5 * scores * (brought - share * brought.sum(-1, keepdim=True))
        )  # of the weights, by scores
    torch.testing.assert_close(got_v, 0.5 * brought.sum(1).T)
    torch.testing.assert_close(got_q, 0.5 * through.sum(2).T)
    torch.testing.assert_close(got_k, 0.5 * through.sum(1).T)
