"""Labels: what the cells of a column are to be learned as."""

from __future__ import annotations

import math
from typing import Any, Literal

from motet.data.blob import Blob
from motet.data.table import Table
from motet.errors import DataError

Task = Literal["classes", "number", "multilabel"]
TASKS = ("classes", "number", "multilabel")
SEPARATOR = "|"  # between several labels in one text


def class_word(cell: Any) -> str:
    """A class label as it is compared and shown: 1.0 and "1" are the same class."""
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip()


def label_words(cell: Any) -> list[str]:
    """The labels in a cell: a list, or words between `|`."""
    parts = cell if isinstance(cell, list) else str(cell).split(SEPARATOR)
    return [word for word in map(class_word, parts) if word]


def number_in(cell: Any) -> float | None:
    """The finite number that a cell holds or spells."""
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def label_task(table: Table, label: str, said: str | None) -> tuple[Task, tuple[str, ...], int]:
    """What the label's values are to be learned as, its classes, and how many rows have none."""
    words: set[str] = set()
    numbers, lists, filled = True, 0, 0
    for (cell,) in table.iterate([label]):
        if cell is None:
            continue
        filled += 1
        lists += isinstance(cell, list)
        if isinstance(cell, dict | Blob):
            raise DataError(f"{table.path}: the label column {label!r} holds nested values or media.")
        numbers = numbers and number_in(cell) is not None
        words.update(
            label_words(cell) if said == "multilabel" or isinstance(cell, list) else [class_word(cell)]
        )
    missing = len(table) - filled
    if not filled:
        raise DataError(
            f"{table.path}: the label column {label!r} is empty in every row. Fill it or drop --label."
        )
    if said == "number" or (said is None and numbers):
        return "number", (), missing
    if lists and (said == "classes" or lists < filled):
        raise DataError(
            f"{table.path}: the label column {label!r} holds lists. A label is one word or number; for "
            f"several at once let every row hold a list and say --set columns.{label}=multilabel."
        )
    task: Task = "multilabel" if lists or said == "multilabel" else "classes"
    classes = tuple(sorted(words))
    if len(classes) < 2:
        raise DataError(
            f"{table.path}: every label in {label!r} is {next(iter(classes), None)!r}; nothing can be "
            "learned from that."
        )
    if said not in TASKS and len(classes) > max(100, filled // 2):
        raise DataError(
            f"{table.path}: the label column {label!r} has {len(classes)} different values in {filled} "
            f"rows, too many for classes. If it is right, say --set columns.{label}={task}."
        )
    return task, classes, missing
