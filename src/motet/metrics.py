"""Retrieval, classification and regression metrics, each beside what chance or a constant would score.

Everything here is numpy in float64 and returns plain Python values, ready for JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motet.errors import ConfigError

KS = (1, 5, 10)
SIMS_EDGES = {"sims_acc_2": (0.0,), "sims_acc_3": (-0.1, 0.1), "sims_acc_5": (-0.7, -0.1, 0.1, 0.7)}
_CHUNK = 1024  # queries ranked at a time: bounds memory at _CHUNK x gallery

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]


def retrieval_metrics(query: Floats, gallery: Floats, match: Bools) -> dict[str, Any]:
    """R@1/5/10, median rank and mAP of ranking the gallery by dot product, beside exact chance.

    query: (N, E), gallery: (M, E), match: (N, M) bool, True where an item answers the query; any
    number of answers is right. Queries without an answer are left out (`n` counts the rest). Ranks
    start at 1 and are those of the best answer; equal scores count against the model, so that a
    collapsed embedding scores nothing. `R@10_interval` and so on are 95 % bootstrap intervals over queries.

    Raises:
        ConfigError: shapes that do not belong together.
    """
    if match.shape != (len(query), len(gallery)):
        raise ConfigError(
            f"match is {match.shape}, expected ({len(query)}, {len(gallery)}): queries x gallery."
        )
    ranks, precision = rank_answers(query, gallery, match)
    positives = match.sum(1)
    kept = positives > 0
    ranks, precision, positives = ranks[kept], precision[kept], positives[kept]
    result: dict[str, Any] = {"n": int(kept.sum()), "gallery": len(gallery)}
    if not len(ranks):
        return result
    for k in KS:
        result[f"R@{k}"] = float((ranks <= k).mean())
    result["median_rank"] = float(np.median(ranks))
    result["mAP"] = float(precision.mean())
    low, high = bootstrap_all(
        lambda rows: [
            *(float((ranks[rows] <= k).mean()) for k in KS),
            float(np.median(ranks[rows])),
            float(precision[rows].mean()),
        ],
        len(ranks),
    )
    names = (*(f"R@{k}" for k in KS), "median_rank", "mAP")
    result |= {f"{name}_interval": [float(a), float(b)] for name, a, b in zip(names, low, high, strict=True)}
    return result | chance_retrieval(positives, len(gallery))


def rank_answers(query: Floats, gallery: Floats, match: Bools) -> tuple[Ints, Floats]:
    """Rank of the best answer (N,) and average precision (N,) per query; 0 where there is no answer."""
    ranks = np.zeros(len(query), dtype=np.int64)
    precision = np.zeros(len(query))
    places = np.arange(1, len(gallery) + 1)
    for start in range(0, len(query), _CHUNK):
        rows = slice(start, start + _CHUNK)
        scores = query[rows].astype(np.float64) @ gallery.astype(np.float64).T
        # Sorting by (score, wrong before right) puts wrong answers first among equal scores.
        order = np.lexsort((match[rows], -scores), axis=1)
        right = np.take_along_axis(match[rows], order, axis=1)
        found = right.any(1)
        ranks[rows] = np.where(found, right.argmax(1) + 1, 0)
        hits = right.cumsum(1)
        precision[rows] = (right * hits / places).sum(1) / np.maximum(hits[:, -1], 1)
    return ranks, precision


def chance_retrieval(positives: Ints, gallery: int) -> dict[str, float]:
    """Expected R@k and mAP of a random ranking, given each query's number of right answers.

    `chance_median_rank` is the smallest k at which the expected R@k reaches one half.
    """
    counts, weight = np.unique(positives, return_counts=True)
    share = weight / weight.sum()
    # miss[k-1, c]: probability that none of the first k places holds one of c answers.
    steps = np.arange(gallery)[:, None]
    miss = np.cumprod(np.clip((gallery - counts - steps) / (gallery - steps), 0.0, None), axis=0)
    recall = ((1.0 - miss) * share).sum(1)
    result = {f"chance_R@{k}": float(recall[min(k, gallery) - 1]) for k in KS}
    result["chance_median_rank"] = float(np.argmax(recall >= 0.5 - 1e-12) + 1)
    harmonic = float((1.0 / np.arange(1, gallery + 1)).sum())
    extra = (counts - 1) / max(gallery - 1, 1) * (gallery - harmonic)
    result["chance_mAP"] = float(((harmonic + extra) / gallery * share).sum())
    return result


def classification_metrics(scores: Floats, labels: Ints, classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy, F1, AUROC, calibration error and confusion of (N, C) probabilities against (N,) labels.

    `macro_f1` averages the classes that occur in labels or predictions, as scikit-learn does.
    `auroc` is the mean over classes of one against the rest; None where no class can be measured.
    `ece` is the expected calibration error over 10 equal bins of confidence. `confusion[i][j]`
    counts rows of class i called class j.
    """
    if not len(labels):
        return {"n": 0}
    predicted = scores.argmax(1)
    confusion = confusion_matrix(predicted, labels, len(classes))
    f1 = f1_scores(confusion)
    return {
        "n": len(labels),
        **label_metrics(predicted, labels, len(classes)),
        "auroc": auroc(scores, labels),
        "ece": calibration_error(scores, labels),
        "f1": {name: float(value) for name, value in zip(classes, f1, strict=True)},
        "confusion": confusion.tolist(),
    }


def label_metrics(predicted: Ints, labels: Ints, classes: int) -> dict[str, float]:
    """Accuracy, macro and weighted F1 of (N,) predicted classes, as in `classification_metrics`."""
    confusion = confusion_matrix(predicted, labels, classes)
    support = confusion.sum(1)
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": macro_f1(confusion),
        "weighted_f1": float((f1_scores(confusion) * support).sum() / support.sum()),
    }


def multilabel_metrics(scores: Floats, labels: Floats, classes: Sequence[str]) -> dict[str, Any]:
    """F1, AUROC and exact matches of (N, C) logits against (N, C) of 0 and 1; above 0 means yes.

    `macro_f1` and `auroc` are means over classes, `auroc` over those with both answers; `micro_f1` counts
    all answers alike; `accuracy` is the share of rows with every answer right. NaN counts as no.
    """
    if not len(labels):
        return {"n": 0}
    said, true = scores > 0, labels > 0.5
    hits, total = (said & true).sum(0), said.sum(0) + true.sum(0)
    f1 = 2 * hits / np.maximum(total, 1)
    areas = [auroc(scores[:, c : c + 1], np.where(true[:, c], 0, 1)) for c in range(len(classes))]
    found = [area for area in areas if area is not None]
    return {
        "n": len(labels),
        "accuracy": float((said == true).all(1).mean()),
        "macro_f1": float(f1[total > 0].mean()) if total.any() else 0.0,
        "micro_f1": float(2 * hits.sum() / max(int(total.sum()), 1)),
        "auroc": float(np.mean(found)) if found else None,
        "f1": {name: float(value) for name, value in zip(classes, f1, strict=True)},
    }


def majority_metrics(labels: Ints, classes: Sequence[str]) -> dict[str, Any]:
    """What always answering the most frequent class scores."""
    if not len(labels):
        return {"n": 0}
    top = int(np.bincount(labels, minlength=len(classes)).argmax())
    confusion = confusion_matrix(np.full(len(labels), top), labels, len(classes))
    f1, support = f1_scores(confusion), confusion.sum(1)
    return {
        "n": len(labels),
        "label": classes[top],
        "accuracy": float((labels == top).mean()),
        "macro_f1": macro_f1(confusion),
        "weighted_f1": float((f1 * support).sum() / support.sum()),
    }


def confusion_matrix(predicted: Ints, labels: Ints, classes: int) -> Ints:
    """(C, C) counts: rows are true classes, columns predicted ones."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def f1_scores(confusion: Ints) -> Floats:
    """(C,) F1 of each class; 0 where a class neither occurs nor is predicted."""
    total = confusion.sum(0) + confusion.sum(1)
    return 2 * np.diagonal(confusion) / np.maximum(total, 1)


def macro_f1(confusion: Ints) -> float:
    """Mean F1 over the classes that occur or are predicted."""
    occurs = (confusion.sum(0) + confusion.sum(1)) > 0
    return float(f1_scores(confusion)[occurs].mean())


def auroc(scores: Floats, labels: Ints) -> float | None:
    """Mean over classes of the area under the ROC curve, one class against the rest."""
    areas = []
    for c in range(scores.shape[1]):
        positive = labels == c
        n, m = int(positive.sum()), int((~positive).sum())
        if n and m:
            areas.append((_mid_ranks(scores[:, c])[positive].sum() - n * (n + 1) / 2) / (n * m))
    return float(np.mean(areas)) if areas else None


def calibration_error(scores: Floats, labels: Ints, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over equal bins of confidence (Guo et al. 2017)."""
    confidence = scores.max(1)
    right = scores.argmax(1) == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gap = np.abs(np.bincount(place, confidence, bins) - np.bincount(place, right, bins))
    return float(gap.sum() / len(labels))


def regression_metrics(predicted: Floats, labels: Floats) -> dict[str, Any]:
    """MAE, RMSE and Pearson; for scores on both sides of zero also those of `polarity_metrics`.

    `pearson` is None where either side is constant.
    """
    predicted, labels = predicted.astype(np.float64), labels.astype(np.float64)
    if not len(labels):
        return {"n": 0}
    error = predicted - labels
    result: dict[str, Any] = {
        "n": len(labels),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "pearson": _pearson(predicted, labels),
    }
    if labels.min() < 0 < labels.max() and np.abs(labels).max() <= 3:
        result |= polarity_metrics(predicted, labels)
    return result


def polarity_metrics(predicted: Floats, labels: Floats) -> dict[str, float]:
    """What papers report of sentiment scores, from the classes that scores fall into.

    Within -3..3: Acc-7 and Acc-5 compare values rounded after clipping to -3..3 and -2..2; `acc_2` and
    `f1_2` leave out the rows labelled zero, `acc_2_with_zero` and `f1_2_with_zero` take zero as
    non-negative. Within -1..1 (CH-SIMS) also `sims_acc_2`, `_3` and `_5`, of its own bins. F1 is weighted
    by how often a class is true, as scikit-learn's f1_score(true, predicted).

    Source: Zadeh et al. 2018 (CMU-MOSEI), Yu et al. 2020 (CH-SIMS), and `metricsTop.py` of
    https://github.com/thuiar/MMSA, which gives f1_score its arguments the other way round.
    """
    signed = labels != 0
    result = {
        "acc_2": float(((predicted[signed] > 0) == (labels[signed] > 0)).mean()),
        "f1_2": _weighted_f1(predicted[signed] > 0, labels[signed] > 0),
        "acc_2_with_zero": float(((predicted >= 0) == (labels >= 0)).mean()),
        "f1_2_with_zero": _weighted_f1(predicted >= 0, labels >= 0),
    }
    for name, limit in (("acc_5", 2), ("acc_7", 3)):
        same = np.rint(np.clip(predicted, -limit, limit)) == np.rint(np.clip(labels, -limit, limit))
        result[name] = float(same.mean())
    if np.abs(labels).max() <= 1:
        for name, edges in SIMS_EDGES.items():
            # A value on an edge belongs to the lower class.
            same = np.searchsorted(edges, predicted) == np.searchsorted(edges, labels)
            result[name] = float(same.mean())
    return result


def _weighted_f1(predicted: Bools, labels: Bools) -> float:
    confusion = confusion_matrix(predicted.astype(int), labels.astype(int), 2)
    support = confusion.sum(1)
    return float((f1_scores(confusion) * support).sum() / support.sum())


def constant_metrics(labels: Floats) -> dict[str, Any]:
    """What always answering the median scores: the best constant for the absolute error."""
    if not len(labels):
        return {"n": 0}
    middle = float(np.median(labels))
    return {"value": middle} | regression_metrics(np.full(len(labels), middle), labels)


def softmax(logits: Floats) -> Floats:
    """(N, C) logits -> probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    powers = np.exp(shifted)
    return powers / powers.sum(1, keepdims=True)


def bootstrap(
    measure: Callable[[Ints], float], n: int, *, resamples: int = 500, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of `measure(rows)` over rows (n,) drawn with replacement."""
    low, high = bootstrap_all(lambda rows: [measure(rows)], n, resamples=resamples, seed=seed)
    return float(low[0]), float(high[0])


def bootstrap_all(
    measure: Callable[[Ints], Sequence[float]], n: int, *, resamples: int = 500, seed: int = 0
) -> tuple[Floats, Floats]:
    """`bootstrap` of several measures of the same rows: their lower and upper ends."""
    draw = np.random.default_rng(seed)
    values = [measure(draw.integers(0, n, n)) for _ in range(resamples)]
    low, high = np.percentile(np.array(values, dtype=np.float64), [2.5, 97.5], axis=0)
    return low, high


def _pearson(a: Floats, b: Floats) -> float | None:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum() / scale) if scale > 0 else None


def _mid_ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[inverse]
