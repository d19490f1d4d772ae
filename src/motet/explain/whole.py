"""Many inputs explained together: which modality is used when, for which class, right and wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from motet.errors import DataError
from motet.explain.capture import capture
from motet.explain.faithfulness import DeletionSummary, DeletionTest, deletion_tests, summarise
from motet.explain.item import answer_score
from motet.explain.occlusion import leave_one_out
from motet.explain.relevance import relevance
from motet.explain.views import View, modality_matrix
from motet.explain.without import without_each
from motet.model import Motet
from motet.types import TokenBatch

Progress = Callable[[int, int, str], None]
ORDERS = 8  # random orders of each row's deletion test; many rows make up for few orders
RESAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Used:
    """What one row owes to one modality.

    share: its part of what reached the answer. lost: what the answer loses without it; None where
    it is the only one. changes: whether another label is likeliest then.
    """

    share: float
    lost: float | None
    changes: bool | None


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One row. said: the label that the model gives, "" without labels; right: None where not known."""

    id: str
    said: str
    truth: str
    used: dict[str, Used]
    matrix: dict[tuple[str, str], float]
    test: DeletionTest | None

    @property
    def right(self) -> bool | None:
        return self.said == self.truth if self.said and self.truth else None


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over rows with its 95 % bootstrap interval (rows drawn again); NaN of no rows."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Group(View):
    """The rows of one answer ("" for all), of the right ones, the wrong ones, or both (right = None).

    share, lost, changes: by modality, over the rows that have it.
    """

    said: str
    right: bool | None
    rows: int
    there: dict[str, int]
    share: dict[str, Mean]
    lost: dict[str, Mean]
    changes: dict[str, Mean]


@dataclasses.dataclass(frozen=True, eq=False)
class Whole:
    """All rows together. matrix (M, M): corrected attention, mean over the rows that have both."""

    title: str
    explained: str
    modalities: tuple[str, ...]
    rows: tuple[Row, ...]
    of: int
    groups: tuple[Group, ...]
    matrix: np.ndarray
    test: DeletionSummary | None

    @property
    def all(self) -> Group:
        return self.groups[0]

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "explained": self.explained,
            "modalities": list(self.modalities),
            "rows": [
                {"id": r.id, "said": r.said, "truth": r.truth, "right": r.right}
                | {"used": {name: dataclasses.asdict(used) for name, used in r.used.items()}}
                for r in self.rows
            ],
            "of": self.of,
            "groups": [dataclasses.asdict(group) for group in self.groups],
            "matrix": self.matrix.tolist(),
            "test": None if self.test is None else self.test.to_dict(),
        }


def explain_rows(
    model: Motet,
    batches: Iterable[tuple[TokenBatch, str]],
    *,
    title: str,
    count: int,
    of: int,
    progress: Progress | None = None,
) -> Whole:
    """Explain batches of one sample each, with the right label ("" where not known), `count` in all.

    of: how many rows they were drawn from.

    Raises:
        DataError: there is not one.
    """
    rows = []
    for i, (batch, truth) in enumerate(batches):
        rows.append(_row(model, batch, truth))
        if progress:
            progress(i + 1, count, "explaining")
    if not rows:
        raise DataError(f"{title}: not one row that the model can use, so nothing to explain.")
    names = tuple(m for m in model.modalities if any(m in row.used for row in rows))
    tests = [row.test for row in rows if row.test is not None]
    matrix = np.array([[_mean([r.matrix.get((a, b)) for r in rows]).mean for b in names] for a in names])
    task = model.config.tasks[0] if model.config.tasks else None
    explained = (
        "closeness to its place in the shared space"
        if task is None
        else f"{task.name}, in spreads of the training rows"
        if task.kind == "number"
        else f"probability of the label given for {task.name}"
    )
    return Whole(title, explained, names, tuple(rows), of, _groups(rows, names),
                 matrix, summarise(tests) if tests else None)  # fmt: skip


def _row(model: Motet, batch: TokenBatch, truth: str) -> Row:
    with torch.no_grad():
        output = model(batch)
    tasks = model.config.tasks
    score, _ = answer_score(tasks, output)
    captured = capture(model, batch, score)
    importance = (relevance if tasks else leave_one_out)(model, batch, captured, score)
    shares, matrix = importance.by_modality(), modality_matrix(captured)
    names = matrix.modalities
    values, without = without_each(model, batch, importance, score)
    lost = {name: values[""] - values[name] if name in values else None for name in names}
    changes: dict[str, bool | None] = dict.fromkeys(names)
    if tasks and tasks[0].kind == "classes":
        best = without.predictions[tasks[0].name].argmax(-1).tolist()
        changes |= {name: b != best[0] for name, b in zip(values, best, strict=True) if name}
    test = (
        deletion_tests(model, batch, [importance], score, orders=ORDERS)[0]
        if len(importance.token) > 2
        else None
    )
    said = ""
    if tasks and tasks[0].kind == "classes":
        said = tasks[0].classes[int(output.predictions[tasks[0].name][0].argmax())]
    return Row(
        id=batch.ids[0],
        said=said,
        truth=truth,
        used={name: Used(shares[name], lost[name], changes[name]) for name in names},
        matrix={
            (a, b): float(matrix.whole_corrected[i, j])
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        },
        test=test,
    )


def _groups(rows: Sequence[Row], names: Sequence[str]) -> tuple[Group, ...]:
    """All rows; then those right and those wrong; then each answer, as a whole, right and wrong."""
    known = any(row.right is not None for row in rows)
    said = sorted({row.said for row in rows if row.said})
    sides = (None, True, False) if known else (None,)
    found = [_group(rows, names, answer, side) for answer in ("", *said) for side in sides]
    return tuple(group for group in found if group.rows)


def _group(rows: Sequence[Row], names: Sequence[str], said: str, right: bool | None) -> Group:
    kept = [r for r in rows if said in ("", r.said) and right in (None, r.right)]

    def means(field: str) -> dict[str, Mean]:
        return {n: _mean([getattr(r.used[n], field) for r in kept if n in r.used]) for n in names}

    there = {name: sum(name in row.used for row in kept) for name in names}
    return Group(said, right, len(kept), there, means("share"), means("lost"), means("changes"))


def _mean(values: Sequence[float | None]) -> Mean:
    known = np.array([value for value in values if value is not None], dtype=float)
    if not len(known):
        return Mean(float("nan"), float("nan"), float("nan"))
    drawn = np.random.default_rng(0).integers(len(known), size=(RESAMPLES, len(known)))
    low, high = np.percentile(known[drawn].mean(1), [2.5, 97.5])
    return Mean(float(known.mean()), float(low), float(high))
