"""JSON Lines: an object a line, its keys the columns."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motet.config import parse_json
from motet.data.csvfile import BOM
from motet.data.paths import shorten
from motet.data.rows import BLOCK, Cell, TextRows, looks_like_list, plain_cell
from motet.errors import ConfigError, DataError


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key twice")
    return out


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


_STRICT = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)
_FAST = json.JSONDecoder(parse_constant=_refuse)


class JsonRows(TextRows):
    """Rows of a JSON Lines file. A column in `lists` holds JSON lists as texts."""

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        places: np.ndarray,
        lines: np.ndarray,
        lists: frozenset[str],
    ) -> None:
        super().__init__(path, names, places, lines)
        self.lists = lists

    def parse(self, text: str) -> Iterator[Sequence[Cell]]:
        return self._parse(text, self.names)

    def iterate(self, names: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
        for start in range(0, len(self), BLOCK):
            text = self._text(start, min(start + BLOCK, len(self)))
            yield from map(tuple, self._parse(text, names))

    def _parse(self, text: str, names: Sequence[str]) -> Iterator[list[Cell]]:
        for line in text.split("\n"):
            if line.strip():
                values = _FAST.decode(line)
                yield [self._cell(name, values.get(name)) for name in names]

    def _cell(self, name: str, value: Any) -> Cell:
        cell: Cell = plain_cell(value)
        return parse_json(cell, where="list") if name in self.lists and isinstance(cell, str) else cell


def read_jsonl(path: Path) -> JsonRows:
    """Where each row starts. Every line is checked once; none is kept. Blank lines are skipped.

    Raises:
        DataError: a line that is no JSON object, or bytes that are no UTF-8.
    """
    places, lines = array("q"), array("q")
    names: dict[str, None] = {}
    lists: dict[str, bool] = {}  # column -> whether all its texts so far are lists
    with path.open("rb") as file:
        place = len(BOM) if file.read(len(BOM)) == BOM else 0
        file.seek(place)
        for number, raw in enumerate(file, 1):
            if raw.strip():
                value = _parse(raw, f"{path}, line {number}")
                places.append(place)
                lines.append(number)
                if len(value) != len(names) or not names.keys() >= value.keys():
                    names.update(dict.fromkeys(value))
                for name, cell in value.items():
                    if isinstance(cell, str) and lists.get(name, True) and cell.strip():
                        lists[name] = _is_list(cell)
            place += len(raw)
    places.append(place)
    return JsonRows(
        path,
        tuple(names),
        np.array(places),
        np.array(lines),
        frozenset(name for name, all_lists in lists.items() if all_lists),
    )


def _parse(raw: bytes, where: str) -> dict[str, Any]:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise DataError(f"{where}: not UTF-8 text. Save the table again as UTF-8.") from None
    try:
        value = _FAST.decode(text)
        if not isinstance(value, dict) or text.count(":") != len(value):  # else no key stands twice
            value = _STRICT.decode(text)
    except (ValueError, RecursionError):
        try:  # the same error in words
            value = parse_json(text.rstrip("\r\n"), where=where)
        except ConfigError as error:
            raise DataError(str(error).replace(f"{where}, line 1:", f"{where}:")) from None
    if not isinstance(value, dict):
        raise DataError(f'{where}: expected an object such as {{"text": "..."}}, found {shorten(value)}.')
    return value


def _is_list(text: str) -> bool:
    if not looks_like_list(text):
        return False
    try:
        parse_json(text, where="list")
    except ConfigError:
        return False
    return True
