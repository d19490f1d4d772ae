"""The whole stack, encoders first and then mixing, against the oracle applied layer by layer."""

from __future__ import annotations

import pytest
import torch

from motet.nn.block import BlockConfig
from motet.nn.mot import MixtureOfTransformers, MoTConfig
from tests.parity import oracle
from tests.parity.layouts import draw_layout
from tests.parity.test_block import F64, allowed_in, shape_of, weights_of

STACKS = (
    MoTConfig(BlockConfig(width=8, heads=2), depth=3, attend=("own", "global"), rotary=None),
    MoTConfig(BlockConfig(width=8, heads=2, norm_place="post"), depth=2, causal=True, rotary=None),
    MoTConfig(
        BlockConfig(width=8, heads=2, qk_norm=True), depth=3, untie_layers=1, rotary=None, recompute=True
    ),
    MoTConfig(BlockConfig(width=8, heads=2, untie=()), depth=2, attend=("global", "own"), rotary=None),
)


@pytest.mark.parametrize("config", STACKS)
def test_a_stack_equals_its_blocks_one_by_one(config):
    for seed in range(10):
        drawn = draw_layout(seed)
        torch.manual_seed(seed)
        stack = MixtureOfTransformers(config, drawn.modalities).double()
        given, probe = torch.randn(2, len(drawn), 8, dtype=F64)
        expected = given.requires_grad_()
        for block, attend in zip(stack.blocks, config.layers, strict=True):
            rule = f"{attend} {'causal' if config.causal else ''}"
            shape = shape_of(block.config)
            expected = oracle.block(
                expected, drawn.modality, allowed_in(drawn, rule), weights_of(block)[0], shape
            )
        # The norm's weights are still ones, so that it needs no modality here.
        expected = expected / (expected.square().mean(1, keepdim=True) + config.block.norm_eps).sqrt()

        x = given.detach()[drawn.order].requires_grad_()
        found = stack(x, drawn.layout)
        torch.testing.assert_close(found, expected[drawn.order], atol=1e-10, rtol=0)
        (wanted,) = torch.autograd.grad((expected * probe).sum(), given)
        (gradient,) = torch.autograd.grad((found * probe[drawn.order]).sum(), x)
        torch.testing.assert_close(gradient, wanted[drawn.order], atol=1e-10, rtol=1e-10)
