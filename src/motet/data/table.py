"""A user's table, whatever its source: rows of plain cells, with the line each row came from.

A cell is a text, a number, a list (features, or labels), media content (`Blob`) or None (empty). Other
media cells are paths relative to the table's root; `resolve_media` is the only door from such a cell
to a file. Tables larger than SMALL stay in their files: opening one takes memory for the places of its
rows only.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from motet.data.arrow import SMALL, is_saved_dataset, read_arrow, read_parquet, read_saved_dataset
from motet.data.csvfile import read_csv
from motet.data.folder import read_folder
from motet.data.jsonlines import read_jsonl
from motet.data.paths import resolve_media, shorten
from motet.data.rows import Cell, MemoryRows, Rows, TextRows
from motet.data.shards import expand, is_pattern, read_shards
from motet.errors import DataError

__all__ = ["Cell", "Table", "check_ids", "open_table", "resolve_media"]

FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather")
SUPPORTED = (
    ".csv, .tsv, .jsonl, .parquet, .arrow, .feather, .tar shards, a folder of media, or one that "
    "`datasets` saved"
)
SAMPLED = 2**30  # bytes above which a file's fingerprint is that of samples of it


class Table:
    """Rows of named columns. `root` is what media paths are relative to.

    `fingerprint` is the SHA-256, in hexadecimal, of the table's bytes (of a folder: of its files' paths
    and sizes; of files above 1 GiB: of their size and 1 MiB in every 64).
    """

    def __init__(self, path: Path, root: Path, rows: Rows, fingerprint: str, *, unit: str = "line") -> None:
        self.path = path
        self.root = root
        self.columns, self.classes = rows.names, rows.classes
        self.fingerprint = fingerprint
        self.unit = unit
        self.unique: set[str] = set()  # columns whose cells were found to differ
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, i: int) -> dict[str, Cell]:
        return self._rows.row(i)

    def column(self, name: str) -> Sequence[Cell]:
        """All cells of a column. Of a large table they are read when asked for: one by one is slow."""
        return self._rows.column(name)

    def iterate(self, names: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
        """The named cells of every row, in order; no more than a few rows are in memory."""
        return self._rows.iterate(names) if names else iter([()] * len(self))

    def line(self, i: int) -> int:
        """Where row i starts in the file, counted from 1; its number where a file has no lines."""
        return self._rows.line(i)

    def where(self, i: int) -> str:
        """How messages name row i."""
        return f"{self.path}, {self.unit} {self.line(i)}"


def open_table(path: str | Path, *, root: Path | None = None, remote: bool = False) -> Table:
    """Open CSV, TSV, JSONL, Parquet, Arrow or Feather, tar shards, or a folder (see `motet.data.folder`).

    Shards are one .tar, a folder of them, or a pattern such as "part-{000..012}.tar" or "part-*.tar".
    `root` defaults to the folder of the table. `remote` allows addresses (s3://..., gs://..., hf:NAME).

    Raises:
        DataError: missing, empty, of an unknown format, broken at a named line, or with an id twice.
        ConfigError: an address that is not allowed, or whose package is not installed.
    """
    from motet.data.remote import fetch, is_address, read_hub

    if is_address(path):
        if str(path).startswith("hf:"):
            table = read_hub(str(path), remote=remote)
            return _sound(Table(Path(str(path)), root or Path(), *table, unit="row"))
        path = fetch(str(path), remote=remote)
    elif is_pattern(str(path)) and not Path(path).exists():
        shards = expand(str(path))
        return _sound(_shards(Path(path), shards, root or shards[0].parent))
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder (looked from {Path.cwd()}). Check the path.")
    return _sound(_open_folder(path, root) if path.is_dir() else _open_file(path, root or path.parent))


def _sound(table: Table) -> Table:
    if not len(table):
        raise DataError(f"{table.path}: no rows below the header. A table needs at least one row.")
    check_ids(table, next((name for name in table.columns if name.lower() == "id"), None))
    return table


def check_ids(table: Table, column: str | None) -> None:
    """Raises DataError, naming both rows, where two rows of `column` hold the same id."""
    if column is None or column in table.unique:
        return
    table.unique.add(column)
    # 8 bytes a row; the rare rows of equal hash are compared themselves
    seen = np.fromiter((0 if c is None else hash(str(c)) for (c,) in table.iterate([column])), np.int64)
    order = np.argsort(seen, kind="stable")
    same = np.flatnonzero((seen[order][1:] == seen[order][:-1]) & (seen[order][1:] != 0))
    for k in same[np.argsort(order[same + 1], kind="stable")].tolist():
        before, i = int(order[k]), int(order[k + 1])
        cell = table.column(column)[i]
        if str(cell) == str(table.column(column)[before]):
            raise DataError(
                f"{table.where(i)}: the id {shorten(cell)} in column {column!r} already stands in "
                f"{table.unit} {table.line(before)}. Make ids unique, or rename the column if it is no id."
            )


def _open_folder(path: Path, root: Path | None) -> Table:
    if is_saved_dataset(path):
        arrows = sorted(path.rglob("*.arrow"))
        fingerprint = _fingerprint(arrows)
        return Table(path, root or path, read_saved_dataset(path, fingerprint), fingerprint, unit="row")
    entries = sorted(path.iterdir())
    inside = [p for p in entries if p.suffix.lower() in FILES]
    if len(inside) == 1:  # a folder of media with its table beside them
        return _open_file(inside[0], root or path)
    shards = [p for p in entries if p.suffix.lower() == ".tar"]
    if shards and not inside:
        return _shards(path, shards, root or path)
    columns, fingerprint = read_folder(path)
    return Table(path, path, MemoryRows(columns), fingerprint, unit="row")


def _shards(path: Path, shards: Sequence[Path], root: Path) -> Table:
    rows = read_shards(shards)
    return Table(path, root, rows, _fingerprint(shards), unit="sample")


def _open_file(path: Path, root: Path) -> Table:
    if not stat.S_ISREG(path.stat().st_mode):
        raise DataError(f"{path}: not a regular file. A table is {SUPPORTED}.")
    if path.suffix.lower() == ".tar":
        return _shards(path, [path], root)
    if path.suffix.lower() not in FILES:
        kind = path.suffix.lower() or "a file without an ending"
        raise DataError(f"{path}: {kind} is not a table. Use {SUPPORTED}.")
    fingerprint = _fingerprint([path])
    rows: Rows
    match path.suffix.lower():
        case ".csv" | ".tsv" as suffix:
            rows = _in_memory_if_small(read_csv(path, tabs=suffix == ".tsv"))
        case ".jsonl" | ".ndjson":
            rows = _in_memory_if_small(read_jsonl(path))
        case ".parquet":
            return Table(path, root, read_parquet(path, fingerprint), fingerprint, unit="row")
        case _:
            return Table(path, root, read_arrow(path, fingerprint), fingerprint, unit="row")
    return Table(path, root, rows, fingerprint)


def _in_memory_if_small(rows: TextRows) -> Rows:
    if rows.path.stat().st_size > SMALL // 4:  # cells in Python take several times their bytes
        return rows
    cells = zip(*rows.iterate(rows.names), strict=True)
    columns = {name: list(column) for name, column in zip(rows.names, cells, strict=False)}
    return MemoryRows({name: columns.get(name, []) for name in rows.names}, rows.all_lines())


def _fingerprint(paths: Sequence[Path]) -> str:
    digests = [_file_digest(path) for path in paths]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            if size <= SAMPLED:
                return hashlib.file_digest(file, "sha256").hexdigest()
            digest = hashlib.sha256(str(size).encode())
            for place in (*range(0, size, 64 * 2**20), max(0, size - 2**20)):
                file.seek(place)
                digest.update(file.read(2**20))
            return digest.hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
