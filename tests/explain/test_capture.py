import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.explain import capture as capture_module
from motet.explain.capture import capture
from motet.explain.faithfulness import deletion_test, shortened
from motet.explain.rollout import gradient_rollout, integrated_gradients, rollout
from motet.explain.views import head_statistics, modality_matrix, temporal, token_attention
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.types import Layout, ModalitySpec, Output, TokenBatch

SPECS = (
    ModalitySpec("text", "text", "ids", 30),
    ModalitySpec("picture", "image", "vectors", 6),
    ModalitySpec("speech", "audio", "vectors", 5),
)
COUNTS = ({"text": 3, "picture": 6, "speech": 4}, {"text": 2, "speech": 5}, {"picture": 6})


def make_model(*attend: str, kv_heads: int = 2) -> Motet:
    torch.manual_seed(0)
    block = BlockConfig(width=32, heads=4, kv_heads=kv_heads)
    stack = MoTConfig(block=block, depth=3, attend=attend or ("own", "global"))
    tasks = (TaskSpec("mood", "classes", ("bad", "so", "good")),)
    return Motet(MotetConfig(modalities=SPECS, mot=stack, tasks=tasks, embedding=8)).eval()


def make_batch(counts: tuple[dict[str, int], ...] = COUNTS, seed: int = 1) -> TokenBatch:
    rng = torch.Generator().manual_seed(seed)
    rows = [
        (m, b, 0.1 * i if spec.kind != "image" else 0.0, i // 3, i % 3)
        for b, sample in enumerate(counts)
        for m, spec in enumerate(SPECS)
        for i in range(sample.get(spec.name, 0))
    ]
    modality, sample, time, row, col = (torch.tensor(column) for column in zip(*rows, strict=True))
    is_picture = modality == 1
    layout, _ = Layout.build(
        [spec.name for spec in SPECS], modality, sample,
        time=time, row=row * is_picture, col=col * is_picture, samples=len(counts),
    )  # fmt: skip
    values = {
        spec.name: torch.randint(spec.size, (n,), generator=rng)
        if spec.input == "ids"
        else torch.randn(n, spec.size, generator=rng)
        for spec, n in zip(SPECS, layout.counts, strict=True)
    }
    labels = {"text": tuple(f"w{i}" for i in range(layout.counts[0]))}
    ids = tuple(map(str, range(len(counts))))
    return TokenBatch(layout, values, {}, torch.arange(len(counts)), ids, labels)


def good(output: Output) -> Tensor:
    return output.predictions["mood"].softmax(-1)[:, 2]


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("attend", [("own", "global"), ("global",)])
def test_weights_are_those_the_model_used(attend: tuple[str, ...], kv_heads: int) -> None:
    model, batch = make_model(*attend, kv_heads=kv_heads), make_batch()
    used: list[tuple[Tensor, Tensor]] = []
    for block in model.mot.blocks:
        block.attend.register_forward_hook(lambda _, args, out: used.append((args[2], out)))
    captured = capture(model, batch)
    everyone = torch.arange(batch.layout.tokens)
    for layer, (v, heard) in enumerate(used[-3:]):  # the last pass is the one that answers
        weights = captured.weights(layer, everyone)
        again = torch.einsum("rht,thk->rhk", weights, v.repeat_interleave(4 // kv_heads, 1))
        assert weights.shape == (len(everyone), 4, len(everyone))
        torch.testing.assert_close(again, heard, atol=1e-5, rtol=0)
        torch.testing.assert_close(weights.sum(-1), torch.ones(len(everyone), 4))
        assert not weights[(~captured.mask(layer, everyone))[:, None].expand_as(weights)].any()


def test_the_pass_that_answers_is_kept_not_the_one_for_embeddings() -> None:
    assert capture(make_model("global"), make_batch()).mixing_layers == (0, 1, 2)
    assert capture(make_model("own", "own", "global"), make_batch()).mixing_layers == (2,)


def test_pieces_hold_the_same_weights_and_never_more_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    captured = capture(make_model(), make_batch())
    rows = torch.arange(captured.layout.tokens)
    monkeypatch.setattr(capture_module, "PIECE", 300)
    parts = [weights for _, weights in captured.pieces(2, rows)]
    assert len(parts) > 3 and all(part.numel() <= 300 for part in parts)
    torch.testing.assert_close(torch.cat(parts), captured.weights(2, rows))


def test_capture_leaves_the_model_as_it_was() -> None:
    model = make_model().train()
    capture(model, make_batch(), good)
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert not any(block.attend._forward_hooks for block in model.mot.blocks)


def test_a_model_without_blocks_and_an_empty_input_are_refused() -> None:
    with pytest.raises(ConfigError, match="no attention blocks"):
        capture(nn.Linear(2, 2), make_batch())
    empty = shortened(make_batch(), [0], torch.zeros(1, 1, dtype=torch.bool))
    with pytest.raises(ConfigError, match="no tokens"):
        capture(make_model(), empty)


def test_modality_matrix_rows_add_up_and_correct_for_numbers_of_tokens() -> None:
    captured = capture(make_model("own", "global"), make_batch())
    matrix = modality_matrix(captured, sample=0)
    assert matrix.modalities == ("text", "picture", "speech")
    assert matrix.tokens.tolist() == [3, 6, 4]
    for shares in (matrix.raw, matrix.corrected, matrix.whole_raw, matrix.whole_corrected):
        assert shares.sum(-1) == pytest.approx(1.0)
    assert matrix.mixing == (1, 2)
    assert matrix.raw[0, :, 0, 1] == pytest.approx(0.0)  # an own layer hears nobody else
    ratio = matrix.raw[1] / (matrix.tokens / matrix.tokens.sum())
    assert matrix.corrected[1] == pytest.approx(ratio / ratio.sum(-1, keepdims=True))
    assert modality_matrix(captured, sample=2).modalities == ("picture",)


def test_even_attention_is_corrected_to_even_shares() -> None:
    model = make_model("global")
    for block in model.mot.blocks:
        for weight in block.qkv.weight.values():
            weight.data[:48] = 0  # no queries, no keys: every key alike
    matrix = modality_matrix(capture(model, make_batch()), sample=0)
    assert matrix.whole_raw[0] == pytest.approx([3 / 13, 6 / 13, 4 / 13], abs=1e-6)
    assert matrix.whole_corrected[0] == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert head_statistics(capture(model, make_batch())).entropy == pytest.approx(1.0, abs=1e-5)


def test_token_attention_against_the_dense_weights() -> None:
    batch = make_batch()
    captured = capture(make_model("own", "global"), batch)
    view = token_attention(captured, "text", "picture", sample=0)
    text, picture = torch.arange(3), batch.layout.slice_of("picture")
    dense = sum(captured.weights(layer, text).double().mean(1)[:, picture][:, :6] for layer in (1, 2)) / 2
    assert view.layers == (1, 2)
    assert view.share == pytest.approx(dense.sum(1).numpy())
    assert view.weights == pytest.approx((dense / dense.sum(1, keepdim=True)).numpy())
    assert view.query_labels == ("w0", "w1", "w2")
    assert view.grid().shape == (3, 2, 3)
    assert view.grid()[1, 1, 2] == pytest.approx(view.weights[1, 5])
    assert view.to_dict()["weights"][0] == pytest.approx(view.weights[0].tolist())


def test_views_of_what_is_not_there_are_refused() -> None:
    captured = capture(make_model("own"), make_batch())
    with pytest.raises(ConfigError, match="meet in no layer"):
        token_attention(captured, "text", "picture")
    with pytest.raises(ConfigError, match="no tokens of modality 'text'"):
        token_attention(captured, "text", "picture", sample=2)
    with pytest.raises(ConfigError, match="no modality 'smell'"):
        token_attention(captured, "text", "smell")


def test_temporal_rows_add_up_and_heads_are_described() -> None:
    captured = capture(make_model(), make_batch())
    seconds = temporal(captured, "speech", "speech", bins=4)
    assert seconds.weights.shape == (4, 4)
    assert seconds.weights.sum(1) == pytest.approx(1.0)
    heads = head_statistics(captured, sample=0)
    assert heads.own[0] == pytest.approx(1.0)
    assert (heads.cross[1:] > 0).all() and (heads.entropy <= 1 + 1e-6).all() and (heads.distance >= 0).all()


def test_few_words_leave_no_gaps_against_many_seconds() -> None:
    """Each bin is the mean of the tokens that sound in it, by how long they do."""
    captured = capture(make_model(), make_batch())
    view = temporal(captured, "text", "speech", bins=12)  # words at 0, 0.1, 0.2 s; windows at 0, ..., 0.3 s
    assert view.weights.sum(1) == pytest.approx(1.0) and (view.weights > 0).all()
    assert view.query_edges[-1] == pytest.approx(0.3) and view.key_edges[-1] == pytest.approx(0.4)
    tokens = token_attention(captured, "text", "speech", layers=view.layers)
    coarse = view.weights.reshape(3, 4, 4, 3).sum(-1)
    assert coarse == pytest.approx(np.repeat(tokens.weights[:, None], 4, axis=1), abs=1e-6)


def test_rollout_is_the_product_of_half_attentions() -> None:
    captured = capture(make_model(), make_batch())
    tokens = captured.tokens_of(0)
    expected = torch.full((13,), 1 / 13, dtype=torch.float64)
    for layer in (2, 1, 0):
        attention = captured.weights(layer, tokens)[:, :, tokens].double().mean(1)
        expected = expected @ (0.5 * attention + 0.5 * torch.eye(13, dtype=torch.float64))
    found = rollout(captured, sample=0)
    assert found.value == pytest.approx(expected.numpy(), abs=1e-6)
    assert sum(found.by_modality().values()) == pytest.approx(1.0)
    assert len(found.of("picture")) == 6


def test_gradient_rollout_uses_the_gradient_of_the_weights() -> None:
    """The gradient that it takes for the last layer's weights equals a finite difference of the score."""
    model, batch = make_model("global", kv_heads=4).double(), make_batch(COUNTS[:1])
    batch = TokenBatch(
        batch.layout, {k: v.double() if v.is_floating_point() else v for k, v in batch.values.items()},
        {}, batch.group, batch.ids,
    )  # fmt: skip
    captured = capture(model, batch, good)
    layer = captured.layers[-1]
    assert layer.gradient is not None and layer.v is not None
    step, query, key, head = 1e-6, 2, 7, 1

    def nudge(module: nn.Module, args: tuple[Tensor, ...], heard: Tensor) -> Tensor:
        changed = heard.clone()
        changed[query, head] += step * args[2][key, head]
        return changed

    handle = model.mot.blocks[-1].attend.register_forward_hook(nudge)
    nudged = float(good(model(batch))[0].detach())
    handle.remove()
    expected = (nudged - float(good(captured.output)[0])) / step
    assert float(layer.gradient[query, head] @ layer.v[key, head]) == pytest.approx(
        expected, rel=1e-3, abs=1e-9
    )
    found = gradient_rollout(captured)
    assert found.value.sum() == pytest.approx(1.0) and (found.value >= 0).all()
    with pytest.raises(ConfigError, match="score"):
        gradient_rollout(capture(model, batch))


def test_gradients_reach_a_model_whose_every_weight_is_frozen() -> None:
    captured = capture(make_model().requires_grad_(False), make_batch(), good)
    assert all(layer.gradient is not None and layer.gradient.any() for layer in captured.layers[:-1])


def test_integrated_gradients_add_up_to_what_the_input_changed() -> None:
    model, batch = make_model("global"), make_batch(COUNTS[:1])
    captured = capture(model, batch)
    found = integrated_gradients(model, batch, captured, good, steps=64)

    def blank(module: nn.Module, args: tuple) -> tuple:
        means = [part.mean(0, keepdim=True).expand_as(part) for part in args[0].split([3, 6, 4])]
        return (torch.cat(means), *args[1:])

    handle = model.mot.register_forward_pre_hook(blank)
    with torch.no_grad():
        change = float(good(captured.output)[0] - good(model(batch))[0])
    handle.remove()
    assert abs(change) > 1e-3
    assert found.signed.sum() == pytest.approx(change, rel=0.02)
    assert found.value.sum() == pytest.approx(1.0)


def test_shortened_copies_answer_as_if_the_tokens_had_never_been() -> None:
    model, batch = make_model(), make_batch()
    tokens = capture(model, batch).tokens_of(0)
    keep = torch.ones(2, len(tokens), dtype=torch.bool)
    keep[1, 3:9] = False  # without the picture
    copies = shortened(batch, tokens.numpy(), keep)
    assert copies.layout.counts == (6, 6, 8)
    with torch.no_grad():
        whole, cut = model(batch).predictions["mood"][0], model(copies).predictions["mood"]
    torch.testing.assert_close(cut[0], whole)
    assert copies.layout.present()[1].tolist() == [True, False, True]
    assert not torch.allclose(cut[1], whole)


def test_deletion_in_the_true_order_beats_random_and_reversed() -> None:
    model, batch = make_model(), make_batch()
    captured = capture(model, batch)
    found = rollout(captured, sample=0)

    def score(output: Output) -> Tensor:
        """1 as long as anything of the picture is left."""
        return output.present[:, 1].double()

    planted = np.array([float(name == "picture") for name in found.modality])
    right = dataclasses.replace(found, signed=planted)
    wrong = dataclasses.replace(found, signed=1 - planted)
    good_test = deletion_test(model, batch, right, score, orders=8)
    bad_test = deletion_test(model, batch, wrong, score, orders=8)
    assert good_test.area > 0.1 > -0.05 > bad_test.area
    assert good_test.verdict == "faithful" and bad_test.verdict != "faithful"
    assert good_test.insertion > 0 > bad_test.insertion
    assert good_test.low <= good_test.area <= good_test.high
    assert good_test.removed[0] == 0 and good_test.score[0] == 1
    assert math.isclose(good_test.removed[-1], 12 / 13)
