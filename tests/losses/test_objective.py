import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from motet.errors import ConfigError
from motet.losses import (
    LossConfig,
    Objective,
    balanced_class_weights,
    classification_loss,
    contrastive_loss,
    regression_loss,
    sigmoid_loss,
)
from motet.model import MotetConfig, TaskSpec
from motet.types import Layout, ModalitySpec, Output, TokenBatch


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1
    )


def naive_infonce(a: Tensor, b: Tensor, temperature: float, group: list[int], both: list[bool]) -> float:
    rows = [i for i in range(len(a)) if both[i]]
    if len(rows) < 2:
        return 0.0
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in rows:
            scores = {j: float(x[i] @ y[j]) / temperature for j in rows}
            log_all = math.log(sum(math.exp(s) for s in scores.values()))
            positives = [j for j in rows if j == i or (group[i] >= 0 and group[i] == group[j])]
            total -= sum(scores[j] - log_all for j in positives) / len(positives)
    return total / (2 * len(rows))


def naive_sigmoid(
    a: Tensor, b: Tensor, temperature: float, *, bias: float, group: list[int], both: list[bool]
) -> float:
    rows = [i for i in range(len(a)) if both[i]]
    if len(rows) < 2:
        return 0.0
    total = 0.0
    for i, j in itertools.product(rows, rows):
        z = 1 if i == j or (group[i] >= 0 and group[i] == group[j]) else -1
        total += math.log1p(math.exp(-z * (float(a[i] @ b[j]) / temperature + bias)))
    return total / len(rows)


ragged = st.lists(st.tuples(st.integers(-1, 3), st.booleans()), min_size=1, max_size=9)


@settings(max_examples=60, deadline=None)
@given(rows=ragged, seed=st.integers(0, 99), temperature=st.floats(0.05, 1.0))
def test_contrastive_losses_equal_naive_loops(
    rows: list[tuple[int, bool]], seed: int, temperature: float
) -> None:
    group, both = [g for g, _ in rows], [p for _, p in rows]
    a, b = unit(len(rows), 5, seed=seed), unit(len(rows), 5, seed=seed + 1000)
    masks = {"group": torch.tensor(group), "both": torch.tensor(both)}
    assert float(contrastive_loss(a, b, temperature, **masks)) == pytest.approx(
        naive_infonce(a, b, temperature, group, both), abs=1e-10
    )
    assert float(sigmoid_loss(a, b, temperature, -3.0, **masks)) == pytest.approx(
        naive_sigmoid(a, b, temperature, bias=-3.0, group=group, both=both), abs=1e-10
    )


def test_with_unique_rows_infonce_is_the_usual_cross_entropy() -> None:
    a, b = unit(8, 4), unit(8, 4, seed=1)
    scores, target = a @ b.T / 0.1, torch.arange(8)
    usual = (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2
    assert float(contrastive_loss(a, b, 0.1)) == pytest.approx(float(usual), abs=1e-12)


@pytest.mark.parametrize("both", [[False] * 4, [True, False, False, False]])
@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
def test_fewer_than_two_pairs_give_zero_and_no_nan_gradient(both: list[bool], loss: str) -> None:
    a, b = torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    heat = torch.tensor(0.07, requires_grad=True)
    mask = torch.tensor(both)
    if loss == "infonce":
        value = contrastive_loss(a, b, heat, both=mask)
    else:
        value = sigmoid_loss(a, b, heat, -10.0, both=mask)
    value.backward()
    assert float(value.detach()) == 0.0
    assert all(bool((t.grad == 0).all()) for t in (a, b, heat))


def test_rows_without_both_get_no_gradient_and_change_nothing() -> None:
    a, b = unit(5, 4).requires_grad_(), unit(5, 4, seed=1).requires_grad_()
    mask = torch.tensor([True, True, False, True, False])
    value = contrastive_loss(a, b, 0.1, both=mask)
    value.backward()
    assert a.grad is not None
    assert bool((a.grad[~mask] == 0).all()) and bool((a.grad[mask] != 0).any())
    assert float(value.detach()) == pytest.approx(
        float(contrastive_loss(a[mask], b[mask], 0.1).detach()), abs=1e-12
    )


def test_a_batch_of_one_group_has_a_finite_loss() -> None:
    a, b = unit(6, 4), unit(6, 4, seed=1)
    value = contrastive_loss(a, b, 0.01, group=torch.zeros(6, dtype=torch.long))
    assert math.isfinite(float(value)) and float(value) >= math.log(6) - 1e-9


def test_computed_in_fp32_under_autocast() -> None:
    a, b = unit(16, 8, dtype=torch.float32), unit(16, 8, seed=1, dtype=torch.float32)
    plain = contrastive_loss(a, b, 0.05)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = contrastive_loss(a, b, 0.05)
        assert mixed.dtype == torch.float32 and float(mixed) == float(plain)
        assert classification_loss(a.bfloat16(), torch.arange(16) % 8).dtype == torch.float32


def naive_classification(
    logits: Tensor, target: list[int], weights: list[float] | None, smoothing: float
) -> float:
    classes = logits.shape[1]
    weights = weights or [1.0] * classes
    total = share = 0.0
    for row, y in zip(logits.tolist(), target, strict=True):
        if y == -100:
            continue
        log_all = math.log(sum(math.exp(v) for v in row))
        nll = [log_all - v for v in row]
        smooth = sum(w * v for w, v in zip(weights, nll, strict=True)) / classes
        total += (1 - smoothing) * weights[y] * nll[y] + smoothing * smooth
        share += weights[y]
    return total / share if share else 0.0


@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 1.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("target", [[0, 1, 2, 1], [-100, 2, -100, 0], [-100] * 4])
def test_classification_equals_a_naive_loop(
    weights: list[float] | None, smoothing: float, target: list[int]
) -> None:
    logits = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    value = classification_loss(
        logits,
        torch.tensor(target),
        class_weights=None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
    )
    value.backward()
    expected = naive_classification(logits.detach(), target, weights, smoothing)
    assert float(value.detach()) == pytest.approx(expected, abs=1e-12)
    assert logits.grad is not None and bool(logits.grad.isfinite().all())


def test_classification_equals_torch_where_something_is_known() -> None:
    logits, target, weights = (
        torch.randn(5, 3),
        torch.tensor([0, -100, 2, 1, 1]),
        torch.tensor([1.0, 2.0, 0.3]),
    )
    ours = classification_loss(logits, target, class_weights=weights, label_smoothing=0.1)
    theirs = F.cross_entropy(logits, target, weight=weights, label_smoothing=0.1)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-6)


@pytest.mark.parametrize("kind", ["mse", "l1", "huber"])
@pytest.mark.parametrize("known", [[True] * 4, [True, False, False, True], [False] * 4])
def test_regression_equals_a_naive_loop(kind: str, known: list[bool]) -> None:
    prediction = torch.tensor([0.0, 1.0, 5.0, -4.0], dtype=torch.float64, requires_grad=True)
    target = [0.3, 2.0, -1.0, 3.0]
    value = regression_loss(
        prediction,
        torch.tensor([t if k else math.nan for t, k in zip(target, known, strict=True)]).double(),
        kind=kind,  # type: ignore[arg-type]
        delta=0.7,
    )
    value.backward()
    rows = []
    for p, t, k in zip(prediction.tolist(), target, known, strict=True):
        error = abs(p - t)
        huber = 0.5 * error**2 if error < 0.7 else 0.7 * (error - 0.35)
        rows += [{"mse": error**2, "l1": error, "huber": huber}[kind]] if k else []
    assert float(value.detach()) == pytest.approx(sum(rows) / max(len(rows), 1), abs=1e-6)
    assert prediction.grad is not None
    assert ((prediction.grad != 0).tolist()) == known


def test_balanced_weights_have_mean_one_over_the_rows() -> None:
    counts = [6, 3, 0, 1]
    weights = balanced_class_weights(counts)
    assert sum(c * w for c, w in zip(counts, weights, strict=True)) == pytest.approx(sum(counts))
    assert weights[0] * 6 == pytest.approx(weights[3] * 1) and weights[2] == 0


CONFIG = MotetConfig(
    modalities=tuple(ModalitySpec(m, "features", "vectors", 3) for m in ("a", "b", "c")),
    tasks=(TaskSpec("mood", "classes", ("bad", "good")), TaskSpec("price", "number", mean=50.0, std=10.0)),
    late_heads=True,
)


def case(present: list[list[bool]]) -> tuple[Output, TokenBatch]:
    samples = len(present)
    where = torch.tensor(present)
    leaf = [unit(samples, 4, seed=i).requires_grad_() for i in range(3)]
    embeddings = {m: leaf[i] * where[:, i, None] for i, m in enumerate("abc")}
    rng = torch.Generator().manual_seed(7)
    predictions = {
        "mood": torch.randn(samples, 2, generator=rng, dtype=torch.float64),
        "price": torch.full((samples,), 60.0),
    }
    layout, _ = Layout.build("abc", where.nonzero()[:, 1], where.nonzero()[:, 0], samples=samples)
    output = Output(
        tokens=torch.zeros(layout.tokens, 4),
        fused=torch.zeros(samples, 4),
        present=where,
        embeddings=embeddings,
        predictions=predictions,
        modality_predictions={m: predictions for m in "abc"},
    )
    batch = TokenBatch(
        layout=layout,
        values={},
        targets={"mood": torch.arange(samples) % 2, "price": torch.full((samples,), 80.0)},
        group=torch.arange(samples),
        ids=tuple(map(str, range(samples))),
    )
    return output, batch


def test_the_total_is_the_weighted_sum_of_named_parts() -> None:
    config = LossConfig(weights={"contrastive": 2.0, "mood": 0.25, "late": 3.0}, temperature=0.1)
    output, batch = case([[True, True, False], [True, True, True], [True, False, True], [False, True, True]])
    objective = Objective(config, CONFIG)
    total, parts = objective(output, batch)
    naive = {}
    for (i, x), (j, y) in itertools.combinations(enumerate("abc"), 2):
        both = (output.present[:, i] & output.present[:, j]).tolist()
        naive[f"contrastive/{x}-{y}"] = naive_infonce(
            output.embeddings[x].detach(), output.embeddings[y].detach(), 0.1, [0, 1, 2, 3], both
        )
    for name, value in naive.items():
        assert float(parts[name]) == pytest.approx(value, abs=1e-6)
    assert float(parts["contrastive"]) == pytest.approx(sum(naive.values()) / 3, abs=1e-6)
    assert float(parts["price"]) == pytest.approx(1.5)  # Huber at an error of two standard deviations
    late = [value for name, value in parts.items() if name.startswith("late/")]
    assert len(late) == 6
    expected = 2 * parts["contrastive"] + 0.25 * parts["mood"] + parts["price"] + 3 * sum(late) / 6
    assert float(total.detach()) == pytest.approx(float(expected), abs=1e-5)


def test_pairs_of_modalities_without_two_rows_do_not_dilute_the_others() -> None:
    output, batch = case([[True, True, False]] * 3 + [[False, False, True]])
    _, parts = Objective(LossConfig(), replace(CONFIG, late_heads=False))(output, batch)
    assert float(parts["contrastive/a-c"]) == float(parts["contrastive/b-c"]) == 0.0
    assert (
        float(parts["contrastive"]) == pytest.approx(float(parts["contrastive/a-b"]))
        and parts["contrastive"] > 0
    )


@pytest.mark.parametrize("contrastive", ["infonce", "sigmoid"])
def test_one_modality_alone_gives_a_finite_loss_without_contrast(contrastive: str) -> None:
    output, batch = case([[True, False, False]] * 3)
    objective = Objective(LossConfig(contrastive=contrastive), CONFIG)  # type: ignore[arg-type]
    total, parts = objective(output, batch)
    total.backward()
    assert float(parts["contrastive"]) == 0.0 and bool(total.isfinite())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in objective.parameters())
    assert float(parts["late/b/mood"]) == 0.0 and float(parts["late/a/mood"]) > 0


def test_a_target_that_the_batch_does_not_have_is_no_part() -> None:
    output, batch = case([[True, True, True]] * 3)
    _, parts = Objective(LossConfig(), CONFIG)(output, replace(batch, targets={}))
    assert "mood" not in parts and "price" not in parts and "contrastive" in parts


def test_the_temperature_learns_within_its_bounds() -> None:
    output, batch = case([[True, True, True]] * 4)
    objective = Objective(LossConfig(temperature=0.01), CONFIG)
    with torch.no_grad():
        objective.log_temperature.sub_(1.0)
    total, _ = objective(output, batch)
    total.backward()
    assert objective.temperature.tolist() == pytest.approx([0.01] * 3)
    assert objective.log_temperature.grad is not None and bool((objective.log_temperature.grad != 0).all())
    assert not Objective(LossConfig(learn_temperature=False), CONFIG).log_temperature.requires_grad


def test_wrong_options_are_named() -> None:
    for config, words in (
        (LossConfig(weights={"moood": 1.0}), "moood"),
        (LossConfig(class_weights={"mood": (1.0,)}), "mood"),
        (LossConfig(class_weights={"price": (1.0,)}), "price"),
        (LossConfig(temperature=0.0), "temperature"),
    ):
        with pytest.raises(ConfigError, match=words):
            Objective(config, CONFIG)
