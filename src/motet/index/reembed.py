"""An index goes over to another model: a new table is filled beside the old one, then takes its place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from motet.errors import DataError, MismatchError
from motet.index.adding import Progress, digest_of
from motet.index.address import (
    ModelRef,
    Pointer,
    create_store,
    drop_store,
    new_pointer,
    read_pointer,
    write_pointer,
)
from motet.index.durable import lock
from motet.index.store import Row, Store
from motet.predictor.cells import Broken

if TYPE_CHECKING:
    from motet.predictor import Predictor

BATCH = 256


def reembed(
    path: Path, old: Pointer, store: Store, model: Predictor, ref: ModelRef, progress: Progress | None
) -> tuple[Pointer, Store]:
    """See `Index.reembed`."""
    pointer = new_pointer(old.store, ref)
    new = create_store(path, pointer)
    try:
        done: dict[str, str] = {}
        _copy(store, new, model, done, progress)
        with lock(path):  # writers wait now; what they did meanwhile is little
            if read_pointer(path) != old:
                raise MismatchError(
                    f"{path}: went over to another model meanwhile; nothing was changed here."
                )
            store.refresh()
            _copy(store, new, model, done, None)
            new.flush()
            write_pointer(path, pointer)
    except BaseException:
        drop_store(path, pointer, new)
        raise
    drop_store(path, old, store)
    return pointer, new


def _copy(old: Store, new: Store, model: Predictor, done: dict[str, str], progress: Progress | None) -> None:
    """Bring `new` to what `old` holds. done: id -> digest in `old` of what is there already."""
    total = len(old)
    there: set[str] = set()
    stream = old.rows()
    while part := list(islice(stream, BATCH)):
        there.update(row.id for row in part)
        changed = [row for row in part if done.get(row.id) != row.digest]
        if changed:
            new.write(_encoded(changed, model))
            done.update((row.id, row.digest) for row in changed)
        if progress is not None:
            progress(len(there), total, "encode again")
    gone = set(done) - there
    if gone:
        new.write(delete=gone)
        for id in gone:
            del done[id]


def _encoded(rows: Sequence[Row], model: Predictor) -> list[Row]:
    entries = list(model.entries([{**row.fields, "id": row.id} for row in rows]))
    made = []
    for row, entry, vectors in zip(rows, entries, model.encode_entries(entries), strict=True):
        if not vectors or isinstance(vectors, Broken):
            why = (
                vectors.error if isinstance(vectors, Broken) else "nothing stored of it that the model knows"
            )
            raise DataError(
                f"row {row.id!r} cannot be encoded again: {why}. Nothing was changed. Delete the row, or "
                "build a new index from the table: motet index MODEL TABLE --out NEW"
            )
        keys = model.keys(entry)
        digest = row.digest if isinstance(keys, Broken) else digest_of(row.fields, keys)
        made.append(Row(row.id, digest, row.fields, vectors, row.thumbnail))
    return made
