"""LanceDB: embedded, crash-atomic, read and written by several processes (extra `index`).

Its tables lie in a folder or an object store (s3://, gs://, az://, file://), whose credentials and
settings LanceDB takes from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT, GOOGLE_SERVICE_ACCOUNT, ...).

An approximate index (IVF, RaBitQ codes; candidates are compared again by their full vectors) is
built once there are enough rows that scanning them all is slow; newer rows are scanned until it is
brought up to date. Under a filter more of it is searched, the more the fewer rows are left, and none
of it where so few are left that comparing them all is fast.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from motet.errors import missing_extra
from motet.index.entries import FOUND, Among, Condition, Entry, Found, all_of
from motet.index.lance_files import ENDINGS, local, reading, storing, unwritten, whole
from motet.index.lance_tuning import Tuning, index_fields, lists_for, near, tune, tuning_of
from motet.index.sql import PREFIX, sql_of

if TYPE_CHECKING:
    from lancedb.table import AsyncTable

T = TypeVar("T")

INDEX_FROM = 50_000  # entries, below which scanning all is fast enough
TEND_AFTER = 64  # small files, after which they are merged
UNINDEXED = 0.1  # of the entries, which are scanned, before the index takes them in
FEW = 400  # entries left by a filter, up to which reading and comparing them all is faster
BITS = 4  # a dimension in the codes of the index: 1 needs four times the candidates
AT_ONCE = 16  # queries that are under way together
HIT = "hit"  # id, modality and fields in one cell: each column that a search reads is a read of its own
ENTRY = ["key", "id", "digest", "modality", "first", HIT]
WHOLE = ["thumbnail", "vector"]
TYPES = {"text": pa.string(), "number": pa.float64(), "flag": pa.bool_()}


class LanceDatabase:
    """A `Database` at a folder or an address of an object store."""

    def __init__(self, place: Path | str, width: int) -> None:
        try:
            import lancedb
        except ImportError:
            raise missing_extra("index", "lancedb", "the store lancedb") from None
        self.place, self.width = place, width
        self._folder = local(place)
        self._built = False
        self._tuning: Tuning | None = None
        with storing(place):
            self._connection = _run(lancedb.connect_async(str(place), read_consistency_interval=timedelta(0)))
            schema = pa.schema(
                [
                    *(pa.field(name, pa.bool_() if name == "first" else pa.string()) for name in ENTRY),
                    pa.field("thumbnail", pa.binary()),
                    pa.field("vector", pa.list_(pa.float32(), width)),
                ]
            )
            there = "rows" in (_run(self._connection.list_tables()).tables or ())
            self._table: AsyncTable = _run(
                self._connection.open_table("rows")
                if there
                else self._connection.create_table("rows", schema=schema)
            )
            before_hit = HIT not in _run(self._table.schema()).names  # made by an earlier Motet
        self._entry = [*ENTRY[:-1], "fields"] if before_hit else ENTRY
        self._found = FOUND if before_hit else [HIT]

    def refresh(self) -> None:
        """Every read sees the newest commit."""

    def put(self, entries: Sequence[Entry], *, fresh: bool) -> None:
        with self._committing():
            self._add_columns(entries)
            data = self._arrow(entries)
            if fresh:
                _run(self._table.add(data))
            else:
                merge = self._table.merge_insert("key")
                merge = merge.when_matched_update_all().when_not_matched_insert_all()
                _run(merge.execute(data))

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """A write that counts only if its files are whole: on a full disk LanceDB commits files cut short."""
        before = self._files()
        with storing(self.place):
            yield
        new = self._files() - before
        if any(not whole(path) for path in new):
            for path in new:
                if path.suffix == ".manifest":
                    path.unlink()
            _run(self._table.checkout_latest())
            raise unwritten(self.place, "a file was cut short; the disk may be full")

    def _files(self) -> set[Path]:
        if self._folder is None:  # an object store has a whole object or none
            return set()
        return {path for path in (self._folder / "rows.lance").rglob("*") if path.suffix in ENDINGS}

    def _add_columns(self, entries: Sequence[Entry]) -> None:
        known = set(_run(self._table.schema()).names)
        wanted = {
            PREFIX[kind] + name: TYPES[kind]
            for entry in entries
            for kind, cells in entry.cells.items()
            for name in cells
        }
        new = [pa.field(name, type_) for name, type_ in sorted(wanted.items()) if name not in known]
        if new:
            _run(self._table.add_columns(new))

    def _arrow(self, entries: Sequence[Entry]) -> pa.Table:
        columns: dict[str, Any] = {}
        schema = _run(self._table.schema())
        for column in schema:
            if column.name == "vector":
                flat = np.concatenate([np.asarray(e.vector, np.float32) for e in entries])
                columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), self.width)
            elif column.name == HIT:
                columns[HIT] = pa.array([hit_cell(e.id, e.modality, e.fields) for e in entries])
            elif column.name in (*self._entry, "thumbnail"):
                columns[column.name] = pa.array([getattr(e, column.name) for e in entries], column.type)
            else:
                kind = next(kind for kind, prefix in PREFIX.items() if column.name[0] == prefix)
                cells = [e.cells[kind].get(column.name[1:]) for e in entries]
                columns[column.name] = pa.array(cells, column.type)
        return pa.table(columns, schema=schema)

    def remove(self, condition: Condition) -> None:
        with self._committing():
            _run(self._delete(condition))

    async def _delete(self, condition: Condition) -> None:
        await self._table.delete(await self._sql(condition) or "true")

    def count(self, *conditions: Condition) -> int:
        with reading(self.place):
            return _run(self._count(*conditions))

    async def _count(self, *conditions: Condition) -> int:
        return await self._table.count_rows(await self._sql(*conditions))

    def fetch(
        self, condition: Condition, *, limit: int | None = None, whole: bool = False
    ) -> Iterator[Entry]:
        for row in self._rows([*self._entry, *(WHOLE if whole else [])], condition, limit=limit):
            yield Entry(**_opened(row))

    def _rows(
        self, columns: list[str], *conditions: Condition, limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        with reading(self.place):
            found = _run(self._scan(columns, *conditions, limit=limit))
        for batch in found.to_batches():
            yield from batch.to_pylist()

    async def _scan(self, columns: list[str], *conditions: Condition, limit: int | None) -> pa.Table:
        query = self._table.query().select(columns)
        sql = await self._sql(*conditions)
        query = query.where(sql) if sql else query
        return await (query if limit is None else query.limit(limit)).to_arrow()

    def thumbnails(self, condition: Condition) -> dict[str, bytes]:
        rows = self._rows(["id", "thumbnail"], condition, Among("first", (True,)))
        return {row["id"]: row["thumbnail"] for row in rows if row["thumbnail"]}

    def nearest(self, queries: np.ndarray, limit: int, *conditions: Condition) -> list[list[Found]]:
        with reading(self.place):
            return _run(self._nearest(queries, limit, *conditions))

    async def _nearest(self, queries: np.ndarray, limit: int, *conditions: Condition) -> list[list[Found]]:
        """All in one go: each call from another thread costs as much as a part of the search."""
        sql = await self._sql(*conditions)
        how = await self._how(sql) if await self._indexed() else None
        found: list[list[Found]] = []
        for start in range(0, len(queries), AT_ONCE):
            part = queries[start : start + AT_ONCE]
            found += await asyncio.gather(*(self._nearest_to(query, limit, sql, how) for query in part))
        return found

    async def _nearest_to(
        self, query: np.ndarray, limit: int, sql: str | None, how: Tuning | None
    ) -> list[Found]:
        found = await near(self._table, query, limit, self._found, how, sql)
        rows = found.to_pylist()
        return [Found(1 - row.pop("_distance"), **_opened(row)) for row in rows]

    async def _how(self, sql: str | None) -> Tuning | None:
        """As many lists that as much is seen under a filter as without; None: compare all."""
        if self._tuning is None:
            self._tuning = await tuning_of(self._table)
        if sql is None:
            return self._tuning
        left = await self._table.count_rows(sql)
        if left <= FEW:
            return None
        probes = self._tuning.probes * await self._table.count_rows() / left
        return replace(self._tuning, probes=round(probes))

    async def _indexed(self) -> bool:
        if not self._built:
            self._built = any("vector" in index.columns for index in await self._table.list_indices())
        return self._built

    def stale(self) -> bool:
        return _run(self._stale())

    async def _stale(self) -> bool:
        stats: Any = await self._table.stats()  # a plain dict, whatever its annotation says
        if stats["fragment_stats"]["num_small_fragments"] >= TEND_AFTER:
            return True
        rows = await self._table.count_rows()
        if rows < INDEX_FROM or not await self._indexed():
            return rows >= INDEX_FROM
        found = await self._table.index_stats("vector_idx")
        return found is not None and found.num_unindexed_rows > UNINDEXED * rows

    def flush(self) -> None:
        """Small files are merged and the index takes in what is new; it is built once it pays."""
        with self._committing():
            _run(self._table.optimize(cleanup_older_than=timedelta(hours=1)))
        if _run(self._indexed()) or _run(self._table.count_rows()) < INDEX_FROM:
            return
        with self._committing():
            _run(self._build())

    async def _build(self) -> None:
        from lancedb.index import Bitmap, BTree, IvfRq

        for name in ("key", "id"):
            await self._table.create_index(name, config=BTree())
        for name in ("modality", "first"):
            await self._table.create_index(name, config=Bitmap())
        await index_fields(self._table)
        lists = lists_for(await self._table.count_rows())
        codes = IvfRq(distance_type="cosine", num_bits=BITS, num_partitions=lists)
        await self._table.create_index("vector", config=codes)
        await tune(self._table)

    def drop(self) -> None:
        with storing(self.place):
            _run(self._connection.drop_table("rows"))

    async def _sql(self, *conditions: Condition) -> str | None:
        parts = all_of(conditions)
        known = set((await self._table.schema()).names) if parts else set()
        return " AND ".join(sql_of(part, known) for part in parts) or None


def hit_cell(id: str, modality: str, fields: str) -> str:
    """What a search reads of an entry, in one cell: three lines of JSON, in which no line breaks."""
    return "\n".join([json.dumps(id), json.dumps(modality), fields])


def _opened(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table with its id, modality and fields."""
    if HIT in row:
        id, modality, row["fields"] = row.pop(HIT).split("\n", 2)
        row["id"], row["modality"] = json.loads(id), json.loads(modality)
    return row


def _run(asked: Coroutine[Any, Any, T]) -> T:
    """What LanceDB answers; its loop runs in a thread of its own, since the caller may be in another."""
    from lancedb.background_loop import LOOP

    return LOOP.run(asked)
