"""Which store an index uses: `exact`, `lancedb`, `s3://bucket/path`, `milvus://host:port`, `qdrant://host:port`.

An address of an object store (s3, gs, az, file) is one of LanceDB: its tables lie there.

An index is a folder whose index.json says where its rows are and whose vectors they are. To go over
to another model, a new table is filled beside the old one and index.json replaced.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from motet.config import from_dict, read, to_dict
from motet.errors import ConfigError, DataError
from motet.index.durable import write, writing
from motet.index.entries import EntryStore
from motet.index.exact import ExactStore
from motet.index.store import Store

if TYPE_CHECKING:
    from motet.predictor import Predictor

POINTER = "index.json"
FORMAT = 3
TABLE = re.compile(r"motet_[0-9a-f]{16}")
STORES = "exact, lancedb, s3://BUCKET/PATH (gs, az, file), milvus://HOST:PORT, qdrant://HOST:PORT"
OBJECTS = ("s3", "gs", "az", "file")


@dataclass(frozen=True)
class ModelRef:
    """The model whose vectors these are, and where it was: relative to the index, and absolute."""

    fingerprint: str
    width: int
    relative: str = ""
    absolute: str = ""


@dataclass(frozen=True)
class Pointer:
    """`table` is the folder inside the index, or the collection on the server, that holds the rows."""

    format: int
    store: str
    table: str
    model: ModelRef


def model_ref(path: Path, model: Predictor) -> ModelRef:
    """The model as the index at `path` names it.

    Raises:
        ConfigError: a model without a shared space.
    """
    if model.width == 0:
        raise ConfigError(
            f"{model.folder}: was trained without a shared space, so its rows cannot be compared. "
            "Train it with: motet fit TABLE --retrieval"
        )
    absolute = model.folder.resolve()
    return ModelRef(model.fingerprint, model.width, os.path.relpath(absolute, path.resolve()), str(absolute))


def find_model(path: Path, ref: ModelRef) -> Path:
    """Where the model of the index at `path` is.

    Raises:
        ConfigError: it is not where it was.
    """
    places = [Path(os.path.normpath(path.resolve() / ref.relative)), Path(ref.absolute)]
    here = next((place for place in places if (place / "config.json").is_file()), None)
    if here is None:
        raise ConfigError(
            f"{path}: its model is not at {places[0]} any more. Say where it is: "
            "--model MODEL, or Index.open(path, model=...)"
        )
    return here


def exists(folder: Path) -> bool:
    return (folder / POINTER).is_file()


def unfinished(folder: Path) -> bool:
    """Whether there is nothing in a folder but what an interrupted `Index.create` leaves; removes it."""
    names = list(folder.iterdir())
    if not all(TABLE.fullmatch(path.name) or path.name == "lock" or path.suffix == ".temp" for path in names):
        return False
    sweep(folder, "")
    return True


def sweep(folder: Path, keep: str) -> None:
    """Remove the local tables that interrupted work left, all but `keep`."""
    for path in folder.iterdir():
        if TABLE.fullmatch(path.name) and path.name != keep:
            shutil.rmtree(path, ignore_errors=True)


def new_pointer(store: str, model: ModelRef) -> Pointer:
    """A pointer to a table that is not there yet.

    Raises:
        ConfigError: no such store.
    """
    address = urlsplit(store)
    server = address.scheme in ("milvus", "qdrant") and re.fullmatch(r"[\w.-]+(:\d{1,5})?", address.netloc)
    known = store in ("exact", "lancedb") or (server and address.path in ("", "/"))
    if address.scheme in OBJECTS and not (address.query or address.fragment or address.password):
        known = known or bool(address.path if address.scheme == "file" else address.netloc)
    if not known:
        raise ConfigError(f"store {store!r}: unknown. There are: {STORES}.")
    return Pointer(FORMAT, store.rstrip("/"), f"motet_{secrets.token_hex(8)}", model)


def read_pointer(folder: Path) -> Pointer:
    values = read(folder / POINTER)
    if values.get("format") != FORMAT:
        raise DataError(
            f"{folder}: an index of format {values.get('format')!r}; this Motet reads format {FORMAT}. "
            "Build it again with: motet index MODEL TABLE --out NEW"
        )
    pointer = from_dict(Pointer, values, where=str(folder / POINTER))
    if not TABLE.fullmatch(pointer.table):
        raise DataError(f"{folder / POINTER}: {pointer.table!r} cannot be the name of a table of Motet's.")
    return pointer


def write_pointer(folder: Path, pointer: Pointer) -> None:
    with writing(folder):
        write(folder / POINTER, (json.dumps(to_dict(pointer)) + "\n").encode())


def create_store(folder: Path, pointer: Pointer) -> Store:
    """An empty table in the store that a pointer names."""
    if pointer.store == "exact":
        return ExactStore.create(folder / pointer.table, pointer.model.width)
    return open_store(folder, pointer)


def open_store(folder: Path, pointer: Pointer) -> Store:
    """The table that a pointer names.

    Raises:
        ConfigError: what the store needs is not installed.
        StorageError: a server that cannot be reached.
    """
    width = pointer.model.width
    match pointer.store.partition("://")[0]:
        case "lancedb":
            from motet.index.lance import LanceDatabase

            return EntryStore(LanceDatabase(folder / pointer.table, width))
        case "s3" | "gs" | "az" | "file":
            from motet.index.lance import LanceDatabase

            return EntryStore(LanceDatabase(f"{pointer.store}/{pointer.table}", width))
        case "milvus":
            from motet.index.milvus import MilvusDatabase

            return EntryStore(MilvusDatabase(pointer.store, pointer.table, width))
        case "qdrant":
            from motet.index.qdrant import QdrantDatabase

            return EntryStore(QdrantDatabase(pointer.store, pointer.table, width))
        case "exact":
            return ExactStore(folder / pointer.table)
        case _:
            raise ConfigError(f"{folder}: store {pointer.store!r}: unknown. There are: {STORES}.")


def drop_store(folder: Path, pointer: Pointer, store: Store) -> None:
    """Delete a table that no pointer names any more."""
    store.drop()
    shutil.rmtree(folder / pointer.table, ignore_errors=True)
