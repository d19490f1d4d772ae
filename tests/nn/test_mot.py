"""The stack: compile, count, convert, and the ready modules."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from motet.errors import ConfigError
from motet.nn import rules as R
from motet.nn.block import BlockConfig
from motet.nn.convert import from_llama, from_torch_encoder
from motet.nn.counting import count_flops, count_parameters
from motet.nn.modules import CrossModalAttention, SparseAttention
from motet.nn.mot import MixtureOfTransformers, MoTConfig
from motet.types import Layout
from tests.nn.test_attention import MODALITIES, random_layout


def stack(**block) -> MixtureOfTransformers:
    torch.manual_seed(0)
    config = MoTConfig(BlockConfig(width=32, heads=4, **block), depth=3, attend=("own", "global"))
    return MixtureOfTransformers(config, MODALITIES).double()


def test_layers_follow_attend_and_share_plans():
    model, layout = stack(), random_layout(0)
    assert model.config.layers == ("own", "global", "global") and model.leading_own == 1
    plans = model.plans(layout)
    assert plans[1] is plans[2] and plans[0] is not plans[1]
    assert not (plans[0].mask() & (layout.modality[:, None] != layout.modality[None])).any()


def test_own_layers_hear_no_other_modality():
    model, layout = stack(), random_layout(0)
    x = torch.randn(60, 32, dtype=torch.float64)
    other = x.clone()
    other[layout.slice_of("image")] += 1
    for stop, same in ((1, True), (2, False)):
        a, b = (model(t, layout, stop=stop)[layout.slice_of("text")] for t in (x, other))
        assert torch.equal(a, b) == same


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
@pytest.mark.parametrize("kv_heads", [None, 2])
def test_flops_equal_the_flop_counter_and_the_closed_form(mlp, kv_heads):
    model, layout = stack(mlp=mlp, kv_heads=kv_heads), random_layout(0)
    x = torch.randn(60, 32, dtype=torch.float64)
    count = count_flops(model, layout)
    with FlopCounterMode(display=False) as counter:
        model(x, layout, model.plans(layout, backend="reference"))
    assert counter.get_total_flops() == sum(count.by_modality.values()) + count.attention_dense
    pairs = [int(plan.mask().sum()) for plan in model.plans(layout)]
    assert count.attention == sum(4 * n * 32 for n in pairs)


def test_untying_adds_parameters_and_no_flops():
    layout = random_layout(0)
    tied, untied = stack(untie=()), stack()
    assert count_flops(tied, layout) == count_flops(untied, layout)
    small, large = (count_parameters(m, MODALITIES) for m in (tied, untied))
    assert large.total == 3 * small.total and set(large.active.values()) == {small.total}
    assert large.total == sum(p.numel() for p in untied.parameters())
    width, inner = 32, untied.config.block.inner
    layer = 4 * width * width + 3 * width * inner + 2 * width
    assert large.by_modality["text"] == 3 * layer + width and large.by_modality["shared"] == 0


def test_the_last_layers_alone_can_be_untied():
    config = MoTConfig(BlockConfig(width=32, heads=4), depth=3, untie_layers=1)
    model = MixtureOfTransformers(config, MODALITIES)
    assert [len(b.qkv.weight) for b in model.blocks] == [1, 1, 3]


def test_recomputing_activations_changes_no_gradient():
    layout = random_layout(1)
    grads = []
    for recompute in (False, True):
        torch.manual_seed(0)
        config = MoTConfig(BlockConfig(width=32, heads=4), depth=2, recompute=recompute)
        model = MixtureOfTransformers(config, MODALITIES).double()
        model(torch.ones(60, 32, dtype=torch.float64), layout).square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_drop_path_drops_whole_samples_and_only_in_training():
    model, layout = stack(drop_path=0.5), random_layout(0)
    x = torch.randn(60, 32, dtype=torch.float64)
    torch.manual_seed(1)
    block, plan = model.blocks[0], model.plans(layout)[0]
    block.mlp = torch.nn.Identity()
    block.mlp.forward = lambda x, layout: torch.zeros_like(x)
    moved = (block(x, layout, plan) - x).abs().amax(1) > 0
    per_sample = [moved[layout.sample == s] for s in range(4)]
    assert all(m.all() or not m.any() for m in per_sample) and 0 < sum(bool(m.all()) for m in per_sample) < 4
    model.eval()
    assert torch.equal(block(x, layout, plan), block(x, layout, plan))


def test_a_compiled_block_compiles_at_most_twice_over_100_changing_mixes():
    model = MixtureOfTransformers(MoTConfig(BlockConfig(width=16, heads=2), depth=1), MODALITIES)
    block = model.blocks[0]
    torch.compiler.reset()
    graphs = 0

    def counting(graph, inputs):
        nonlocal graphs
        graphs += 1
        return graph.forward

    compiled = torch.compile(block, fullgraph=True, backend=counting)
    g = torch.Generator().manual_seed(0)
    mixes = torch.tensor([[0, 1, 2], [0, 1, 1], [0, 0, 0], [2, 2, 1], [1, 1, 1]])
    for i in range(100):
        tokens = int(torch.randint(3, 60, (1,), generator=g))
        modality = mixes[i % 5][torch.randint(0, 3, (tokens,), generator=g)]
        sample = torch.randint(0, 1 + i % 6, (tokens,), generator=g)
        layout, _ = Layout.build(MODALITIES, modality, sample)
        x = torch.randn(tokens, 16, generator=g, requires_grad=True)
        plan, rotation = model.plans(layout)[0], model.rotary(layout)
        found, truth = compiled(x, layout, plan, rotation), block(x, layout, plan, rotation)
        torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-5)
        (a,) = torch.autograd.grad(found.square().sum(), x)
        (b,) = torch.autograd.grad(truth.square().sum(), x)
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
    assert graphs <= 3, f"{graphs - 1} recompilations"


def test_every_modality_can_start_from_a_dense_stack():
    dense, layout = stack(untie=()), random_layout(0)
    model = MixtureOfTransformers.from_dense(dense, MODALITIES, ("attention", "mlp", "norm")).double()
    x = torch.randn(60, 32, dtype=torch.float64)
    torch.testing.assert_close(model(x, layout), dense(x, layout), atol=1e-12, rtol=1e-12)
    assert len(model.blocks[0].qkv.weight) == 3
    with pytest.raises(ConfigError, match=r"untie=\(\)"):
        MixtureOfTransformers.from_dense(model, ("a", "b"), ())


def test_torch_encoder_gives_identical_outputs_for_every_modality():
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
    encoder = torch.nn.TransformerEncoder(layer, 2, norm=torch.nn.LayerNorm(32), enable_nested_tensor=False)
    model = MixtureOfTransformers.from_dense(from_torch_encoder(encoder), MODALITIES, ("attention", "mlp"))
    modality = torch.randint(0, 3, (2 * 9,))
    layout, order = Layout.build(MODALITIES, modality, torch.arange(2).repeat_interleave(9))
    x = torch.randn(2, 9, 32)
    torch.testing.assert_close(model(x.flatten(0, 1)[order], layout), encoder(x).flatten(0, 1)[order])


def test_llama_weights_give_identical_outputs_for_every_modality():
    transformers = pytest.importorskip("transformers", reason="needs the extra hf")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
    )
    llama = transformers.LlamaModel(config).eval()
    model = MixtureOfTransformers.from_dense(from_llama(llama), MODALITIES, ("attention", "mlp", "norm"))
    ids, modality = torch.randint(0, 50, (2, 9)), torch.randint(0, 3, (2 * 9,))
    layout, order = Layout.build(MODALITIES, modality, torch.arange(2).repeat_interleave(9))
    x = llama.embed_tokens(ids).flatten(0, 1)[order]
    truth = llama(ids).last_hidden_state.flatten(0, 1)[order]
    torch.testing.assert_close(model(x, layout), truth, atol=1e-5, rtol=1e-5)


def test_cross_modal_attention_changes_the_query_alone_and_skips_samples_without_keys():
    torch.manual_seed(0)
    module = CrossModalAttention(16, 2, "text", "image").double()
    modality = torch.tensor([0, 0, 1, 1, 0, 2])
    layout, _ = Layout.build(MODALITIES, modality, torch.tensor([0, 0, 0, 0, 1, 1]))
    x = torch.randn(6, 16, dtype=torch.float64)
    y = module(x, layout)
    text, image = layout.slice_of("text"), layout.slice_of("image")
    assert torch.equal(y[text.stop :], x[text.stop :])
    q = module.ask(x[:2]).view(2, 2, 8).transpose(0, 1)
    k, v = (t.view(2, 2, 8).transpose(0, 1) for t in module.tell(x[image]).chunk(2, -1))
    heard = ((q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v).transpose(0, 1).flatten(1)
    torch.testing.assert_close(y[:2], x[:2] + module.out(heard))
    torch.testing.assert_close(y[2], x[2])  # the text of sample 1, which has no image
    with pytest.raises(ConfigError):
        CrossModalAttention(16, 2, "text", "text")


def test_sparse_attention_hears_only_its_blocks():
    torch.manual_seed(0)
    module = SparseAttention(MODALITIES, 16, 2, block=8, density=0.25, seed=3).double()
    layout = random_layout(0, tokens=64, samples=1)
    x = torch.randn(64, 16, dtype=torch.float64)
    table = R.block_sparse(8, 0.25, seed=3).table(8)
    other = x.clone()
    changed = layout.position // 8 == 5
    other[changed] += 1
    moved = (module(x, layout) - module(other, layout)).abs().amax(1) > 1e-12
    blocks = {int(b) for b in (layout.position[moved] // 8).unique()}
    assert blocks == {i for i in range(8) if table[i, 5]}
