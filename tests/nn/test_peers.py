"""TFN, LMF and MulT against their papers' equations, computed sample by sample in fp64."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from motet.errors import ConfigError
from motet.model import Motet, TaskSpec
from motet.nn.fusion import FUSIONS
from motet.nn.peers import CrossModalFusion, LowRankFusion, TensorFusion
from motet.nn.positions import sinusoidal
from motet.train.settings import ModelSettings
from motet.types import ModalitySpec
from tests.nn.test_fusion import NAMES, WIDTH, batch

MIX = [NAMES, ("text", "audio"), ("image",), ()]


def made(cls, **options):
    torch.manual_seed(1)
    fusion = cls(WIDTH, NAMES, **options).double()
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return fusion


def vectors_of(fusion, x, layout, b):
    """Each modality's vector with its 1, by the definition."""
    found = []
    for m, name in enumerate(NAMES):
        mine = x[(layout.sample == b) & (layout.modality == m)]
        linear = fusion.project[name]
        z = F.gelu(linear.weight @ mine.mean(0) + linear.bias) if len(mine) else torch.zeros_like(linear.bias)
        found.append(torch.cat([z, z.new_ones(1)]))
    return found


def test_tensor_fusion_is_the_outer_product_with_ones():
    fusion = made(TensorFusion, inner=3)
    x, layout = batch(MIX)
    fused = fusion(x, layout)
    for b in range(3):
        text, image, audio = vectors_of(fusion, x, layout, b)
        expected = torch.zeros(WIDTH, dtype=x.dtype)
        for cell, (i, j, k) in enumerate(itertools.product(range(4), repeat=3)):
            expected += fusion.out.weight[:, cell] * text[i] * image[j] * audio[k]
        torch.testing.assert_close(fused[b], expected, atol=1e-12, rtol=0)
    assert (fused[3] == 0).all()


def test_low_rank_fusion_is_tensor_fusion_with_a_low_rank_weight():
    low, full = made(LowRankFusion, rank=3, inner=3), made(TensorFusion, inner=3)
    full.project = low.project
    factors = [low.factor[name] for name in NAMES]  # (R, 4, D) each
    weight = torch.einsum("rid,rjd,rkd->dijk", *factors).flatten(1)
    full.out.weight.data.copy_(weight)
    x, layout = batch(MIX)
    torch.testing.assert_close(low(x, layout), full(x, layout), atol=1e-12, rtol=0)


def naive_attention(q, k, v, heads):
    q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
    share = (torch.einsum("ihk,jhk->hij", q, k) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("hij,jhk->ihk", share, v).flatten(1)


def test_mult_is_its_equations_sample_by_sample():
    fusion = made(CrossModalFusion, heads=2, inner=4, layers=2)
    x, layout = batch(MIX)
    fused = fusion(x, layout)
    for b in range(3):
        own = {m: (layout.sample == b) & (layout.modality == i) for i, m in enumerate(NAMES)}
        low = {m: fusion.project[m](x[t]) + sinusoidal(layout.time[t] / 0.1, 4) for m, t in own.items()}
        pooled = []
        for target in NAMES:
            heard = []
            for source in (s for s in NAMES if s != target):
                state = low[target]
                for layer in fusion.cross[f"{source}_to_{target}"]:
                    state = layer.norm_in(state)
                    if len(low[source]) and len(state):
                        k, v = layer.ask.tell(layer.norm_low(low[source])).chunk(2, -1)
                        state = state + layer.ask.out(naive_attention(layer.ask.ask(state), k, v, 2))
                    state = layer.norm_mlp(state)
                    state = state + layer.mlp(state)
                heard.append(state)
            state, part = torch.cat(heard, 1), fusion.memory[target]
            if len(state):
                q, k, v = fusion.ask[target](state).chunk(3, -1)
                state = state + part.out(naive_attention(q, k, v, 2))
                pooled.append((state + part.mlp(part.norm_mlp(state))).mean(0))
            else:
                pooled.append(torch.zeros(8, dtype=x.dtype))
        # The clock is fp32, so its sines agree to 1e-7 only.
        torch.testing.assert_close(fused[b], fusion.out(torch.cat(pooled)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("cls", [TensorFusion, LowRankFusion, CrossModalFusion])
def test_one_modality_alone_is_enough(cls):
    fusion = cls(WIDTH, ("text",))
    x, layout = batch([("text",), ("text",)])
    layout = type(layout).build(("text",), layout.modality, layout.sample, samples=2)[0]
    assert fusion(x.float(), layout).shape == (2, WIDTH)


def test_models_are_within_2_percent_of_the_default_s_size():
    """With three modalities and what `fit` builds for a label; less where their features are larger. The
    mean has no weights to give."""
    counts = {}
    for name in FUSIONS:
        specs = tuple(ModalitySpec(m, "features", "vectors", 300) for m in NAMES)
        settings = ModelSettings(fusion=name)
        config = settings.build(specs, (TaskSpec("y", "number"),), contrastive=False)
        counts[name] = sum(p.numel() for p in Motet(config).parameters())
    default = counts[ModelSettings().fusion]
    assert 0.92 <= counts.pop("mean") / default <= 1
    assert all(abs(count / default - 1) <= 0.02 for count in counts.values()), counts


def test_wrong_use():
    with pytest.raises(ConfigError, match="lowrank"):
        TensorFusion(WIDTH, [f"m{i}" for i in range(11)])
    with pytest.raises(ConfigError, match="rank"):
        LowRankFusion(WIDTH, NAMES, rank=0)
    with pytest.raises(ConfigError, match="multiple"):
        CrossModalFusion(WIDTH, NAMES, heads=4, inner=6)
