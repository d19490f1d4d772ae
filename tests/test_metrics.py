"""Metrics against naive loops, exhaustive enumeration and, where installed, scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet import metrics
from motet.errors import ConfigError


def naive_retrieval(scores: np.ndarray, match: np.ndarray) -> tuple[list[int], list[float]]:
    ranks, precisions = [], []
    for row, right in zip(scores, match, strict=True):
        if not right.any():
            continue
        order = sorted(range(len(row)), key=lambda j: (-row[j], right[j]))
        places = [p + 1 for p, j in enumerate(order) if right[j]]
        ranks.append(places[0])
        precisions.append(sum((i + 1) / p for i, p in enumerate(places)) / len(places))
    return ranks, precisions


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 15), st.booleans())
def test_retrieval_equals_naive_loop(seed: int, n: int, m: int, ties: bool) -> None:
    draw = np.random.default_rng(seed)
    query, gallery = draw.normal(size=(n, 3)), draw.normal(size=(m, 3))
    if ties:
        query, gallery = query.round(), gallery.round()
    match = draw.random((n, m)) < 0.3
    got = metrics.retrieval_metrics(query, gallery, match)
    ranks, precisions = naive_retrieval(query @ gallery.T, match)
    assert got["n"] == len(ranks)
    if ranks:
        for k in (1, 5, 10):
            assert got[f"R@{k}"] == pytest.approx(np.mean([r <= k for r in ranks]))
        assert got["median_rank"] == np.median(ranks)
        assert got["mAP"] == pytest.approx(np.mean(precisions))


@pytest.mark.parametrize("positives", [1, 2, 5])
def test_chance_is_the_mean_over_all_rankings(positives: int) -> None:
    gallery = 7
    ranks, precisions = [], []
    for order in itertools.permutations(range(gallery)):
        places = [p + 1 for p, j in enumerate(order) if j < positives]
        ranks.append(places[0])
        precisions.append(np.mean([(i + 1) / p for i, p in enumerate(places)]))
    chance = metrics.chance_retrieval(np.array([positives, positives]), gallery)
    assert chance["chance_R@1"] == pytest.approx(np.mean([r <= 1 for r in ranks]))
    assert chance["chance_R@5"] == pytest.approx(np.mean([r <= 5 for r in ranks]))
    assert chance["chance_R@10"] == 1.0
    assert chance["chance_mAP"] == pytest.approx(np.mean(precisions))
    assert np.mean(np.array(ranks) <= chance["chance_median_rank"]) >= 0.5
    assert np.mean(np.array(ranks) <= chance["chance_median_rank"] - 1) < 0.5


def test_collapsed_embedding_scores_nothing() -> None:
    same = np.ones((20, 4))
    got = metrics.retrieval_metrics(same, same, np.eye(20, dtype=bool))
    assert got["R@10"] == 0.0
    assert got["median_rank"] == 20


def test_match_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ConfigError, match="queries x gallery"):
        metrics.retrieval_metrics(np.ones((2, 3)), np.ones((4, 3)), np.ones((4, 2), dtype=bool))


@pytest.mark.parametrize("seed", range(5))
def test_classification_equals_scikit_learn(seed: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(seed)
    scores = draw.dirichlet(np.ones(4), size=60)
    labels = draw.integers(0, 4 if seed else 3, 60)
    got = metrics.classification_metrics(scores, labels, "abcd")
    predicted = scores.argmax(1)
    assert got["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert got["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert got["weighted_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="weighted"))
    assert got["confusion"] == sk.confusion_matrix(labels, predicted, labels=range(4)).tolist()
    areas = [sk.roc_auc_score(labels == c, scores[:, c]) for c in np.unique(labels)]
    assert got["auroc"] == pytest.approx(np.mean(areas))


def test_auroc_counts_equal_scores_as_half() -> None:
    scores = np.array([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1], [0.2, 0.8]])
    pairs = [(1.0 if a > b else 0.5 if a == b else 0.0) for a in (0.5, 0.8) for b in (0.5, 0.1)]
    assert metrics.auroc(scores, np.array([1, 0, 0, 1])) == pytest.approx(np.mean(pairs))


def test_majority_row() -> None:
    got = metrics.majority_metrics(np.array([2, 2, 2, 0]), ["a", "b", "c"])
    assert got["label"] == "c"
    assert got["accuracy"] == 0.75
    assert got["macro_f1"] == pytest.approx((2 * 0.75 / 1.75 + 0) / 2)


def test_calibration_error_by_hand() -> None:
    scores = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65]])
    # bins: two rows at .95 with accuracy .5, one at .65 with accuracy 1
    assert metrics.calibration_error(scores, np.array([0, 1, 1])) == pytest.approx((2 * 0.45 + 0.35) / 3)


def test_regression_by_hand() -> None:
    labels = np.array([-3.0, -0.4, 0.0, 1.6, 2.9])
    predicted = np.array([-2.6, 0.2, -0.1, 1.4, 9.0])
    got = metrics.regression_metrics(predicted, labels)
    assert got["mae"] == pytest.approx(np.mean([0.4, 0.6, 0.1, 0.2, 6.1]))
    assert got["pearson"] == pytest.approx(np.corrcoef(predicted, labels)[0, 1])
    assert got["acc_2"] == 3 / 4  # the row labelled zero is left out
    assert got["acc_2_with_zero"] == 3 / 5
    assert got["acc_7"] == 4 / 5  # -3, 0, 0 and 3 agree; 1.6 and 1.4 do not
    assert got["acc_5"] == 4 / 5


def test_regression_outside_the_sentiment_scale_has_no_accuracies() -> None:
    assert "acc_7" not in metrics.regression_metrics(np.array([10.0, 50.0]), np.array([20.0, 40.0]))
    assert metrics.constant_metrics(np.array([1.0, 2.0, 9.0]))["value"] == 2.0
    assert metrics.constant_metrics(np.array([1.0, 2.0, 9.0]))["pearson"] is None


def test_bootstrap_interval_covers_the_mean_and_repeats() -> None:
    values = np.random.default_rng(0).normal(size=200)
    low, high = metrics.bootstrap(lambda rows: float(values[rows].mean()), 200)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 200**0.5, rel=0.2)
    assert (low, high) == metrics.bootstrap(lambda rows: float(values[rows].mean()), 200)


def test_polarity_as_the_field_measures_it():
    """Against plain loops over the definitions, MMSA's with the arguments of F1 in the right order."""
    draw = np.random.default_rng(3)
    labels = np.round(np.clip(draw.normal(0, 1.5, 400), -3, 3) * 3) / 3  # thirds, with zeros and halves
    labels[:20] = 0
    predicted = labels + draw.normal(0, 1.2, 400)
    predicted[:5] = 0
    found = metrics.regression_metrics(predicted, labels)

    def weighted_f1(said, true):
        total = 0.0
        for c in (False, True):
            hit = sum(1 for a, b in zip(said, true, strict=True) if a == c and b == c)
            precision = hit / max(1, sum(1 for a in said if a == c))
            recall = hit / max(1, sum(1 for b in true if b == c))
            f1 = 0.0 if hit == 0 else 2 * precision * recall / (precision + recall)
            total += f1 * sum(1 for b in true if b == c) / len(true)
        return total

    pairs = list(zip(predicted.tolist(), labels.tolist(), strict=True))
    kept = [(a > 0, b > 0) for a, b in pairs if b != 0]
    every = [(a >= 0, b >= 0) for a, b in pairs]
    for name, couples in (("", kept), ("_with_zero", every)):
        assert found["acc_2" + name] == pytest.approx(sum(a == b for a, b in couples) / len(couples))
        assert found["f1_2" + name] == pytest.approx(weighted_f1(*zip(*couples, strict=True)))
    for name, limit in (("acc_5", 2), ("acc_7", 3)):
        cut = [(round(max(-limit, min(limit, a))), round(max(-limit, min(limit, b)))) for a, b in pairs]
        assert found[name] == pytest.approx(sum(a == b for a, b in cut) / len(cut))
    assert "sims_acc_2" not in found


def test_ch_sims_has_bins_of_its_own():
    labels = np.array([-1.0, -0.8, -0.6, -0.2, 0.0, 0.2, 0.6, 0.8, 1.0])
    found = metrics.regression_metrics(labels, labels)
    assert found["sims_acc_2"] == found["sims_acc_3"] == found["sims_acc_5"] == 1
    found = metrics.regression_metrics(np.array([-0.6, -0.8, -0.6, 0.0, 0.05, 0.2, 0.6, 0.8, 0.6]), labels)
    # -1 said as -.6 is another fifth; -.2 said as 0 another third and fifth; 0 said as .05 another half;
    # 1 said as .6 another fifth
    assert found["sims_acc_2"] == pytest.approx(8 / 9)
    assert found["sims_acc_3"] == pytest.approx(8 / 9)
    assert found["sims_acc_5"] == pytest.approx(6 / 9)
