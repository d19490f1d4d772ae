"""The block against the naive oracle: forward and every gradient, in fp64, fp32 and bf16."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from motet.nn import rules
from motet.nn.attention import make_plan
from motet.nn.block import Block, BlockConfig
from motet.nn.positions import Rotary, RotaryConfig
from motet.types import Layout
from tests.parity import oracle
from tests.parity.layouts import Drawn, draw_layout, subset

F64 = torch.float64
LAYOUTS, AT_ONCE = 1000, 50
RULES = {
    "global": rules.same_sample,
    "own": rules.same_sample & rules.own_modality,
    "causal": rules.same_sample & rules.causal,
    "own causal": rules.same_sample & rules.own_modality & rules.causal,
}
PARTS = ("attention", "mlp", "norm")


def draw_config(seed: int) -> tuple[BlockConfig, RotaryConfig | None, str, str]:
    """A block, its rotation, the name of its rule, and an attention backend."""
    rng = random.Random(f"config {seed}")
    heads = rng.choice((1, 2, 4))
    config = BlockConfig(
        width=rng.choice((8, 16)),
        heads=heads,
        kv_heads=rng.choice([None, *(g for g in (1, 2, 4) if heads % g == 0)]),
        mlp=rng.choice(("swiglu", "gelu")),
        mlp_width=rng.choice((None, 8)),
        norm=rng.choice(("rms", "layer")),
        norm_place=rng.choice(("pre", "post")),
        qk_norm=rng.random() < 0.5,
        untie=tuple(part for part in PARTS if rng.random() < 0.6),
        bias=rng.random() < 0.5,
    )
    rotary = rng.choice((None, RotaryConfig(time=1, row=0, col=0), RotaryConfig()))
    if rotary == RotaryConfig() and config.head_size < 8:
        rotary = RotaryConfig(time=1, row=0, col=0, time_unit=0.25)
    return config, rotary, rng.choice(list(RULES)), rng.choice(("auto", "reference", "tiled"))


def make_block(config: BlockConfig, modalities: Sequence[str], seed: int = 0) -> Block:
    """A block in fp64 whose every weight, norms and biases too, is random."""
    block = Block(config, modalities).double()
    draw = torch.Generator().manual_seed(seed)
    for name, weight in block.named_parameters():
        std = weight.shape[-1] ** -0.5 if weight.ndim == 2 else 0.3
        noise = torch.randn(weight.shape, generator=draw, dtype=F64) * std
        weight.data.copy_(noise + (1.0 if "norm" in name and ".weight." in name else 0.0))
    return block


def weights_of(block: Block) -> tuple[oracle.Weights, dict[str, Tensor]]:
    """Copies of a block's weights as the oracle takes them, and the same by their names in the block."""
    layers = {"qkv": block.qkv, "out": block.out, "up": block.mlp.up, "down": block.mlp.down}
    layers |= {"norm_in": block.norm_in, "norm_mlp": block.norm_mlp}
    if block.norm_q is not None:
        layers |= {"norm_q": block.norm_q, "norm_k": block.norm_k}
    known = {id(parameter): name for name, parameter in block.named_parameters()}
    copies = {name: p.detach().clone().requires_grad_() for name, p in block.named_parameters()}

    def table(parameters: torch.nn.ParameterDict) -> dict[str, Tensor]:
        return {key: copies[known[id(p)]] for key, p in parameters.items()}

    tables = {name: table(layer.weight) for name, layer in layers.items()}
    return oracle.Weights(**tables, bias={name: table(layer.bias) for name, layer in layers.items()}), copies


def shape_of(config: BlockConfig) -> oracle.Shape:
    return oracle.Shape(
        heads=config.heads,
        kv_heads=config.kv_heads or config.heads,
        swiglu=config.mlp == "swiglu",
        rms=config.norm == "rms",
        pre_norm=config.norm_place == "pre",
        eps=config.norm_eps,
    )


def allowed_in(drawn: Drawn, rule: str) -> Callable[[int, int], bool]:
    def allowed(i: int, j: int) -> bool:
        same = drawn.sample[i] == drawn.sample[j]
        own = "own" not in rule or drawn.modality[i] == drawn.modality[j]
        return same and own and ("causal" not in rule or drawn.time[j] <= drawn.time[i])

    return allowed


def angles_in(
    drawn: Drawn, rotary: RotaryConfig | None, head_size: int
) -> Callable[[int], list[float]] | None:
    """The turns of token i: half of the pairs by time, a quarter each by row and column; or all by time."""
    if rotary is None:
        return None
    pairs = head_size // 2
    by_time, by_place = (pairs, 0) if rotary.time == 1 else (pairs // 2, pairs // 4)

    def angles(i: int) -> list[float]:
        axes = (
            (drawn.time[i] / rotary.time_unit, by_time, rotary.base),
            (drawn.row[i], by_place, rotary.grid_base),
            (drawn.col[i], by_place, rotary.grid_base),
        )
        return [value / base ** (n / count) for value, count, base in axes for n in range(count)]

    return angles


def oracle_of(
    block: Block, drawn: Drawn, rotary: RotaryConfig | None, rule: str, x: Tensor
) -> tuple[Tensor, dict]:
    weights, leaves = weights_of(block)
    config = block.config
    angles = angles_in(drawn, rotary, config.head_size)
    return oracle.block(
        x, drawn.modality, allowed_in(drawn, rule), weights, shape_of(config), angles=angles
    ), leaves


def run(
    block: Block,
    layout: Layout,
    rule: str,
    x: Tensor,
    *,
    rotary: RotaryConfig | None = None,
    backend: str = "auto",
) -> Tensor:
    rotation = Rotary(rotary, block.config.head_size)(layout, x.dtype) if rotary else None
    return block(x, layout, make_plan(RULES[rule], layout, backend=backend), rotation)


@pytest.mark.parametrize("first", range(0, LAYOUTS, AT_ONCE))
def test_forward_and_gradients_equal_the_oracle_in_fp64(first):
    for seed in range(first, first + AT_ONCE):
        drawn, (config, rotary, rule, backend) = draw_layout(seed), draw_config(seed)
        block = make_block(config, drawn.modalities, seed)
        draw = torch.Generator().manual_seed(seed)
        given, probe = torch.randn(2, len(drawn), config.width, dtype=F64, generator=draw)
        given.requires_grad_()
        expected, leaves = oracle_of(block, drawn, rotary, rule, given)
        x = given.detach()[drawn.order].requires_grad_()
        found = run(block, drawn.layout, rule, x, rotary=rotary, backend=backend)

        def same(a: Tensor, b: Tensor, what: str, told=(seed, config, rotary, rule, backend)) -> None:
            assert (a - b).abs().max() <= 1e-10 * max(1.0, b.abs().max()), (
                f"{what}: seed, config, ... = {told}"
            )

        same(found, expected[drawn.order], "forward")
        wanted = torch.autograd.grad((expected * probe).sum(), [given, *leaves.values()], allow_unused=True)
        (found * probe[drawn.order]).sum().backward()
        same(x.grad, wanted[0][drawn.order], "gradient of the input")
        for (name, parameter), gradient in zip(block.named_parameters(), wanted[1:], strict=True):
            zeros = torch.zeros_like(parameter)
            same(
                zeros if parameter.grad is None else parameter.grad,
                zeros if gradient is None else gradient,
                name,
            )


def test_the_drawn_layouts_have_what_they_should():
    drawn = [draw_layout(seed) for seed in range(LAYOUTS)]
    assert {len(d.modalities) for d in drawn} == {1, 2, 3, 4, 5, 6}
    assert sum(len(d) == 1 for d in drawn) > 100
    assert sum(d.layout.samples == 1 for d in drawn) > 100
    assert sum(0 in d.layout.counts for d in drawn) > 300
    assert sum(not d.layout.present().any(1).all() for d in drawn) > 100  # a sample without any token
    assert sum(sorted(d.modalities) != list(d.modalities) for d in drawn) > 500
    assert sum(not torch.equal(d.order, torch.arange(len(d))) for d in drawn) > 700
    configs = [draw_config(seed) for seed in range(LAYOUTS)]
    assert len({c.untie for c, *_ in configs}) == 8
    assert {rule for *_, rule, _ in configs} == set(RULES)


# Errors are the largest of any output as a share of the largest output of its layout. Weights and
# inputs are rounded first, so that only the arithmetic differs. A block is about ten roundings deep
# (norm, projection, QK norm, scores, softmax, mix, projection, sum, norm, MLP), each of relative
# size 2^-24 = 6e-8 (fp32) or 2^-9 = 2e-3 (bf16, with norms and softmax inside in fp32): ten of them
# are 6e-7 and 2e-2, and 6.2e-7 and 1.5e-2 were measured over these 100 layouts. The bounds are
# twice that, for other orders of summation.
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1.3e-6), (torch.bfloat16, 3e-2)], ids=["fp32", "bf16"]
)
def test_low_precision_stays_within_measured_bounds(dtype, bound):
    worst = 0.0
    for seed in range(100):
        drawn, (config, rotary, rule, _) = draw_layout(seed), draw_config(seed)
        block = make_block(config, drawn.modalities, seed).to(dtype)
        x = torch.randn(len(drawn), config.width, generator=torch.Generator().manual_seed(seed)).to(dtype)
        rotation = Rotary(rotary, config.head_size)(drawn.layout) if rotary else None
        found = block(x[drawn.order], drawn.layout, make_plan(RULES[rule], drawn.layout), rotation)
        assert found.dtype == dtype
        expected, _ = oracle_of(block.double(), drawn, rotary, rule, x.double())
        worst = max(worst, ((found - expected[drawn.order]).abs().max() / expected.abs().max()).item())
    assert worst <= bound


def three_modalities(layout_seed: int = 3) -> tuple[Drawn, Block, Tensor]:
    seed = layout_seed
    while (
        len((drawn := draw_layout(seed)).modalities) < 3
        or 0 in drawn.layout.counts
        or drawn.layout.samples < 3
    ):
        seed += 1
    block = make_block(BlockConfig(width=16, heads=2, qk_norm=True, bias=True), drawn.modalities, seed)
    x = torch.randn(len(drawn), 16, dtype=F64, generator=torch.Generator().manual_seed(seed))
    return drawn, block, x


def gradients(block: Block, loss: Tensor, modality: str) -> dict[str, Tensor]:
    """The gradients of the weights of one modality, by name."""
    named = {name: p for name, p in block.named_parameters() if modality in name.split(".")}
    assert named
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {
        n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)
    }


def test_loss_on_one_modalitys_tokens_gives_zero_gradient_to_anothers_weights():
    drawn, block, x = three_modalities()
    mine, other = drawn.modalities[0], drawn.modalities[1]
    out = run(block, drawn.layout, "own", x)
    loss = out[drawn.layout.slice_of(mine)].sin().sum()
    assert all((g == 0).all() for g in gradients(block, loss, other).values())


def test_under_global_attention_others_learn_only_as_keys_and_values():
    drawn, block, x = three_modalities()
    mine, other = drawn.modalities[0], drawn.modalities[1]
    out = run(block, drawn.layout, "global", x)
    found = gradients(block, out[drawn.layout.slice_of(mine)].sin().sum(), other)
    queries = block.config.heads * block.config.head_size
    for name, gradient in found.items():
        part = name.split(".")[0]
        if part == "qkv":
            assert (gradient[:queries] == 0).all(), name
            assert "bias" in name or (gradient[queries:] != 0).any(), name
        else:
            assert (gradient == 0).all() == (part not in ("norm_in", "norm_k")), name


def test_a_batch_without_images_gives_zero_gradient_to_image_weights():
    names = ("text", "image")
    layout, _ = Layout.build(names, torch.zeros(5, dtype=torch.int64), torch.tensor([0, 0, 1, 1, 1]))
    block = make_block(BlockConfig(width=16, heads=2), names)
    loss = run(block, layout, "global", torch.randn(5, 16, dtype=F64)).sin().sum()
    loss.backward()
    for name, parameter in block.named_parameters():
        text = "text" in name.split(".")
        assert text == (parameter.grad is not None and bool((parameter.grad != 0).any())), name


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3, 40, 6))
def test_permuting_samples_permutes_outputs(rule, seed):
    drawn, block, x = three_modalities(seed)
    new = random.Random(seed).sample(range(drawn.layout.samples), drawn.layout.samples)
    rows, layout = subset(drawn, new)
    rotary = RotaryConfig()
    packed = run(block, drawn.layout, rule, x, rotary=rotary)
    torch.testing.assert_close(
        run(block, layout, rule, x[rows], rotary=rotary), packed[rows], atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(3, 40, 6))
def test_packing_samples_equals_running_them_one_by_one(rule, seed):
    drawn, block, x = three_modalities(seed)
    packed = run(block, drawn.layout, rule, x, rotary=RotaryConfig())
    for b in range(drawn.layout.samples):
        rows, alone = subset(drawn, [b])
        found = run(block, alone, rule, x[rows], rotary=RotaryConfig())
        torch.testing.assert_close(found, packed[rows], atol=1e-12, rtol=0)
