"""Where a table's cells are: in memory, or in a file from which rows are read when asked for."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from motet.data.blob import Blob
from motet.errors import MismatchError

Cell = str | int | float | list | Blob | None
BLOCK = 2048  # rows read together when all are


class Rows(ABC):
    """Cells by row and column name. `names` are the columns; in `classes` numbers are names of classes."""

    names: tuple[str, ...]
    classes: frozenset[str] = frozenset()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def cell(self, i: int, name: str) -> Cell: ...

    @abstractmethod
    def iterate(self, names: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
        """The named cells of every row, in order, without holding them all."""

    def row(self, i: int) -> dict[str, Cell]:
        return {name: self.cell(i, name) for name in self.names}

    def column(self, name: str) -> Sequence[Cell]:
        return Column(self, name)

    def line(self, i: int) -> int:
        """Where row i starts in the file, counted from 1; its number where a file has no lines."""
        return i + 1


class Column(Sequence[Cell]):
    """One column, read when asked for: `column[i]`, or all in order by iteration."""

    def __init__(self, rows: Rows, name: str) -> None:
        self._rows, self._name = rows, name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self._rows.cell(k, self._name) for k in range(*i.indices(len(self)))]
        return self._rows.cell(range(len(self))[i], self._name)

    def __iter__(self) -> Iterator[Cell]:
        return (cell for (cell,) in self._rows.iterate([self._name]))


class MemoryRows(Rows):
    """Cells in lists."""

    def __init__(self, columns: Mapping[str, Sequence[Cell]], lines: Sequence[int] | None = None) -> None:
        self.names = tuple(columns)
        self._columns = columns
        self._lines = range(1, len(next(iter(columns.values()), ())) + 1) if lines is None else lines

    def __len__(self) -> int:
        return len(self._lines)

    def cell(self, i: int, name: str) -> Cell:
        return self._columns[name][i]

    def iterate(self, names: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
        return zip(*(self._columns[name] for name in names), strict=True)

    def column(self, name: str) -> Sequence[Cell]:
        return list(self._columns[name])

    def line(self, i: int) -> int:
        return int(self._lines[i])


class TextRows(Rows):
    """Rows of a text file by their places in it.

    places: (n + 1,) int64, the byte at which each row starts and the end of the last. lines: (n,) int64.
    """

    def __init__(self, path: Path, names: Sequence[str], places: np.ndarray, lines: np.ndarray) -> None:
        self.path, self.names = path, tuple(names)
        self._places, self._lines = places, lines
        self._stamp = _stamp(os.stat(path))
        self._file: BinaryIO | None = None

    @abstractmethod
    def parse(self, text: str) -> Iterator[Sequence[Cell]]:
        """The rows in a piece of the file, each with a cell for each name."""

    def __len__(self) -> int:
        return len(self._lines)

    def cell(self, i: int, name: str) -> Cell:
        return self._row(i)[self.names.index(name)]

    def row(self, i: int) -> dict[str, Cell]:
        return dict(zip(self.names, self._row(i), strict=True))

    def iterate(self, names: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
        at = [self.names.index(name) for name in names]
        for start in range(0, len(self), BLOCK):
            for cells in self.parse(self._text(start, min(start + BLOCK, len(self)))):
                yield tuple([cells[k] for k in at])

    def line(self, i: int) -> int:
        return int(self._lines[i])

    def all_lines(self) -> list[int]:
        return self._lines.tolist()

    def _row(self, i: int) -> Sequence[Cell]:
        return next(iter(self.parse(self._text(i, i + 1))))

    def _text(self, first: int, end: int) -> str:
        if self._file is None:
            self._file = self.path.open("rb")
        number = self._file.fileno()
        if _stamp(os.fstat(number)) != self._stamp:
            raise MismatchError(f"{self.path}: changed since it was opened. Start again with the new table.")
        start, stop = int(self._places[first]), int(self._places[end])
        return os.pread(number, stop - start, start).decode()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def plain_cell(value: Any) -> Any:
    """A cell as the rest of Motet sees it: blank texts and NaN are empty, other kinds of value text."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case str():
            return value if value.strip() else None
        case float():
            return None if math.isnan(value) else value
        case int() | list() | dict() | Blob():
            return value
        case _:
            return str(value)


def looks_like_list(text: str) -> bool:
    """Whether a text may be a JSON list, as features are written in CSV."""
    return text.startswith("[") and text.endswith("]")
