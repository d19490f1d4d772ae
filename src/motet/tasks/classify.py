"""Labels and numbers: how good the predictions are, over every subset of the modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motet.metrics import (
    bootstrap,
    bootstrap_all,
    classification_metrics,
    confusion_matrix,
    constant_metrics,
    label_metrics,
    macro_f1,
    majority_metrics,
    multilabel_metrics,
    regression_metrics,
    softmax,
)
from motet.model import TaskSpec

Array = NDArray[Any]
Subset = tuple[str, ...]


CLEAR = 0.03  # a gain whose whole interval is within this of 0 is called nothing


def evaluate_task(
    task: TaskSpec,
    by_subset: Mapping[Subset, Array],
    present: Array,
    targets: Array,
    modalities: Sequence[str],
) -> dict[str, Any]:
    """One task over every subset of the modalities, beside what a constant scores.

    by_subset: modalities kept -> predictions (N, C) or (N,) of the same N rows, all of them labelled.
    present: (N, M) bool. A subset is measured on the rows that have at least one of its modalities.
    `helps` compares all modalities with all but one, on the rows that have that one and another.
    """
    full = tuple(modalities)
    rows = []
    for subset in sorted(by_subset, key=lambda s: (-len(s), [full.index(m) for m in s])):
        kept = present[:, [full.index(m) for m in subset]].any(1)
        rows.append({"modalities": list(subset)} | _measure(task, by_subset[subset][kept], targets[kept]))
    result: dict[str, Any] = {
        "kind": task.kind,
        "n": len(targets),
        "measure": "mae" if task.kind == "number" else "macro_f1",
        "baseline": _baseline(task, targets),
        "full": rows[0] if rows else {"n": 0},
        "subsets": [{k: v for k, v in row.items() if k not in ("confusion", "f1")} for row in rows],
        "helps": _helps(task, by_subset, present, targets, full),
    }
    if task.classes:
        result["classes"] = list(task.classes)
    kept = present.any(1)
    if full in by_subset and kept.any():
        result["full"] = result["full"] | {
            "intervals": _intervals(task, by_subset[full][kept], targets[kept])
        }
    return result


def evaluate_shuffled(
    task: TaskSpec,
    by_subset: Mapping[Subset, Array],
    shuffled: Mapping[str, Array],
    present: Array,
    targets: Array,
    modalities: Sequence[str],
) -> list[dict[str, Any]]:
    """What is lost where a modality is that of another row; on the rows that have it.

    shuffled: modality -> predictions of the same rows. Other arguments as for `evaluate_task`.
    """
    full = tuple(modalities)
    found = []
    for index, name in enumerate(full):
        kept = present[:, index]
        if name not in shuffled or full not in by_subset or not kept.any():
            continue
        right, wrong = by_subset[full][kept], shuffled[name][kept]
        verdicts: tuple[str, ...] = (
            f"the model relies on {name}",
            f"the model is better without its own {name}",
        )
        verdicts += (
            f"the model takes nothing from {name}",
            f"{name}: too few rows to tell whether it is used",
        )
        found.append(_compare(task, name, right, wrong, targets[kept], verdicts, _SHUFFLED))
    return found


_LEFT_OUT = ("with it", "without")
_SHUFFLED = ("with its own", "with that of other rows")


def _baseline(task: TaskSpec, targets: Array) -> dict[str, Any]:
    """What the best constant answer scores."""
    match task.kind:
        case "number":
            return constant_metrics(targets)
        case "classes":
            return majority_metrics(targets, task.classes)
        case "multilabel":
            usual = np.broadcast_to(targets.mean(0) - 0.5, targets.shape)  # yes to what most rows have
            return multilabel_metrics(usual, targets, task.classes)


def _measure(task: TaskSpec, predicted: Array, targets: Array) -> dict[str, Any]:
    if not len(targets):
        return {"n": 0}
    if task.kind == "number":
        return regression_metrics(predicted, targets) | {"interval": _interval(task, predicted, targets)}
    if task.kind == "multilabel":
        measured = multilabel_metrics(predicted, targets, task.classes)
        return measured | {"interval": _interval(task, predicted, targets)}
    shares = softmax(predicted)
    return classification_metrics(shares, targets, task.classes) | {
        "interval": _interval(task, predicted, targets)
    }


def _score(task: TaskSpec, predicted: Array, targets: Array) -> float:
    """The task's one number: macro-F1, or the mean absolute error."""
    if task.kind == "number":
        return float(np.abs(predicted - targets).mean())
    if task.kind == "multilabel":
        return float(multilabel_metrics(predicted, targets, task.classes)["macro_f1"])
    return macro_f1(confusion_matrix(predicted.argmax(1), targets, len(task.classes)))


def _intervals(task: TaskSpec, predicted: Array, targets: Array) -> dict[str, list[float]]:
    """95 % bootstrap intervals of the measures that people quote, over rows."""
    keys = {
        "number": ("mae", "pearson", "acc_2", "acc_5", "acc_7"),
        "classes": ("accuracy", "macro_f1", "weighted_f1"),
        "multilabel": ("accuracy", "macro_f1", "micro_f1"),
    }[task.kind]
    predicted = softmax(predicted) if task.kind == "classes" else predicted

    def measured(rows: Array) -> list[float]:
        if task.kind == "number":
            values = regression_metrics(predicted[rows], targets[rows])
        elif task.kind == "multilabel":
            values = multilabel_metrics(predicted[rows], targets[rows], task.classes)
        else:
            values = label_metrics(predicted[rows].argmax(1), targets[rows], len(task.classes))
        return [np.nan if values.get(key) is None else values[key] for key in keys]

    low, high = bootstrap_all(measured, len(targets))
    pairs = zip(keys, low.tolist(), high.tolist(), strict=True)
    return {key: [a, b] for key, a, b in pairs if np.isfinite([a, b]).all()}


def _interval(task: TaskSpec, predicted: Array, targets: Array) -> list[float]:
    return list(bootstrap(lambda rows: _score(task, predicted[rows], targets[rows]), len(targets)))


def _helps(
    task: TaskSpec, by_subset: Mapping[Subset, Array], present: Array, targets: Array, full: Subset
) -> list[dict[str, Any]]:
    found = []
    for index, name in enumerate(full):
        others = tuple(m for m in full if m != name)
        if not others or others not in by_subset or full not in by_subset:
            continue
        kept = present[:, index] & np.delete(present, index, axis=1).any(1)
        if not kept.any():
            continue
        verdicts: tuple[str, ...] = (f"{name} helps", f"{name} hurts here", f"{name} adds nothing here")
        verdicts += (f"{name}: too few rows to tell whether it helps",)
        found.append(
            _compare(task, name, by_subset[full][kept], by_subset[others][kept], targets[kept], verdicts)
        )
    return found


def _compare(
    task: TaskSpec,
    name: str,
    with_it: Array,
    without: Array,
    targets: Array,
    verdicts: tuple[str, ...],
    words: tuple[str, str] = _LEFT_OUT,
) -> dict[str, Any]:
    """verdicts: where there is a gain, a loss, neither, or no telling. words: what is compared."""
    sign = -1.0 if task.kind == "number" else 1.0  # an error that falls is a gain

    def gain(rows: Array) -> float:
        return sign * (
            _score(task, with_it[rows], targets[rows]) - _score(task, without[rows], targets[rows])
        )

    everything = np.arange(len(targets))
    low, high = bootstrap(gain, len(targets))
    a, b = _score(task, with_it, targets), _score(task, without, targets)
    if low > 0 or high < 0:
        verdict = verdicts[0] if low > 0 else verdicts[1]
    else:
        verdict = verdicts[2] if max(-low, high) <= CLEAR * max(1.0, abs(a)) else verdicts[3]
    measure = "mean absolute error" if task.kind == "number" else "macro-F1"
    sentence = (
        f"{verdict} for {task.name}: {measure} {a:.3f} {words[0]}, {b:.3f} {words[1]} "
        f"(gain {gain(everything):+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, {len(targets)} rows)."
    )
    return {"modality": name, "with": a, "without": b, "interval": [low, high], "sentence": sentence}
