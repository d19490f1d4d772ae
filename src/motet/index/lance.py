"""LanceDB: embedded, crash-atomic, read and written by several processes (extra `index`).

Its tables lie in a folder or an object store (s3://, gs://, az://, file://), whose credentials and
settings LanceDB takes from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, GOOGLE_SERVICE_ACCOUNT, ...).

An approximate index (IVF, RaBitQ codes; candidates are compared again by their full vectors) is
built once there are enough rows that scanning them all is slow; newer rows are scanned until it is
brought up to date. Under a filter more of it is searched, the more the fewer rows are left, and none
of it where so few are left that comparing them all is fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from motet.errors import DataError, StorageError, missing_extra
from motet.index.entries import Among, Condition, Entry, all_of, field_key, kind_of
from motet.index.filter import Compare, Empty, Every, Some

if TYPE_CHECKING:
    from lancedb.table import Table

INDEX_FROM = 50_000  # entries, below which scanning all is fast enough
TEND_AFTER = 64  # small files, after which they are merged
UNINDEXED = 0.1  # of the entries, which are scanned, before the index takes them in
FEW = 1_000  # entries left by a filter, which are all compared
PROBES, PROBES_FOR = 30, 200_000  # lists of the index that are searched, for so many entries
BITS = 4  # a dimension in the codes of the index: 1 needs four times the candidates
REFINE = 4  # candidates compared again for every row wanted
ENTRY = ["key", "id", "digest", "modality", "first", "fields"]
WHOLE = ["thumbnail", "vector"]
ENDINGS = {".lance": b"LANC", ".idx": b"LANC", ".manifest": b"LANC", ".arrow": b"ARROW1"}
PREFIX = {"text": "t", "number": "n", "flag": "b"}
TYPES = {"text": pa.string(), "number": pa.float64(), "flag": pa.bool_()}


class LanceDatabase:
    """A `Database` at a folder or an address of an object store."""

    def __init__(self, place: Path | str, width: int) -> None:
        try:
            import lancedb
        except ImportError:
            raise missing_extra("index", "lancedb", "the store lancedb") from None
        self.place, self.width = place, width
        self._folder = _local(place)
        self._built = False
        with _storing(place):
            self._connection = lancedb.connect(str(place), read_consistency_interval=timedelta(0))
            schema = pa.schema(
                [
                    *(pa.field(name, pa.bool_() if name == "first" else pa.string()) for name in ENTRY),
                    pa.field("thumbnail", pa.binary()),
                    pa.field("vector", pa.list_(pa.float32(), width)),
                ]
            )
            there = "rows" in (self._connection.list_tables().tables or ())
            self._table: Table = (
                self._connection.open_table("rows")
                if there
                else self._connection.create_table("rows", schema=schema)
            )

    def refresh(self) -> None:
        """Every read sees the newest commit."""

    def put(self, entries: Sequence[Entry], *, fresh: bool) -> None:
        with self._committing():
            self._add_columns(entries)
            data = self._arrow(entries)
            if fresh:
                self._table.add(data)
            else:
                merge = self._table.merge_insert("key")
                merge.when_matched_update_all().when_not_matched_insert_all().execute(data)

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """A write that counts only if its files are whole: on a full disk LanceDB commits files cut short."""
        before = self._files()
        with _storing(self.place):
            yield
        new = self._files() - before
        if any(not _whole(path) for path in new):
            for path in new:
                if path.suffix == ".manifest":
                    path.unlink()
            self._table.checkout_latest()
            raise _unwritten(self.place, "a file was cut short; the disk may be full")

    def _files(self) -> set[Path]:
        if self._folder is None:  # an object store has a whole object or none
            return set()
        return {path for path in (self._folder / "rows.lance").rglob("*") if path.suffix in ENDINGS}

    def _tend(self) -> None:
        with self._committing():
            self._table.optimize(cleanup_older_than=timedelta(hours=1))

    def _add_columns(self, entries: Sequence[Entry]) -> None:
        known = set(self._table.schema.names)
        wanted = {
            PREFIX[kind] + name: TYPES[kind]
            for entry in entries
            for kind, cells in entry.cells.items()
            for name in cells
        }
        new = [pa.field(name, type_) for name, type_ in sorted(wanted.items()) if name not in known]
        if new:
            self._table.add_columns(new)

    def _arrow(self, entries: Sequence[Entry]) -> pa.Table:
        columns: dict[str, Any] = {}
        for column in self._table.schema:
            if column.name == "vector":
                flat = np.concatenate([np.asarray(e.vector, np.float32) for e in entries])
                columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), self.width)
            elif column.name in (*ENTRY, "thumbnail"):
                columns[column.name] = pa.array([getattr(e, column.name) for e in entries], column.type)
            else:
                kind = next(kind for kind, prefix in PREFIX.items() if column.name[0] == prefix)
                cells = [e.cells[kind].get(column.name[1:]) for e in entries]
                columns[column.name] = pa.array(cells, column.type)
        return pa.table(columns, schema=self._table.schema)

    def remove(self, condition: Condition) -> None:
        with self._committing():
            self._table.delete(self._sql(condition) or "true")

    def count(self, *conditions: Condition) -> int:
        with _reading(self.place):
            return self._table.count_rows(self._sql(*conditions))

    def fetch(
        self, condition: Condition, *, limit: int | None = None, whole: bool = False
    ) -> Iterator[Entry]:
        for row in self._rows([*ENTRY, *(WHOLE if whole else [])], condition, limit=limit):
            yield Entry(**row)

    def _rows(
        self, columns: list[str], *conditions: Condition, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        with _reading(self.place):
            query = self._table.search().select(columns)
            sql = self._sql(*conditions)
            query = query.where(sql) if sql else query
            found = query.limit(limit).to_arrow()
        for batch in found.to_batches():
            yield from batch.to_pylist()

    def thumbnails(self, condition: Condition) -> dict[str, bytes]:
        rows = self._rows(["id", "thumbnail"], condition, Among("first", (True,)))
        return {row["id"]: row["thumbnail"] for row in rows if row["thumbnail"]}

    def nearest(self, query: np.ndarray, limit: int, *conditions: Condition) -> list[tuple[float, Entry]]:
        sql = self._sql(*conditions)
        with _reading(self.place):
            search: Any = self._table.search(query, vector_column_name="vector")
            search = search.distance_type("cosine").limit(limit).select([*ENTRY, "_distance"])
            search = search.where(sql, prefilter=True) if sql else search
            rows = (self._how(search, sql) if self._indexed() else search).to_arrow().to_pylist()
        return [(1 - row.pop("_distance"), Entry(**row)) for row in rows]

    def _how(self, search: Any, sql: str | None) -> Any:
        """As much of the index as a filter needs, so that enough of what it leaves is seen."""
        total = self._table.count_rows()
        left = self._table.count_rows(sql) if sql else total
        if left <= FEW:
            return search.bypass_vector_index()
        lists = PROBES * max(1.0, (total / PROBES_FOR) ** 0.5) + (2 * total / left if sql else 0)
        return search.nprobes(round(lists)).refine_factor(REFINE)

    def _indexed(self) -> bool:
        self._built = self._built or any("vector" in index.columns for index in self._table.list_indices())
        return self._built

    def stale(self) -> bool:
        stats: Any = self._table.stats()  # a plain dict, whatever its annotation says
        if stats["fragment_stats"]["num_small_fragments"] >= TEND_AFTER:
            return True
        rows = self._table.count_rows()
        return rows >= INDEX_FROM and (not self._indexed() or self._unindexed() > UNINDEXED * rows)

    def _unindexed(self) -> int:
        found = self._table.index_stats("vector_idx")
        return 0 if found is None else found.num_unindexed_rows

    def flush(self) -> None:
        """Small files are merged and the index takes in what is new; it is built once it pays."""
        self._tend()
        if self._indexed() or self._table.count_rows() < INDEX_FROM:
            return
        from lancedb.index import Bitmap, BTree, IvfRq

        with self._committing():
            self._table.create_index("vector", config=IvfRq(distance_type="cosine", num_bits=BITS))
            for name in ("key", "id"):
                self._table.create_index(name, config=BTree())
            for name in ("modality", "first"):
                self._table.create_index(name, config=Bitmap())
            for column in self._table.schema:
                if column.name[0] == "n" and column.name not in ENTRY:
                    self._table.create_index(column.name, config=BTree())

    def drop(self) -> None:
        with _storing(self.place):
            self._connection.drop_table("rows")

    def _sql(self, *conditions: Condition) -> str | None:
        """SQL whose names are digests and whose values are literals made here: nothing is pasted."""
        parts = all_of(conditions)
        known = set(self._table.schema.names) if parts else set()
        return " AND ".join(_sql_of(part, known) for part in parts) or None


def _sql_of(condition: Condition, known: set[str]) -> str:  # noqa: PLR0911
    match condition:
        case Among(column, values):
            return f"{column} IN ({', '.join(_literal(value) for value in values)})"
        case Compare(name, sign, value):
            cell = PREFIX[kind_of(value)] + field_key(name)
            return f"({cell} {sign} {_literal(value)})" if cell in known else "false"
        case Empty(name, wanted):
            cell = PREFIX["text"] + field_key(name)
            if cell not in known:
                return "true" if wanted else "false"
            return f"({cell} IS {'' if wanted else 'NOT '}NULL)"
        case Every(parts):
            return f"({' AND '.join(_sql_of(part, known) for part in parts)})"
        case Some(parts):
            return f"({' OR '.join(_sql_of(part, known) for part in parts)})"
    return "true"


def _literal(value: str | float | bool) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case _:
            return repr(float(value))


@contextmanager
def _storing(place: Path | str) -> Iterator[None]:
    """LanceDB raises OSError, RuntimeError or ValueError for what goes wrong below it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise _unwritten(place, _first_line(error)) from None


def _local(place: Path | str) -> Path | None:
    """The folder that an address names; None for an object store."""
    if isinstance(place, str):
        return Path(unquote(urlsplit(place).path)) if place.startswith("file://") else None
    return place


def _unwritten(place: Path | str, reason: str) -> StorageError:
    return StorageError(
        f"{place}: cannot write the index: {reason}. What was committed before is whole; free some "
        "space or correct the permissions and run it again."
    )


def _whole(path: Path) -> bool:
    """Whether a file has the ending that its format puts last."""
    ending = ENDINGS[path.suffix]
    with suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(ending)))
        return file.read() == ending
    return True  # merged away meanwhile


@contextmanager
def _reading(place: Path | str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{place}: cannot be read: {_first_line(error)}. If files of it were lost, build it again "
            "with: motet index MODEL TABLE --out NEW"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
