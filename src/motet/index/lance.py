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
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa

from motet.errors import missing_extra
from motet.index.entries import FOUND, Among, Condition, Entry, Found, all_of
from motet.index.lance_files import ENDINGS, local, reading, storing, unwritten, whole
from motet.index.sql import PREFIX, sql_of

if TYPE_CHECKING:
    from lancedb.table import AsyncTable

T = TypeVar("T")

INDEX_FROM = 50_000  # entries, below which scanning all is fast enough
TEND_AFTER = 64  # small files, after which they are merged
UNINDEXED = 0.1  # of the entries, which are scanned, before the index takes them in
FEW = 400  # entries left by a filter, up to which reading and comparing them all is faster
LISTS, PROBES, FOR = 200, 30, 200_000  # of the index, and those searched; for so many entries, else by root
BITS = 4  # a dimension in the codes of the index: 1 needs four times the candidates
AT_ONCE = 16  # queries that are under way together
REFINE = 4  # candidates compared again for every row wanted
ENTRY = ["key", "id", "digest", "modality", "first", "fields"]
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
        self._built, self._probes = False, 0.0
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
            elif column.name in (*ENTRY, "thumbnail"):
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
        for row in self._rows([*ENTRY, *(WHOLE if whole else [])], condition, limit=limit):
            yield Entry(**row)

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
        self, query: np.ndarray, limit: int, sql: str | None, lists: int | None
    ) -> list[Found]:
        search = self._table.query().nearest_to(query).column("vector").distance_type("cosine")
        search = search.limit(limit).select([*FOUND, "_distance"])
        search = search.where(sql) if sql else search
        if lists is None:
            search = search.bypass_vector_index()
        else:
            search = search.nprobes(lists).refine_factor(REFINE)
        rows = (await search.to_arrow()).to_pylist()
        return [Found(1 - row.pop("_distance"), **row) for row in rows]

    async def _how(self, sql: str | None) -> int | None:
        """How many lists to search, so that as much is seen under a filter as without; None: compare all."""
        if not self._probes:  # not counted again: the index keeps the number of its lists
            self._probes = PROBES * max(1.0, (await self._table.count_rows() / FOR) ** 0.5)
        if sql is None:
            return round(self._probes)
        left = await self._table.count_rows(sql)
        return None if left <= FEW else round(self._probes * await self._table.count_rows() / left)

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

        lists = max(1, round(LISTS * (await self._table.count_rows() / FOR) ** 0.5))
        codes = IvfRq(distance_type="cosine", num_bits=BITS, num_partitions=lists)
        await self._table.create_index("vector", config=codes)
        for name in ("key", "id"):
            await self._table.create_index(name, config=BTree())
        for name in ("modality", "first"):
            await self._table.create_index(name, config=Bitmap())
        for column in await self._table.schema():
            if column.name[0] == "n" and column.name not in ENTRY:
                await self._table.create_index(column.name, config=BTree())

    def drop(self) -> None:
        with storing(self.place):
            _run(self._connection.drop_table("rows"))

    async def _sql(self, *conditions: Condition) -> str | None:
        parts = all_of(conditions)
        known = set((await self._table.schema()).names) if parts else set()
        return " AND ".join(sql_of(part, known) for part in parts) or None


def _run(asked: Coroutine[Any, Any, T]) -> T:
    """What LanceDB answers; its loop runs in a thread of its own, since the caller may be in another."""
    from lancedb.background_loop import LOOP

    return LOOP.run(asked)
