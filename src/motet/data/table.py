"""A user's table, whatever its file format: rows of plain cells, with the line each row came from.

A cell is a text, a number, a list of numbers (features) or None (empty). Media cells are paths
relative to the table's root; `resolve_media` is the only door from such a cell to a file.
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from motet.config import parse_json
from motet.data.csvfile import parse_csv
from motet.data.folder import read_folder
from motet.data.paths import resolve_media, shorten
from motet.errors import ConfigError, DataError

__all__ = ["Cell", "Table", "check_ids", "open_table", "resolve_media"]

Cell = str | int | float | list | None
SUPPORTED = ".csv, .tsv, .jsonl, .parquet or a folder of media"


class Table:
    """Columns of cells in memory. `root` is what media paths are relative to.

    `fingerprint` is the SHA-256 of the table's bytes (of a folder: of its files' paths and sizes),
    in hexadecimal.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        columns: Mapping[str, Sequence[Cell]],
        lines: Sequence[int],
        fingerprint: str,
        *,
        unit: str = "line",
    ) -> None:
        self.path = path
        self.root = root
        self.columns = tuple(columns)
        self.fingerprint = fingerprint
        self._cells = columns
        self._lines = lines
        self.unit = unit

    def __len__(self) -> int:
        return len(self._lines)

    def row(self, i: int) -> dict[str, Cell]:
        return {name: cells[i] for name, cells in self._cells.items()}

    def column(self, name: str) -> list[Cell]:
        return list(self._cells[name])

    def line(self, i: int) -> int:
        """Where row i starts in the file, counted from 1; its number where a file has no lines."""
        return self._lines[i]

    def where(self, i: int) -> str:
        """How messages name row i."""
        return f"{self.path}, {self.unit} {self.line(i)}"


def open_table(path: str | Path, *, root: Path | None = None) -> Table:
    """Read CSV, TSV, JSONL, Parquet, or a folder (see `motet.data.folder`).

    `root` defaults to the folder of the table.

    Raises:
        DataError: missing, empty, of an unknown format, broken at a named line, or with an id twice.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder (looked from {Path.cwd()}). Check the path.")
    if path.is_dir():
        inside = [
            p for p in sorted(path.iterdir()) if p.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet")
        ]
        if len(inside) == 1:  # a folder of media with its table beside them
            return open_table(inside[0], root=root)
        columns, fingerprint = read_folder(path)
        count = len(next(iter(columns.values())))
        table = Table(path, path, columns, range(1, count + 1), fingerprint, unit="row")
    else:
        table = _read_file(path, path.parent if root is None else root)
    if not len(table):
        raise DataError(f"{path}: no rows below the header. A table needs at least one row.")
    check_ids(table, next((name for name in table.columns if name.lower() == "id"), None))
    return table


def check_ids(table: Table, column: str | None) -> None:
    """Raises DataError, naming both rows, where two rows of `column` hold the same id."""
    first: dict[str, int] = {}
    for i, cell in enumerate(table.column(column) if column else ()):
        if cell is None:
            continue
        before = first.setdefault(str(cell), i)
        if before != i:
            raise DataError(
                f"{table.where(i)}: the id {shorten(cell)} in column {column!r} already stands in "
                f"{table.unit} {table.line(before)}. Make ids unique, or rename the column if it is no id."
            )


def _read_file(path: Path, root: Path) -> Table:
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path}: not a regular file. A table is {SUPPORTED}.")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    fingerprint = hashlib.sha256(data).hexdigest()
    unit = "line"
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    match path.suffix.lower():
        case ".csv" | ".tsv" as suffix:
            columns, lines = parse_csv(decode(data, path), path, tabs=suffix == ".tsv")
        case ".jsonl" | ".ndjson":
            columns, lines = _parse_jsonl(decode(data, path), path)
        case ".parquet":
            columns, lines = _parse_parquet(data, path)
            unit = "row"
        case suffix:
            raise DataError(
                f"{path}: {suffix or 'a file without an ending'} is not a table. Use {SUPPORTED}."
            )
    columns = {name: _clean(cells) for name, cells in columns.items()}
    return Table(path, root, columns, lines, fingerprint, unit=unit)


def decode(data: bytes, path: Path) -> str:
    """UTF-8, with or without a byte order mark.

    Raises:
        DataError: other bytes, naming the line.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 text. Save the table again as UTF-8.") from None


def _parse_jsonl(text: str, path: Path) -> tuple[dict[str, list[Cell]], list[int]]:
    rows: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            value = parse_json(line, where=where)
        except ConfigError as error:
            raise DataError(str(error).replace(f"{where}, line 1:", f"{where}:")) from None
        if not isinstance(value, dict):
            raise DataError(f'{where}: expected an object such as {{"text": "..."}}, found {shorten(value)}.')
        rows.append((number, value))
    names = dict.fromkeys(name for _, value in rows for name in value)
    columns = {name: [value.get(name) for _, value in rows] for name in names}
    return columns, [number for number, _ in rows]


def _parse_parquet(data: bytes, path: Path) -> tuple[dict[str, list[Cell]], Sequence[int]]:
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a readable Parquet file: {reason}. Write it again.") from None
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"{path}: the column {twice[0]!r} stands twice. Rename one.")
    return {name: table.column(name).to_pylist() for name in table.column_names}, range(1, table.num_rows + 1)


def _clean(cells: Sequence[Any]) -> list[Cell]:
    """Plain cells; a column whose every text is a JSON list of numbers becomes lists."""
    plain = [_cell(cell) for cell in cells]
    texts = [cell for cell in plain if isinstance(cell, str)]
    if texts and all(text.startswith("[") and text.endswith("]") for text in texts):
        try:
            return [parse_json(c, where="list") if isinstance(c, str) else c for c in plain]
        except ConfigError:
            return plain  # "[music]" is a text
    return plain


def _cell(value: Any) -> Any:
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case str():
            return value if value.strip() else None
        case float():
            return None if math.isnan(value) else value
        case int() | list() | dict() | bytes():
            return value
        case _:
            return str(value)
