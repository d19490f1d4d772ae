"""`Index`: rows of tables under one model, found by anything that the model can encode."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.data.columns import modality_name
from motet.data.quarantine import Quarantine
from motet.errors import ConfigError, DataError, MismatchError
from motet.index.exact import ExactStore, ModelRef
from motet.index.filter import Filter, parse_filter
from motet.index.segment import Row
from motet.predictor.cells import Broken
from motet.predictor.inputs import Entry
from motet.types import Hit

if TYPE_CHECKING:
    from motet.data.table import Table
    from motet.predictor import Predictor

Progress = Callable[[int, int, str], None]
BATCH = 256


@dataclass(frozen=True)
class Added:
    """What `Index.add` did with its rows. `empty` ones hold nothing that the model can encode."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0
    empty: int = 0
    broken: int = 0


class Index:
    """Vectors of rows, one for every modality of a row, in a folder on disk.

    Adding is idempotent: a row whose id and content are there already is not encoded again. What
    `add` and `delete` have returned survives a crash; several processes may use one index.
    """

    def __init__(self, path: Path, store: ExactStore, model: Predictor | None) -> None:
        self.path = path
        self._store = store
        self._model = model

    @classmethod
    def create(cls, path: str | Path, model: Predictor | str | Path, store: str = "exact") -> Index:
        """A new, empty index of this model's vectors.

        Raises:
            ConfigError: something is at `path` already; an unknown store; a model without a shared space.
            StorageError: it cannot be written.
        """
        path, model = Path(path), _as_predictor(model)
        if store != "exact":
            raise ConfigError(f"store {store!r}: unknown. There is: exact.")
        if model.width == 0:
            raise ConfigError(
                f"{model.folder}: was trained without a shared space, so its rows cannot be compared. "
                "Train it with: motet fit TABLE --retrieval"
            )
        absolute = model.folder.resolve()
        ref = ModelRef(
            model.fingerprint, model.width, os.path.relpath(absolute, path.resolve()), str(absolute)
        )
        return cls(path, ExactStore.create(path, ref), model)

    @classmethod
    def open(cls, path: str | Path, model: Predictor | str | Path | None = None) -> Index:
        """The index at `path`. Its model is found where it was, or given.

        Raises:
            ConfigError: no index there.
            DataError: the index is damaged.
            MismatchError: `model` is not the one whose vectors are in the index.
        """
        path = Path(path)
        if not ExactStore.exists(path):
            what = "not an index (it has no index.json)" if path.exists() else "there is no such folder"
            raise ConfigError(f"{path}: {what}. Make one with: motet index MODEL TABLE --out {path}")
        index = cls(path, ExactStore(path), None)
        if model is not None:
            index._use(_as_predictor(model))
        return index

    @property
    def model(self) -> Predictor:
        """The model of this index, loaded when it is first needed."""
        if self._model is None:
            ref = self._store.model
            places = [Path(os.path.normpath(self.path.resolve() / ref.relative)), Path(ref.absolute)]
            here = next((place for place in places if (place / "config.json").is_file()), None)
            if here is None:
                raise ConfigError(
                    f"{self.path}: its model is not at {places[0]} any more. Say where it is: "
                    "--model MODEL, or Index.open(path, model=...)"
                )
            self._use(_as_predictor(here))
        assert self._model is not None
        return self._model

    def _use(self, model: Predictor) -> None:
        if model.fingerprint != self._store.model.fingerprint:
            raise MismatchError(
                f"{self.path}: holds the vectors of another model than {model.folder} (fingerprint "
                f"{self._store.model.fingerprint[:12]}, not {model.fingerprint[:12]}), and they cannot be "
                f"compared. Build a new index: motet index {model.folder} TABLE --out NEW"
            )
        self._model = model

    def add(
        self,
        rows: str | Path | Table | Iterable[Mapping[str, Any]],
        *,
        root: str | Path | None = None,
        batch: int = BATCH,
        progress: Progress | None = None,
    ) -> Added:
        """Add a table, or rows as column -> cell. A row whose id is there is replaced if its content changed.

        The id comes from the table's id column; without one it is a digest of the content. Media
        paths are relative to the table, or to `root`. A broken row is named in `quarantine.jsonl`
        beside the index; every `batch` rows are committed together.

        Raises:
            DataError: the table cannot be read, ids repeat, or more than 1 % of its rows are broken.
            StorageError: no space; what was committed before is whole.
        """
        quarantine = Quarantine(self.path / "quarantine.jsonl")
        entries = self.model.entries(rows, root=root)
        counts = {"added": 0, "replaced": 0, "unchanged": 0, "empty": 0}
        seen: dict[str, str] = {}
        stream, done = iter(entries), 0
        while part := list(islice(stream, batch)):
            new = {id: (digest, entry) for id, digest, entry in self._changed(part, seen, counts, quarantine)}
            put = self._encode(new, counts, quarantine)
            replaced = self._store.write(put) if put else 0
            counts["replaced"] += replaced
            counts["added"] += len(put) - replaced
            done += len(part)
            if progress is not None:
                progress(done, len(entries), "index")
        quarantine.check(len(entries))
        return Added(**counts, broken=quarantine.count)

    def _changed(
        self, part: Sequence[Entry], seen: dict[str, str], counts: dict[str, int], quarantine: Quarantine
    ) -> Iterator[tuple[str, str, Entry]]:
        """(id, digest, entry) of those that are new or have changed; the others are counted or named."""
        for entry in part:
            keys = self.model.keys(entry)
            if isinstance(keys, Broken):
                _leave_out(entry, keys, quarantine)
                continue
            digest = _digest(entry, keys)
            id = entry.id if entry.id is not None else digest[:16]
            if entry.id is not None and id in seen:
                raise DataError(f"{entry.where}: the id {id!r} is that of {seen[id]} too; ids must differ.")
            if not keys:
                counts["empty"] += 1
            elif self._store.digest(id) == digest or id in seen:
                counts["unchanged"] += 1
            else:
                yield id, digest, entry
            seen[id] = entry.where

    def _encode(
        self, new: Mapping[str, tuple[str, Entry]], counts: dict[str, int], quarantine: Quarantine
    ) -> list[Row]:
        """Rows with a vector for every modality that they have."""
        rows = []
        parts = self.model.encode_entries([entry for _, entry in new.values()])
        for (id, (digest, entry)), vectors in zip(new.items(), parts, strict=True):
            if isinstance(vectors, Broken):
                _leave_out(entry, vectors, quarantine)
            elif vectors:
                rows.append(Row(id, digest, _fields(entry), vectors))
            else:
                counts["empty"] += 1
        return rows

    def delete(self, ids: str | Iterable[str]) -> int:
        """Take rows out for good; how many were there. Unknown ids are no error."""
        return self._store.write(delete=[ids] if isinstance(ids, str) else ids)

    def search(
        self,
        query: Any = None,
        *,
        like: str | None = None,
        top: int = 5,
        modality: str | None = None,
        where: str | None = None,
    ) -> list[Hit]:
        """The `top` rows nearest to a query by exact cosine, best first.

        query: a text, the path of a file, a picture (PIL or array), a vector (E,), or a mapping
        modality -> one of these, whose sum is looked for. like: instead of a query, the id of a
        row ("more like this"). modality: what is compared, and comes back; without it, whichever
        of a row's modalities is nearest. where: see `motet.index.filter`.

        Raises:
            ConfigError: an unknown id, modality or field; a filter or query that cannot be read.
        """
        if top < 1:
            raise ConfigError(f"top={top}: must be at least 1.")
        if (query is None) == (like is None):
            raise ConfigError("search: give a query, or the id of a row as `like`.")
        self._store.refresh()
        kept = self._store.modalities()
        if modality is not None and kept and modality not in kept:
            raise ConfigError(f"modality {modality!r}: {self.path} holds {', '.join(sorted(kept))}.")
        wanted = self._filter(where)
        if like is None:
            return self._store.search(self._vector(query), top, modality=modality, where=wanted)
        hits = self._store.search(self._mean_of(like), top + 1, modality=modality, where=wanted)
        return [hit for hit in hits if hit.id != like][:top]

    def _filter(self, where: str | None) -> Filter | None:
        if not where:
            return None
        wanted, known = parse_filter(where), self._store.fields()
        if known and not wanted.names <= known:
            name = min(wanted.names - known)
            raise ConfigError(
                f"filter {where!r}: no row has a field {name!r}. There are: {', '.join(sorted(known))}."
            )
        return wanted

    def _vector(self, query: Any) -> np.ndarray:
        width = self._store.model.width
        if isinstance(query, np.ndarray) and query.shape == (width,):
            norm = float(np.linalg.norm(query))
            if not math.isfinite(norm) or norm == 0:
                raise ConfigError("search: the query vector must hold finite numbers, not all zero.")
            return query / norm
        return self.model.encode_query([query])[0]

    def _mean_of(self, id: str) -> np.ndarray:
        row = self._store.get(id)
        if row is None:
            raise ConfigError(f"{self.path}: no row has the id {id!r}.")
        total = np.sum(list(row.vectors.values()), axis=0)
        return total / max(float(np.linalg.norm(total)), 1e-12)

    def count(self) -> int:
        """How many rows there are."""
        self._store.refresh()
        return len(self._store)

    def flush(self) -> None:
        """Every `add` and `delete` is on disk when it returns; here for stores that buffer."""


def _as_predictor(model: Predictor | str | Path) -> Predictor:
    if isinstance(model, str | Path):
        from motet.predictor import Predictor

        return Predictor.load(model)
    return model


def _leave_out(entry: Entry, broken: Broken, quarantine: Quarantine) -> None:
    cell = entry.cells.get(modality_name(broken.column))
    file = str(cell) if isinstance(cell, str | Path) else None
    table = entry.where.rpartition(", ")[0] or entry.where
    quarantine.add(table, entry.line, broken.column, file, broken.error.rule, str(broken.error))


def _digest(entry: Entry, keys: Mapping[str, str]) -> str:
    """Of all cells, and of the content of the files that they name."""
    text = json.dumps([_fields(entry), dict(keys)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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
