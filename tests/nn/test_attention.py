"""Every backend says what the reference says, forward and backward, under every rule."""

import pytest
import torch
from torch.nn.attention import flex_attention

from motet.errors import ConfigError
from motet.nn import rules as R
from motet.nn.attention import flex, make_plan, tiled
from motet.nn.attention.sequences import Sequences
from motet.types import Layout

MODALITIES = ("text", "image", "audio")


def random_layout(seed: int, tokens: int = 60, samples: int = 4) -> Layout:
    g = torch.Generator().manual_seed(seed)
    modality = torch.randint(0, 3, (tokens,), generator=g)
    sample = torch.randint(0, samples, (tokens,), generator=g)
    span = torch.randint(-1, 3, (tokens,), generator=g)
    layout, _ = Layout.build(MODALITIES, modality, sample, span=span, samples=samples)
    return layout


RULES = {
    "global": R.same_sample,
    "own": R.same_sample & R.own_modality,
    "causal": R.same_sample & R.causal,
    "own causal": R.same_sample & R.own_modality & R.causal,
    "window": R.same_sample & R.window(tokens=3),
    "seconds": R.same_sample & R.window(seconds=2.5) & R.causal,
    "sparse": R.same_sample & R.block_sparse(4, 0.4, seed=1, global_tokens=1),
    "cross or own": R.same_sample & (R.across("text", "image") | R.own_modality),
    "prefix": R.same_sample & (R.causal | R.prefix(3) | R.same_span),
    "not": R.same_sample & (~R.own_modality | R.window(tokens=0)),
    "everything": R.everything,
    "user": R.same_sample & R.where(lambda q, k: (q.position + k.position) % 2 == 0, "even"),
}


def run(plan, q, k, v):
    q, k, v = (t.clone().requires_grad_() for t in (q, k, v))
    out = plan.attend(q, k, v)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    return out, *grads


@pytest.mark.parametrize("backend", ["sdpa", "tiled"])
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("groups", [4, 2])
def test_backends_equal_the_reference_forward_and_backward(backend, name, groups, monkeypatch):
    monkeypatch.setattr(tiled, "TILE", 16)
    for seed in range(3):
        layout = random_layout(seed)
        g = torch.Generator().manual_seed(seed)
        q = torch.randn(60, 4, 8, dtype=torch.float64, generator=g)
        k, v = (torch.randn(60, groups, 8, dtype=torch.float64, generator=g) for _ in range(2))
        truth = run(make_plan(RULES[name], layout, backend="reference"), q, k, v)
        found = run(make_plan(RULES[name], layout, backend=backend), q, k, v)
        for a, b in zip(truth, found, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-10)


def test_reference_equals_a_loop_over_pairs():
    layout = random_layout(5, tokens=20)
    rule = R.same_sample & (R.causal | R.across("text", "image"))
    q, k, v = (torch.randn(20, 2, 4, dtype=torch.float64) for _ in range(3))
    out = make_plan(rule, layout, backend="reference").attend(q, k, v)
    text, image = MODALITIES.index("text"), MODALITIES.index("image")
    for i in range(20):
        keys = [
            j
            for j in range(20)
            if layout.sample[i] == layout.sample[j]
            and (
                layout.time[j] <= layout.time[i]
                or (layout.modality[i] == text and layout.modality[j] == image)
            )
        ]
        for h in range(2):
            score = torch.stack([q[i, h] @ k[j, h] / 2 for j in keys])
            expected = (score.softmax(0).unsqueeze(1) * v[keys, h]).sum(0)
            torch.testing.assert_close(out[i, h], expected, atol=1e-12, rtol=1e-12)


def test_tokens_of_equal_time_see_each_other_under_causal():
    layout, _ = Layout.build(
        ("a", "b"), torch.tensor([0, 1, 0]), torch.zeros(3), time=torch.tensor([0.0, 0.0, 1.0])
    )
    mask = make_plan(R.same_sample & R.causal, layout).mask()
    assert mask.sum() == 2 + 2 + 3
    q, k, v = (torch.randn(3, 1, 4, dtype=torch.float64) for _ in range(3))
    for backend in ("sdpa", "tiled"):
        torch.testing.assert_close(
            make_plan(R.same_sample & R.causal, layout, backend=backend).attend(q, k, v),
            make_plan(R.same_sample & R.causal, layout, backend="reference").attend(q, k, v),
        )


def test_a_query_without_a_key_is_refused_by_name_or_given_itself():
    layout = random_layout(0)
    rule = R.same_sample & R.across("text", "image")
    with pytest.raises(ConfigError, match=r"across\('text', 'image'\).*'(image|audio)' token of sample \d"):
        make_plan(rule, layout)
    plan = make_plan(rule, layout, on_empty="self")
    assert plan.mask().any(1).all()
    q, k, v = (torch.randn(60, 1, 4, dtype=torch.float64) for _ in range(3))
    out = plan.attend(q, k, v)
    audio = layout.slice_of("audio")
    torch.testing.assert_close(out[audio], v[audio])
    torch.testing.assert_close(
        out, make_plan(rule, layout, on_empty="self", backend="reference").attend(q, k, v)
    )


def test_block_sparse_is_reproducible_balanced_and_keeps_the_diagonal():
    rule = R.block_sparse(4, 0.25, seed=7)
    table = rule.table(16)
    assert torch.equal(table, R.block_sparse(4, 0.25, seed=7).table(16))
    assert not torch.equal(table, R.block_sparse(4, 0.25, seed=8).table(16))
    assert (table.sum(1) == 4).all() and table.diagonal().all()


def test_an_unknown_modality_in_a_rule_is_an_error():
    with pytest.raises(ConfigError, match=r"no modality 'smell'.*text, image, audio"):
        make_plan(R.same_sample & (R.own_modality | R.across("text", "smell")), random_layout(0))


def test_rules_print_as_they_are_written():
    rule = R.same_sample & (R.own_modality | R.across("text", "image")) & ~R.causal
    assert str(rule) == "(same_sample & (own_modality | across('text', 'image')) & ~causal)"
    assert R.everything & R.same_sample == R.same_sample
    assert (R.everything | R.same_sample) == R.everything


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("size", [16, 6])
@pytest.mark.parametrize("name", RULES)
def test_flex_equals_the_reference_forward_where_there_is_no_gpu(name, size, monkeypatch):
    """On the CPU FlexAttention has no backward; test_gpu.py has both, compiled."""
    monkeypatch.setattr(flex, "_compiled", lambda: flex.flex_attention)
    layout = random_layout(0, tokens=200)
    q, k, v = (torch.randn(200, heads, size) for heads in (4, 2, 2))
    with torch.no_grad():
        both = [make_plan(RULES[name], layout, backend=b) for b in ("flex", "reference")]
        found, truth = (plan.attend(q, k, v) for plan in both)
    torch.testing.assert_close(found, truth, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("tokens", [700, 512])
def test_flex_visits_the_tiles_that_torch_would_find(name, tokens):
    layout = random_layout(2, tokens=tokens)
    rule = RULES[name]
    sequences = Sequences.of(rule, layout)
    found = flex.Flex.of(rule, sequences, layout).block_mask
    truth = flex_attention.create_block_mask(found.mask_mod, None, None, tokens, tokens, device="cpu")
    assert found.shape == truth.shape
    assert torch.equal(found.to_dense(), truth.to_dense())
    for a, b in (
        (found.kv_num_blocks, truth.kv_num_blocks),
        (found.full_kv_num_blocks, truth.full_kv_num_blocks),
    ):
        assert torch.equal(a, b)
    for count, a, b in (
        (found.kv_num_blocks, found.kv_indices, truth.kv_indices),
        (found.full_kv_num_blocks, found.full_kv_indices, truth.full_kv_indices),
    ):
        for row, n in enumerate(count.flatten().tolist()):
            assert a[0, 0, row, :n].tolist() == b[0, 0, row, :n].tolist()
