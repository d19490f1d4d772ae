"""From entries to rows with vectors: what has changed is encoded, what is broken is named."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet.data.columns import modality_name
from motet.data.quarantine import Quarantine
from motet.errors import DataError
from motet.index.store import Row, Store
from motet.index.thumbnail import thumbnail_of
from motet.predictor.cells import Broken
from motet.predictor.inputs import Entry

if TYPE_CHECKING:
    from motet.predictor import Predictor

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Added:
    """What `Index.add` did with its rows. `empty` ones hold nothing that the model can encode."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    empty: int = 0
    broken: int = 0


class Adding:
    """One run of `Index.add` over its batches."""

    def __init__(self, model: Predictor, quarantine: Quarantine) -> None:
        self.model, self.quarantine = model, quarantine
        self.unchanged = self.empty = 0
        self._seen: dict[str, str] = {}

    def written(
        self, entries: Iterator[Entry], batch: int, store: Store, write: Callable[[Sequence[Row]], int]
    ) -> Iterator[tuple[int, int, int]]:
        """Of each batch, once it is on disk: its entries, the rows put, and how many of those were there.

        One batch is written while the next one is encoded. A batch that was encoded is always written.
        """
        last: tuple[int, list[Row]] | None = None
        with ThreadPoolExecutor(1) as writer:
            try:
                while part := list(islice(entries, batch)):
                    changed = self.changed(part, store)  # asks the store before the writer is at it
                    before, last = last, None
                    writing = before and writer.submit(write, before[1])
                    try:
                        last = len(part), self.encoded(changed)
                    finally:
                        gone = writing.result() if writing else 0
                    if before is not None:
                        yield before[0], len(before[1]), gone
            finally:
                gone = write(last[1]) if last else 0
            if last is not None:
                yield last[0], len(last[1]), gone

    def changed(self, part: Sequence[Entry], store: Store) -> dict[str, tuple[str, Entry]]:
        """Of these entries those that are new or changed: id -> digest, entry.

        Raises:
            DataError: two rows with one id.
        """
        found: dict[str, tuple[str, Entry]] = {}
        for entry in part:
            keys = self.model.keys(entry)
            if isinstance(keys, Broken):
                self._leave_out(entry, keys)
                continue
            digest = digest_of(_fields(entry), keys)
            id = entry.id if entry.id is not None else digest[:16]
            if entry.id is not None and id in self._seen:
                raise DataError(
                    f"{entry.where}: the id {id!r} is that of {self._seen[id]} too; ids must differ."
                )
            if not keys:
                self.empty += 1
            elif id in self._seen:
                self.unchanged += 1
            else:
                found[id] = digest, entry
            self._seen[id] = entry.where
        known = store.digests(list(found))
        new = {id: (digest, entry) for id, (digest, entry) in found.items() if known.get(id) != digest}
        self.unchanged += len(found) - len(new)
        return new

    def encoded(self, new: Mapping[str, tuple[str, Entry]]) -> list[Row]:
        """The rows to write for these entries, with a vector for every modality that they have."""
        rows = []
        parts = self.model.encode_entries([entry for _, entry in new.values()])
        for (id, (digest, entry)), vectors in zip(new.items(), parts, strict=True):
            if isinstance(vectors, Broken):
                self._leave_out(entry, vectors)
            elif vectors:
                rows.append(Row(id, digest, _fields(entry), vectors, thumbnail_of(entry)))
            else:
                self.empty += 1
        return rows

    def _leave_out(self, entry: Entry, broken: Broken) -> None:
        cell = entry.cells.get(modality_name(broken.column))
        file = str(cell) if isinstance(cell, str | Path) else None
        table = entry.where.rpartition(", ")[0] or entry.where
        self.quarantine.add(table, entry.line, broken.column, file, broken.error.rule, str(broken.error))


def digest_of(fields: Mapping[str, Any], keys: Mapping[str, str]) -> str:
    """Of all cells, and of the content of the files that they name."""
    return hashlib.sha256(json.dumps([fields, dict(keys)], sort_keys=True).encode()).hexdigest()


def _fields(entry: Entry) -> dict[str, Any]:
    """The row as JSON values; numbers that JSON lacks become empty."""
    return {name: _plain(cell) for name, cell in entry.fields.items()}


def _plain(cell: Any) -> Any:
    match cell:
        case None | bool() | int() | str():
            return cell
        case float():
            return cell if math.isfinite(cell) else None
        case list() | tuple():
            return [_plain(item) for item in cell]
        case _:
            return str(cell)
