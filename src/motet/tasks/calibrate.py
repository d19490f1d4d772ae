"""Probabilities that mean what they say: one temperature a task, learned on validation rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motet.metrics import calibration_error, softmax
from motet.model import Motet
from motet.tasks.evaluate import ask
from motet.types import Sample

FEWEST = 20  # rows: on fewer, the temperature says more about chance than about the model
RANGE = (0.05, 20.0)

Array = NDArray[Any]


def calibrate(model: Motet, val: Sequence[Sample], judged: Sequence[Sample]) -> dict[str, Any]:
    """Give every task of classes the temperature of least loss on `val`, and say what it changed.

    {task: {"temperature", "rows", "ece_before", "ece_after", "nll_before", "nll_after"}}; the errors are
    those on `judged`, which should be rows that chose nothing. Labels do not change. A task with fewer
    than 20 labelled rows, or with one class in all of them, keeps its temperature and is not in the result.

    Source: Guo et al. 2017, section 4.2, arXiv:1706.04599.
    """
    tasks = [task for task in model.config.tasks if task.kind == "classes"]
    found: dict[str, Any] = {}
    if not tasks or not len(val) or not len(judged):
        return found
    seen = _logits(model, val)
    temperatures = {
        task.name: find_temperature(*seen[task.name])
        for task in tasks
        if len(seen[task.name][1]) >= FEWEST and len(set(seen[task.name][1].tolist())) > 1
    }
    before = _logits(model, judged)
    for name, temperature in temperatures.items():
        logits, labels = before[name]
        if len(labels):
            found[name] = {"temperature": temperature, "rows": len(seen[name][1])}
            for when, scale in (("before", 1.0), ("after", temperature)):
                shares = softmax(logits / scale)
                found[name][f"ece_{when}"] = calibration_error(shares, labels)
                found[name][f"nll_{when}"] = _nll(shares, labels)
    now = tuple(
        replace(task, temperature=task.temperature * temperatures.get(task.name, 1.0))
        for task in model.config.tasks
    )
    model.config = replace(model.config, tasks=now)
    return found


def find_temperature(logits: Array, labels: Array) -> float:
    """The temperature, within 0.05..20, of least cross-entropy. logits: (N, C), labels: (N,).

    The loss is convex in 1/temperature, so that bisection of its slope finds the minimum.
    """
    logits = logits.astype(np.float64)
    right = logits[np.arange(len(labels)), labels]
    low, high = 1 / RANGE[1], 1 / RANGE[0]
    for _ in range(60):
        middle = (low + high) / 2
        slope = float(((softmax(logits * middle) * logits).sum(1) - right).mean())
        low, high = (low, middle) if slope > 0 else (middle, high)
    return 2 / (low + high)


def _logits(model: Motet, samples: Sequence[Sample]) -> dict[str, tuple[Array, Array]]:
    """Per task of classes the logits (N, C) and labels (N,) of its labelled rows."""
    predictions = ask(model, samples).predictions
    found = {}
    for task in model.config.tasks:
        if task.kind == "classes":
            have = np.array([task.name in sample.targets for sample in samples], bool)
            labels = [sample.targets[task.name] for sample in samples if task.name in sample.targets]
            found[task.name] = (predictions[task.name][have], np.array(labels, np.int64))
    return found


def _nll(shares: Array, labels: Array) -> float:
    return float(-np.log(np.maximum(shares[np.arange(len(labels)), labels], 1e-300)).mean())
