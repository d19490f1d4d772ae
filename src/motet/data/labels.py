"""Labels: what the cells of a column are to be learned as."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from motet.data.blob import Blob
from motet.data.paths import did_you_mean, shorten
from motet.data.table import Table
from motet.errors import DataError

Task = Literal["classes", "number", "multilabel"]
TASKS = ("classes", "number", "multilabel")
SEPARATOR = "|"  # between several labels in one text


@dataclass(frozen=True)
class Label:
    """A column to learn. `task` is "classes" or "multilabel" (then `classes` are the words) or "number"."""

    name: str
    task: Task
    classes: tuple[str, ...] = ()

    def target(self, cell: Any, where: str) -> int | float | np.ndarray | None:
        """A cell as the model learns it: the index of its class, the number, or (C,) float32 of 0 and
        1 for several labels; None if empty. An empty list means that none of the labels applies.

        Raises:
            DataError: a word that is no known class, or no finite number.
        """
        if cell is None:
            return None
        if self.task == "number":
            number = number_in(cell)
            if number is None:
                raise DataError(
                    f"{where}: the label {shorten(cell)} in column {self.name!r} is not a finite number."
                )
            return number
        if self.task == "multilabel":
            several = np.zeros(len(self.classes), np.float32)
            several[[self._index(word, where) for word in label_words(cell)]] = 1
            return several
        return self._index(class_word(cell), where)

    def _index(self, word: str, where: str) -> int:
        if word not in self.classes:
            close = did_you_mean(word, self.classes)
            known = ", ".join(self.classes[:20])
            raise DataError(f"{where}: the label {shorten(word)} is not one of the classes {known}.{close}")
        return self.classes.index(word)


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
