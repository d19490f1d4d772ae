"""Rows in a vector database: one entry for every modality of a row, behind five operations of the database.

Fields are kept twice: whole, as JSON, and as typed cells for filters. The cell of a field is known by
a digest of the field's name, so no name that a person wrote is ever part of a query.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from motet.index.filter import Cell, Empty, Every, Filter, Test, cell_as
from motet.index.store import Row
from motet.types import Hit

NAMESPACE = uuid.UUID("6d6f7465-7400-5000-8000-000000000001")
MOST_IDS = 512  # in one question to the database
FOUND = ["id", "modality", "fields"]  # what a search reads of an entry
KINDS: dict[str, type] = {"text": str, "number": float, "flag": bool}


@dataclass(frozen=True)
class Among:
    """A condition on what the store itself keeps of an entry."""

    column: Literal["key", "id", "modality", "first"]
    values: tuple[str, ...] | tuple[bool, ...]


Condition = Test | Among | None
"""None: every entry."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One modality of one row. `first` is true for exactly one entry of a row, which has its thumbnail."""

    key: str
    id: str
    digest: str
    modality: str
    first: bool
    fields: str
    vector: np.ndarray | None = None
    cells: Mapping[str, Mapping[str, Cell]] = field(default_factory=dict)
    thumbnail: bytes = b""


class Found(NamedTuple):
    """An entry near a query, by cosine."""

    score: float
    id: str
    modality: str
    fields: str


class Database(Protocol):
    """What `EntryStore` asks of a vector database. Conditions are joined by "and"."""

    def put(self, entries: Sequence[Entry], *, fresh: bool) -> None:
        """Add or replace by key; `fresh` promises that no key is there yet."""

    def remove(self, condition: Condition) -> None: ...

    def count(self, *conditions: Condition) -> int: ...

    def fetch(
        self, condition: Condition, *, limit: int | None = None, whole: bool = False
    ) -> Iterator[Entry]:
        """Entries in no order; `whole` ones have their vectors and thumbnails."""

    def nearest(self, queries: np.ndarray, limit: int, *conditions: Condition) -> list[list[Found]]:
        """Of each of the queries (Q, E) the nearest entries, best first."""

    def thumbnails(self, condition: Condition) -> dict[str, bytes]:
        """id -> thumbnail of those that have one."""

    def refresh(self) -> None: ...

    def stale(self) -> bool: ...

    def flush(self) -> None: ...

    def drop(self) -> None: ...


class EntryStore:
    """A `Store` over a `Database`."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._modalities: set[str] = set()  # those and the fields that were seen so far
        self._fields: set[str] = set()

    def __len__(self) -> int:
        return self.database.count(Among("first", (True,)))

    def refresh(self) -> None:
        self.database.refresh()

    def get(self, id: str) -> Row | None:
        return next(_rows(self.database.fetch(Among("id", (id,)), whole=True)), None)

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        return {entry.id: entry.digest for entry in self._entries(ids)}

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for start in range(0, len(ids), MOST_IDS):
            found |= self.database.thumbnails(Among("id", tuple(ids[start : start + MOST_IDS])))
        return found

    def _entries(self, ids: Sequence[str]) -> Iterator[Entry]:
        for start in range(0, len(ids), MOST_IDS):
            yield from self.database.fetch(Among("id", tuple(ids[start : start + MOST_IDS])))

    def has_field(self, name: str) -> bool:
        if name not in self._fields and self.database.count(Empty(name, False)) > 0:
            self._fields.add(name)
        return name in self._fields

    def fields(self) -> set[str]:
        return {name for entry in self.database.fetch(None, limit=200) for name in json.loads(entry.fields)}

    def modalities(self) -> set[str]:
        self._modalities |= {entry.modality for entry in self.database.fetch(None, limit=1000)}
        return set(self._modalities)

    def has_modality(self, name: str) -> bool:
        if name not in self._modalities and self.database.count(Among("modality", (name,))) > 0:
            self._modalities.add(name)
        return name in self._modalities

    def rows(self) -> Iterator[Row]:
        firsts = [entry.id for entry in self.database.fetch(Among("first", (True,)))]
        for start in range(0, len(firsts), MOST_IDS):
            ids = tuple(firsts[start : start + MOST_IDS])
            entries = sorted(self.database.fetch(Among("id", ids), whole=True), key=lambda e: e.id)
            yield from _rows(iter(entries))

    def write(self, put: Sequence[Row] = (), delete: Iterable[str] = ()) -> int:
        new = {row.id: row for row in put}
        entries = [entry for row in new.values() for entry in _entries_of(row)]
        keys = {entry.key for entry in entries}
        there = {entry.key: entry.id for entry in self._entries([*{*delete, *new}])}
        # A row is whole or its old digest is gone with its first entry: adding it again mends it.
        stale = [key for key in there if key not in keys]
        for start in range(0, len(stale), MOST_IDS):
            self.database.remove(Among("key", tuple(stale[start : start + MOST_IDS])))
        if entries:
            self.database.put(entries, fresh=keys.isdisjoint(there))
        return len(set(there.values()))

    def search(
        self, query: np.ndarray, top: int, *, modality: str | None = None, where: Filter | None = None
    ) -> list[Hit]:
        return self.search_many(query[None], top, modality=modality, where=where)[0]

    def search_many(
        self, queries: np.ndarray, top: int, *, modality: str | None = None, where: Filter | None = None
    ) -> list[list[Hit]]:
        conditions: list[Condition] = [] if modality is None else [Among("modality", (modality,))]
        if where is not None:
            conditions.append(where.test)
        limit = top * (1 if modality is not None else max(1, len(self._modalities)))
        hits: list[list[Hit]] = [[] for _ in queries]
        left = list(range(len(queries)))
        while left:  # entries of one row fall together: ask for more where too few rows are left
            short = []
            parts = self.database.nearest(queries[left].astype(np.float32), limit, *conditions)
            for i, found in zip(left, parts, strict=True):
                hits[i] = self._hits(found, top)
                if len(hits[i]) < top and len(found) >= limit:
                    short.append(i)
            left, limit = short, limit * 4
        return hits

    def _hits(self, found: Sequence[Found], top: int) -> list[Hit]:
        best: dict[str, Hit] = {}
        for score, id, modality, fields in found:
            self._modalities.add(modality)
            if id not in best:
                best[id] = Hit(id, score, modality, json.loads(fields))
        return sorted(best.values(), key=lambda hit: -hit.score)[:top]

    def stale(self) -> bool:
        return self.database.stale()

    def flush(self) -> None:
        self.database.flush()

    def drop(self) -> None:
        self.database.drop()


def field_key(name: str) -> str:
    """What stands for a field's name inside a database."""
    return "f" + hashlib.sha256(name.encode()).hexdigest()[:20]


def kind_of(value: Cell) -> str:
    return "flag" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def all_of(conditions: Sequence[Condition]) -> list[Test | Among]:
    """The conditions that say something, with what is joined by "and" taken apart."""
    parts: list[Test | Among] = []
    for condition in conditions:
        match condition:
            case None:
                continue
            case Every(inner):
                parts += all_of(inner)
            case _:
                parts.append(condition)
    return parts


def _entries_of(row: Row) -> Iterator[Entry]:
    fields = json.dumps(dict(row.fields), ensure_ascii=False)
    cells: dict[str, dict[str, Cell]] = {kind: {} for kind in KINDS}
    for name, cell in row.fields.items():
        for kind, type_ in KINDS.items():
            value = cell_as(cell, type_)
            if value is not None:
                cells[kind][field_key(name)] = value
    for i, (modality, vector) in enumerate(row.vectors.items()):
        key = str(uuid.uuid5(NAMESPACE, f"{modality}\0{row.id}"))
        thumbnail = row.thumbnail if i == 0 else b""
        yield Entry(key, row.id, row.digest, modality, i == 0, fields, plain_vector(vector), cells, thumbnail)


def _rows(entries: Iterator[Entry]) -> Iterator[Row]:
    """Rows of entries that come row by row."""
    parts: list[Entry] = []
    for entry in entries:
        if parts and entry.id != parts[0].id:
            yield _row(parts)
            parts = []
        parts.append(entry)
    if parts:
        yield _row(parts)


def _row(parts: Sequence[Entry]) -> Row:
    last, thumbnail = parts[-1], next((part.thumbnail for part in parts if part.thumbnail), b"")
    vectors = {part.modality: plain_vector(part.vector) for part in parts}
    return Row(last.id, last.digest, json.loads(last.fields), vectors, thumbnail)


def plain_vector(value: Any) -> np.ndarray:
    return np.asarray(value, np.float32)
