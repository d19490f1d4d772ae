"""`Index`: rows of tables under one model, found by anything that the model can encode."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.data.quarantine import Quarantine
from motet.errors import ConfigError, MismatchError
from motet.index.adding import Added, Adding, Progress
from motet.index.address import (
    ModelRef,
    Pointer,
    create_store,
    exists,
    new_pointer,
    open_store,
    read_pointer,
    unfinished,
    write_pointer,
)
from motet.index.asking import best_of_each, is_vector, judged, parts_of, reranked, row_vector, unit
from motet.index.durable import lock, writing
from motet.index.filter import Filter, parse_filter
from motet.index.store import Row, Store
from motet.index.upkeep import Upkeep
from motet.types import Hit

if TYPE_CHECKING:
    from motet.data.table import Table
    from motet.predictor import Predictor

BATCH = 256


class Index:
    """Vectors of rows, one for every modality of a row, in a folder on disk or on a server.

    Adding is idempotent: a row whose id and content are there already is not encoded again. What
    `add` and `delete` have returned survives a crash; several processes may use one index.
    """

    def __init__(self, path: Path, pointer: Pointer, store: Store, model: Predictor | None) -> None:
        self.path = path
        self._pointer = pointer
        self._store = store
        self._model = model
        self._given = model is not None
        self._upkeep = Upkeep(path)

    @classmethod
    def create(cls, path: str | Path, model: Predictor | str | Path, store: str = "exact") -> Index:
        """A new, empty index of this model's vectors.

        store: "exact" compares with every row, best up to about 100,000; "lancedb" (extra `index`)
        for millions; "milvus://host:19530" or "qdrant://host:6333" (extra `scale`) for servers.

        Raises:
            ConfigError: something is at `path` already; an unknown store; a model without a shared space.
            StorageError: it cannot be written, or the server not reached.
        """
        path, model = Path(path), _as_predictor(model)
        pointer = new_pointer(store, _ref(path, model))
        if exists(path) or (path.exists() and not (path.is_dir() and unfinished(path))):
            raise ConfigError(f"{path}: already there, and not empty. Choose another path for the new index.")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        made = create_store(path, pointer)
        write_pointer(path, pointer)
        return cls(path, pointer, made, model)

    @classmethod
    def open(cls, path: str | Path, model: Predictor | str | Path | None = None) -> Index:
        """The index at `path`. Its model is found where it was, or given.

        Raises:
            ConfigError: no index there.
            DataError: the index is damaged.
            MismatchError: `model` is not the one whose vectors are in the index.
            StorageError: its server cannot be reached.
        """
        path = Path(path)
        if not exists(path):
            what = "not an index (it has no index.json)" if path.exists() else "there is no such folder"
            raise ConfigError(f"{path}: {what}. Make one with: motet index MODEL TABLE --out {path}")
        pointer = read_pointer(path)
        index = cls(path, pointer, open_store(path, pointer), None)
        if model is not None:
            index._use(_as_predictor(model))
            index._given = True
        return index

    @property
    def model(self) -> Predictor:
        """The model of this index, loaded when it is first needed."""
        if self._model is None:
            ref = self._pointer.model
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
        fingerprint = self._pointer.model.fingerprint
        if model.fingerprint != fingerprint:
            raise MismatchError(
                f"{self.path}: holds the vectors of another model than {model.folder} (fingerprint "
                f"{fingerprint[:12]}, not {model.fingerprint[:12]}), and they cannot be compared. Encode "
                f"its rows again with: motet index {model.folder} --out {self.path} --reembed"
            )
        self._model = model

    def refresh(self) -> None:
        """See what other processes have done; searches do so by themselves.

        Raises:
            MismatchError: it has gone over to another model than the one that was given.
        """
        pointer = read_pointer(self.path)
        if pointer != self._pointer:
            self._store, self._pointer = open_store(self.path, pointer), pointer
            if self._model is not None and self._given:
                self._use(self._model)
            elif self._model is not None and self._model.fingerprint != pointer.model.fingerprint:
                self._model = None  # the new one is loaded when it is needed
        self._store.refresh()

    @property
    def store(self) -> str:
        """The store's name or address."""
        return self._pointer.store

    def _write(self, put: Sequence[Row] = (), delete: Iterable[str] = ()) -> int:
        if not put and not delete:
            return 0
        with writing(self.path), lock(self.path):
            self.refresh()
            return self._store.write(put, delete)

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
        adding = Adding(self.model, quarantine)
        added = replaced = done = 0
        for size, put, gone in adding.written(iter(entries), batch, self._store, self._write):
            replaced += gone
            added += put - gone
            done += size
            if progress is not None:
                progress(done, len(entries), "index")
        self._tend()
        quarantine.check(len(entries))
        return Added(added, replaced, adding.unchanged, adding.empty, quarantine.count)

    def reembed(self, model: Predictor | str | Path, *, progress: Progress | None = None) -> int:
        """Go over to another model: encode every row again from its fields; how many there are.

        Searches go on with the old vectors until the new ones are all there; rows that others change
        meanwhile are encoded too. Afterwards the old vectors are deleted.

        Raises:
            DataError: rows that the new model cannot encode from what is stored (media that are gone,
                features); nothing has changed then.
            StorageError: no space; nothing has changed.
        """
        from motet.index.reembed import reembed

        predictor = _as_predictor(model)
        ref = _ref(self.path, predictor)
        self.refresh()
        pointer, store = reembed(self.path, self._pointer, self._store, predictor, ref, progress)
        self._pointer, self._store, self._model = pointer, store, predictor
        self._given = True
        return len(store)

    update = add  # a row that is there is replaced where it changed

    def delete(self, ids: str | Iterable[str]) -> int:
        """Take rows out for good; how many were there. Unknown ids are no error."""
        gone = self._write(delete=[ids] if isinstance(ids, str) else list(ids))
        self._tend()
        return gone

    def _tend(self) -> None:
        if self._store.stale():
            self._upkeep.start()

    def search(
        self,
        query: Any = None,
        *,
        like: str | None = None,
        top: int = 5,
        offset: int = 0,
        modality: str | None = None,
        where: str | None = None,
        distinct: str | None = None,
        rerank: int = 0,
    ) -> list[Hit]:
        """The `top` rows nearest to a query by cosine, best first.

        query: a text, the path of a file, a picture (PIL or array), a vector (E,), a mapping
        modality -> one of these, or a list of them, whose sum is looked for: ["dress.png", "but red"].
        like: the id of a row ("more like this"), alone or as one more part of the sum. offset: leave
        out that many of the best (paging). modality: what is compared, and comes back; without it,
        whichever of a row's modalities is nearest. where: see `motet.index.filter`. distinct: a field
        such as "group", of whose equal values only the best row counts. rerank: that many of the nearest
        are read again and put in order token against token, see `motet.predictor.late`.

        Raises:
            ConfigError: an unknown id, modality or field; a filter or query that cannot be read.
        """
        if top < 1 or min(offset, rerank) < 0:
            raise ConfigError(f"top={top}, offset={offset}, rerank={rerank}: must be at least 1, 0 and 0.")
        if query is None and like is None:
            raise ConfigError("search: give a query, or the id of a row as `like`.")
        self.refresh()
        if modality is not None and not self._store.has_modality(modality) and len(self._store):
            kept = self._store.modalities()
            raise ConfigError(f"modality {modality!r}: {self.path} holds {', '.join(sorted(kept))}.")
        wanted, parts = self._filter(where), parts_of(query)
        row = None if like is None else self._row(like)
        vector = self._vector(parts, row)
        if distinct is not None:
            self._known({distinct}, f"distinct {distinct!r}")
        need = max(offset + top, rerank)
        hits = self._nearest(vector, need, like, modality=modality, where=wanted, distinct=distinct)
        if rerank:
            hits = [*reranked(hits[:rerank], parts, row, self.model), *hits[rerank:]]
        hits = hits[offset : offset + top]
        single = like is None and len(parts) == 1 and not is_vector(parts[0], len(vector))
        return judged(hits, parts[0], self.model) if single else hits

    def _nearest(
        self,
        vector: np.ndarray,
        need: int,
        like: str | None,
        *,
        modality: str | None,
        where: Filter | None,
        distinct: str | None,
    ) -> list[Hit]:
        """At least `need` hits where there are so many, without the row `like`."""
        count = need + (like is not None)
        while True:
            found = self._store.search(vector, count, modality=modality, where=where)
            hits = best_of_each([hit for hit in found if hit.id != like], distinct)
            if len(hits) >= need or len(found) < count:
                return hits
            count *= 4

    def _filter(self, where: str | None) -> Filter | None:
        if not where:
            return None
        wanted = parse_filter(where)
        self._known(wanted.names, f"filter {where!r}")
        return wanted

    def _known(self, names: Iterable[str], what: str) -> None:
        unknown = sorted(name for name in names if not self._store.has_field(name))
        known = self._store.fields() - set(unknown) if unknown else set()
        if known:
            raise ConfigError(
                f"{what}: no row has a field {unknown[0]!r}. There are: {', '.join(sorted(known))}."
            )

    def _row(self, id: str) -> Row:
        row = self._store.get(id)
        if row is None:
            raise ConfigError(f"{self.path}: no row has the id {id!r}.")
        return row

    def _vector(self, parts: Sequence[Any], like: Row | None) -> np.ndarray:
        """(E,) of unit length: the sum of the parts, each of unit length."""
        width = self._pointer.model.width
        vectors = [
            unit(part) if is_vector(part, width) else self.model.encode_query([part])[0] for part in parts
        ]
        if like is not None:
            vectors.append(row_vector(like))
        return unit(np.sum(vectors, axis=0))

    def get(self, id: str) -> Row | None:
        """The row of this id: its fields and its vectors."""
        self.refresh()
        return self._store.get(id)

    def count(self) -> int:
        """How many rows there are."""
        self.refresh()
        return len(self._store)

    def flush(self) -> None:
        """Bring what speeds up searching up to date, and wait for it. Rows are on disk before.

        `add` and `delete` start this by themselves in the background where there is enough to do.

        Raises:
            StorageError: no space, here or in the background; no row is lost by it.
        """
        self._upkeep.wait()
        with lock(self.path):
            self.refresh()
            self._store.flush()

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """id -> a small picture (WebP) of its media, made when it was added; only those that have one."""
        return self._store.thumbnails(ids)


def _ref(path: Path, model: Predictor) -> ModelRef:
    if model.width == 0:
        raise ConfigError(
            f"{model.folder}: was trained without a shared space, so its rows cannot be compared. "
            "Train it with: motet fit TABLE --retrieval"
        )
    absolute = model.folder.resolve()
    return ModelRef(model.fingerprint, model.width, os.path.relpath(absolute, path.resolve()), str(absolute))


def _as_predictor(model: Predictor | str | Path) -> Predictor:
    if isinstance(model, str | Path):
        from motet.predictor import Predictor

        return Predictor.load(model)
    return model
