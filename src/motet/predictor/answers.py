"""What a model says of one thing, in words and numbers that people read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from motet.model import TaskSpec
from motet.predictor.cells import Broken
from motet.predictor.inputs import Entry
from motet.types import Output, Sample


def prediction(
    entry: Entry,
    number: int,
    sample: Sample | Broken,
    output: Output | None,
    place: int,
    *,
    tasks: Sequence[TaskSpec],
    modalities: Sequence[str],
) -> dict[str, Any]:
    """{"id", "label", "scores", "score", "modalities", "status"}, and "tasks" where there are several.

    score: the number of the first task that predicts one; else, of classes "positive" and "negative", the
    difference of their probabilities; else None.
    number: the entry's place among all, its id where it has none. place: its row in `output`, which is
    None where nothing of it could be used.
    """
    said: dict[str, Any] = {"id": entry.id or str(number), "label": None, "scores": {}, "score": None}
    said["modalities"] = []
    if isinstance(sample, Broken):
        return said | {"status": f"{entry.where}: column {sample.column!r}: {sample.error}"}
    if output is None:
        return said | {"status": "missing"}
    answers = {task.name: _answer(task, output.predictions[task.name][place]) for task in tasks}
    more = {"tasks": answers} if len(answers) > 1 else {}
    heard = [m for m in modalities if m in sample.pieces]
    score = score_in(tasks, answers)
    return said | answers[tasks[0].name] | {"score": score, "modalities": heard, **more, "status": "ok"}


def score_in(tasks: Sequence[TaskSpec], answers: Mapping[str, Mapping[str, Any]]) -> float | None:
    """How positive it is, in one number, see `prediction`. answers: task -> {"label", "scores"}."""
    numbers = [answers[task.name]["label"] for task in tasks if task.kind == "number"]
    if numbers:
        return float(numbers[0])
    for task in tasks:
        shares = {name.lower(): share for name, share in answers[task.name]["scores"].items()}
        if task.kind == "classes" and {"positive", "negative"} <= shares.keys():
            return float(shares["positive"] - shares["negative"])
    return None


def _answer(task: TaskSpec, prediction: Tensor) -> dict[str, Any]:
    """prediction: (classes,) logits or () a number. Of several labels at once, those likelier than not."""
    if task.kind == "number":
        return {"label": float(prediction), "scores": {}}
    if task.kind == "multilabel":
        chances = dict(zip(task.classes, prediction.float().sigmoid().tolist(), strict=True))
        return {"label": [name for name, chance in chances.items() if chance > 0.5], "scores": chances}
    scores = prediction.float().softmax(-1).tolist()
    return {
        "label": task.classes[int(np.argmax(scores))],
        "scores": dict(zip(task.classes, scores, strict=True)),
    }
