"""What a model says of one thing, in words and numbers that people read."""

from __future__ import annotations

from collections.abc import Sequence
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
    """{"id", "label", "scores", "modalities", "status"}, and "tasks" where there are several.

    number: the entry's place among all, its id where it has none. place: its row in `output`, which is
    None where nothing of it could be used.
    """
    said: dict[str, Any] = {"id": entry.id or str(number), "label": None, "scores": {}, "modalities": []}
    if isinstance(sample, Broken):
        return said | {"status": f"{entry.where}: column {sample.column!r}: {sample.error}"}
    if output is None:
        return said | {"status": "missing"}
    answers = {task.name: _answer(task, output.predictions[task.name][place]) for task in tasks}
    more = {"tasks": answers} if len(answers) > 1 else {}
    heard = [m for m in modalities if m in sample.pieces]
    return said | answers[tasks[0].name] | {"modalities": heard, **more, "status": "ok"}


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
