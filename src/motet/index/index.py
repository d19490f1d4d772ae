"""`Index`: rows of tables under one model, found by anything that the model can encode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.data.quarantine import Quarantine
from motet.errors import ConfigError, MismatchError
from motet.index.adding import Added, Adding, Progress
from motet.index.address import (
    Pointer,
    create_store,
    exists,
    find_model,
    model_ref,
    new_pointer,
    open_store,
    read_pointer,
    unfinished,
    write_pointer,
)
from motet.index.asking import (
    filter_of,
    is_vector,
    judged,
    known,
    known_modality,
    nearest,
    parts_of,
    reranked,
    summed,
)
from motet.index.durable import lock, writing
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
        pointer = new_pointer(store, model_ref(path, model))
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
            self._use(_as_predictor(find_model(self.path, self._pointer.model)))
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
        ref = model_ref(self.path, predictor)
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
        row, parts = None if like is None else self._row(like), parts_of(query)
        hits = self._nearest([parts], row, max(offset + top, rerank), modality, where, distinct)[0]
        if rerank:
            hits = [*reranked(hits[:rerank], parts, row, self.model), *hits[rerank:]]
        return self._judged(hits[offset : offset + top], parts if row is None else [])

    def search_many(
        self,
        queries: Sequence[Any],
        *,
        top: int = 5,
        offset: int = 0,
        modality: str | None = None,
        where: str | None = None,
        distinct: str | None = None,
    ) -> list[list[Hit]]:
        """`search` for each of many queries, which are encoded in batches and compared side by side.

        Raises:
            ConfigError: as `search`.
        """
        if top < 1 or offset < 0:
            raise ConfigError(f"top={top}, offset={offset}: must be at least 1 and 0.")
        asked = [parts_of(query) for query in queries]
        if not all(asked):
            raise ConfigError(f"search_many: query {next(i for i, p in enumerate(asked) if not p)} is empty.")
        self.refresh()
        found = self._nearest(asked, None, offset + top, modality, where, distinct) if asked else []
        return [self._judged(h[offset : offset + top], p) for h, p in zip(found, asked, strict=True)]

    def _nearest(
        self,
        asked: Sequence[Sequence[Any]],
        like: Row | None,
        need: int,
        modality: str | None,
        where: str | None,
        distinct: str | None,
    ) -> list[list[Hit]]:
        if modality is not None:
            known_modality(self._store, modality, self.path)
        wanted = filter_of(self._store, where)
        if distinct is not None:
            known(self._store, {distinct}, f"distinct {distinct!r}")

        def encode(parts: list[Any]) -> np.ndarray:  # a query of vectors needs no model loaded
            return self.model.encode_query(parts)

        vectors = summed(asked, like, self._pointer.model.width, encode)
        id = None if like is None else like.id
        return nearest(self._store, vectors, need, id, modality=modality, where=wanted, distinct=distinct)

    def _judged(self, hits: list[Hit], parts: Sequence[Any]) -> list[Hit]:
        """The hits with what their cosines mean where a query is one thing that the model has read."""
        single = len(parts) == 1 and not is_vector(parts[0], self._pointer.model.width)
        return judged(hits, parts[0], self.model) if single else hits

    def _row(self, id: str) -> Row:
        row = self._store.get(id)
        if row is None:
            raise ConfigError(f"{self.path}: no row has the id {id!r}.")
        return row

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


def _as_predictor(model: Predictor | str | Path) -> Predictor:
    if isinstance(model, str | Path):
        from motet.predictor import Predictor

        return Predictor.load(model)
    return model
