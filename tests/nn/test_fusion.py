"""All fusions by one interface: every subset of modalities, gradients, samples apart."""

import itertools

import numpy as np
import pytest
import torch

from motet.errors import ConfigError
from motet.nn.fusion import FUSIONS, HierarchicalFusion, LateFusion, make_fusion
from motet.nn.resample import resample
from motet.types import Layout

NAMES = ("text", "image", "audio")
WIDTH = 8
LENGTHS = {"text": 3, "image": 4, "audio": 5}
SUBSETS = [s for n in range(4) for s in itertools.combinations(NAMES, n)]
F64 = torch.float64


def batch(present, seed=0):
    """Samples with these modalities, interleaved; pictures at second 0, the others spread over time."""
    draw = torch.Generator().manual_seed(seed)
    parts = [
        (NAMES.index(name), b, 0.0 if name == "image" else 0.4 * i * (1 + b))
        for b, names in enumerate(present)
        for name in names
        for i in range(LENGTHS[name] + b % 2)
    ]
    parts = [parts[i] for i in torch.randperm(len(parts), generator=draw)]
    modality, sample = (torch.tensor([p[i] for p in parts], dtype=torch.int64) for i in (0, 1))
    time = torch.tensor([p[2] for p in parts])
    layout, order = Layout.build(NAMES, modality, sample, time=time, samples=len(present))
    values = torch.randn(len(parts), WIDTH, dtype=F64, generator=draw)
    return values[order], layout


def rows_of(layout, samples):
    """Which packed tokens belong to these samples, and the layout of these alone, renumbered."""
    place = {b: i for i, b in enumerate(samples)}
    kept = [t for t, b in enumerate(layout.sample.tolist()) if b in place]
    new = torch.tensor([place[layout.sample[t].item()] for t in kept], dtype=torch.int64)
    alone, order = Layout.build(
        NAMES,
        layout.modality[kept],
        new,
        position=layout.position[kept],
        time=layout.time[kept],
        samples=len(samples),
    )
    return torch.tensor(kept, dtype=torch.int64)[order], alone


def fusion_of(name):
    torch.manual_seed(3)
    fusion = make_fusion(name, WIDTH, NAMES, heads=2, ticks=4).double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.5)  # zeros would hide what a part does
    return fusion


@pytest.mark.parametrize("name", FUSIONS)
@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_every_fusion_takes_every_subset(name, subset):
    fusion = fusion_of(name)
    x, layout = batch([subset, NAMES, ("audio",)])
    x.requires_grad_()
    fused = fusion(x, layout)
    assert fused.shape == (3, WIDTH)
    assert fused.isfinite().all()
    assert (fused[0] == 0).all() == (not subset)

    # Samples do not hear each other: alone, a sample gives the same.
    rows, alone = rows_of(layout, [0])
    torch.testing.assert_close(fusion(x[rows], alone), fused[:1], atol=1e-12, rtol=0)
    # Permuting samples permutes outputs.
    rows, permuted = rows_of(layout, [2, 0, 1])
    torch.testing.assert_close(fusion(x[rows], permuted), fused[[2, 0, 1]], atol=1e-12, rtol=0)

    # Every token of the sample is heard, and no other.
    (grad,) = torch.autograd.grad(fused[0].sin().sum(), x, retain_graph=True)
    heard = grad.abs().sum(1) > 0
    assert torch.equal(heard, layout.sample == 0)
    # Every parameter learns; the vector of an absent modality only where a sample with tokens lacks it.
    fused.sin().sum().backward()
    lacking = {n for names in (subset, ("audio",)) if names for n in NAMES if n not in names}
    for key, parameter in fusion.named_parameters():
        used = not key.startswith("absent.") or key.removeprefix("absent.") in lacking
        assert (parameter.grad.abs().sum() > 0) == used, key


@pytest.mark.parametrize("name", FUSIONS)
def test_a_batch_without_any_token_gives_zeros(name):
    x, layout = batch([(), ()])
    assert fusion_of(name)(x, layout).tolist() == [[0.0] * WIDTH] * 2


@pytest.mark.parametrize("name", FUSIONS)
def test_fusions_run_in_bf16(name):
    x, layout = batch([NAMES, ("text",), ("audio", "image")])
    fusion = fusion_of(name)
    exact = fusion(x, layout)
    rounded = fusion.bfloat16()(x.bfloat16(), layout)
    assert rounded.dtype == torch.bfloat16
    # 8 bits of precision through at most four layers of weights near 0.5
    assert (rounded.double() - exact).abs().max() <= 0.1 * exact.abs().max()


def test_mean_and_attention_start_with_the_same_share_for_every_modality():
    """Against a plain loop over samples, modalities and heads."""
    mean, attention = fusion_of("mean"), fusion_of("attention")
    x, layout = batch([NAMES, ("text", "audio"), ("image",), (), ("audio",), NAMES])
    means, fused = mean(x, layout), attention(x, layout)
    assert layout.present().tolist()[3] == [False] * 3
    query = attention.query.detach()  # (Q, H, K)
    for b in range(layout.samples):
        mine = [x[(layout.sample == b) & (layout.modality == m)] for m in range(3)]
        mine = [part for part in mine if len(part)]
        if not mine:
            assert (means[b] == 0).all() and (fused[b] == 0).all()
            continue
        expected = torch.stack([part.mean(0) for part in mine]).mean(0)
        torch.testing.assert_close(means[b], expected, atol=1e-12, rtol=0)

        gathered = []
        for q in range(len(query)):
            heads = []
            for h in range(attention.heads):
                weighted, total = 0.0, 0.0
                for part in mine:
                    key = attention.key(part).unflatten(-1, (attention.heads, -1))[:, h]
                    value = attention.value(part).unflatten(-1, (attention.heads, -1))[:, h]
                    weight = (key @ query[q, h] * key.shape[-1] ** -0.5).exp() / len(part)
                    weighted, total = weighted + weight @ value, total + weight.sum()
                heads.append(weighted / total)
            gathered.append(torch.cat(heads))
        expected = expected + attention.out(torch.cat(gathered))
        torch.testing.assert_close(fused[b], expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["mean", "attention"])
def test_tokens_told_twice_change_nothing(name):
    """A modality's weight does not grow with how finely it is cut."""
    fusion = fusion_of(name)
    x, layout = batch([NAMES, ("text", "image")])
    twice = torch.cat([torch.arange(layout.tokens), torch.where(layout.modality == 1)[0].repeat(9)])
    finer, order = Layout.build(NAMES, layout.modality[twice], layout.sample[twice], samples=2)
    torch.testing.assert_close(fusion(x[twice[order]], finer), fusion(x, layout), atol=1e-12, rtol=0)


def test_late_uses_each_modality_alone_and_weighs_the_present_ones():
    fusion = fusion_of("late")
    assert isinstance(fusion, LateFusion)
    x, layout = batch([NAMES, ("text", "audio"), ()])
    vectors, weights = fusion.per_modality(x, layout), fusion.weights(layout)
    assert vectors.shape == (3, 3, WIDTH)
    for b, m in itertools.product(range(3), range(3)):  # an MLP of the mean token, written out
        mine = x[(layout.sample == b) & (layout.modality == m)]
        if len(mine):
            first, _, last = fusion.head[NAMES[m]]
            inner = first.weight @ mine.mean(0) + first.bias
            inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
            torch.testing.assert_close(vectors[b, m], last.weight @ inner + last.bias, atol=1e-12, rtol=0)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1, 0], dtype=F64))
    assert torch.equal(weights > 0, layout.present())
    assert (vectors[~layout.present()] == 0).all()
    raised = fusion.weight["audio"].data.add_(1.0)
    assert fusion.weights(layout)[0, 2] > weights[0, 2], raised
    torch.testing.assert_close(fusion(x, layout), (fusion.weights(layout)[..., None] * vectors).sum(1))

    x.requires_grad_()
    (grad,) = torch.autograd.grad(fusion.per_modality(x, layout)[:, 1].sum(), x)
    assert torch.equal(grad.abs().sum(1) > 0, layout.modality == 1)


def test_resampling_equals_the_mean_of_linear_interpolation_over_each_tick():
    draw = torch.Generator().manual_seed(5)
    time = torch.cat((torch.rand(2, generator=draw) * 9, torch.zeros(3), torch.rand(40, generator=draw) * 9))
    modality = torch.tensor([0] * 2 + [1] * 3 + [2] * 40)
    layout, order = Layout.build(NAMES, modality, torch.zeros(45, dtype=torch.int64), time=time, samples=1)
    x = torch.randn(45, 1, dtype=F64, generator=draw)[order]
    found = resample(x, layout, 6)[:, 0, :, 0]
    grid = np.linspace(0, float(time.max()), 600_001)
    for m, name in enumerate(NAMES):
        part = layout.slice_of(name)
        seconds, values = layout.time[part].double().numpy(), x[part, 0].numpy()
        if name == "image":
            curve = np.full_like(grid, values.mean())
        else:
            by_time = np.argsort(seconds)
            curve = np.interp(grid, seconds[by_time], values[by_time])
        expected = [curve[i * 100_000 : (i + 1) * 100_000 + 1].mean() for i in range(6)]
        np.testing.assert_allclose(found[m].numpy(), expected, atol=2e-5)


def test_early_does_not_depend_on_how_finely_a_modality_is_cut():
    fusion = fusion_of("early")
    coarse = torch.arange(0, 9, 1.0)  # a straight line, sampled every second and every quarter
    fine = torch.arange(0, 8.25, 0.25)
    direction = torch.randn(WIDTH, dtype=F64, generator=torch.Generator().manual_seed(1))
    fused = []
    for time in (coarse, fine):
        one = torch.full((len(time),), 2)
        layout, _ = Layout.build(NAMES, one, torch.zeros_like(one), time=time, samples=1)
        fused.append(fusion(layout.time.double()[:, None] * direction, layout))
    torch.testing.assert_close(fused[0], fused[1], atol=1e-9, rtol=0)


def test_hierarchical_follows_its_order_and_skips_the_missing():
    torch.manual_seed(0)
    fusion = HierarchicalFusion(WIDTH, NAMES, heads=2, order=("audio", "text", "image")).double()
    assert set(fusion.ask) == {"text", "image"}
    x, layout = batch([NAMES, ("image",), ("text", "image")])

    def changes(name):  # which samples' outputs change when this modality is never asked
        before = fusion(x, layout)
        saved = fusion.ask[name].out.weight.detach().clone()
        fusion.ask[name].out.weight.data.zero_()
        after = fusion(x, layout)
        fusion.ask[name].out.weight.data.copy_(saved)
        return ((before - after).abs().sum(1) > 1e-9).tolist()

    assert changes("text") == [True, False, False]  # the text of the third sample leads: it is not asked
    assert changes("image") == [True, False, True]


def test_hierarchical_asks_one_after_the_other():
    """Against a plain loop over samples and steps."""
    fusion = fusion_of("hierarchical")
    x, layout = batch([NAMES, ("image", "audio"), ("text", "audio"), ("audio",)])
    fused = fusion(x, layout)

    def asking(part, queries, keys):
        q = part.qkv(part.norm(queries)).unflatten(-1, (3, 2, -1))[:, 0]
        k, v = part.qkv(part.norm(keys)).unflatten(-1, (3, 2, -1))[:, 1:].unbind(1)
        weight = (torch.einsum("ihk,jhk->hij", q, k) * k.shape[-1] ** -0.5).softmax(-1)
        return queries + part.out(torch.einsum("hij,jhk->ihk", weight, v).flatten(1))

    for b in range(layout.samples):
        mine = [x[(layout.sample == b) & (layout.modality == m)] for m in range(3)]
        leader = next(m for m in range(3) if len(mine[m]))
        state = mine[leader]
        for m in range(leader + 1, 3):
            if len(mine[m]):
                state = asking(fusion.ask[NAMES[m]], state, mine[m])
        state = asking(fusion.reflect, state, state)
        torch.testing.assert_close(fused[b], state.mean(0), atol=1e-12, rtol=0)


def test_names_modules_and_wrong_use():
    own = torch.nn.Identity()
    assert make_fusion(own, WIDTH, NAMES) is own
    with pytest.raises(ConfigError, match="there is no 'middle'"):
        make_fusion("middle", WIDTH, NAMES)
    with pytest.raises(ConfigError, match="each of"):
        make_fusion("hierarchical", WIDTH, NAMES, order=("text", "image"))
    with pytest.raises(ConfigError, match="heads"):
        make_fusion("attention", WIDTH, NAMES, heads=3)
    with pytest.raises(ConfigError, match="ticks"):
        make_fusion("early", WIDTH, NAMES, ticks=0)
    with pytest.raises(ConfigError, match="queries"):
        make_fusion("attention", WIDTH, NAMES, queries=0)
