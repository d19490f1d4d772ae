"""Tables elsewhere, only where `data.remote=true` allows it: fetched once by `fsspec`, or by `datasets`.

A table's file is copied into the cache with the media that its cells name and the transcripts beside
them; a folder with all that is below it. Nothing else is ever fetched: a path that leaves the table's
folder is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import posixpath
import re
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from motet.data.paths import kind_of
from motet.data.rows import Rows
from motet.data.transcript import BESIDE, is_transcript
from motet.errors import ConfigError, DataError, missing_extra

MEDIA_CELLS = 100_000  # files fetched for one table
LOOK_AT = 20  # cells that tell whether a column names files
EXTRAS = {"s3fs": "s3", "gcsfs": "gs"}
_ADDRESS = re.compile(r"[a-z][a-z0-9+]+://")


def is_address(path: str | Path) -> bool:
    """s3://..., gs://..., or hf:NAME; never a local path."""
    return isinstance(path, str) and bool(_ADDRESS.match(path) or path.startswith("hf:"))


def fetch(address: str, *, remote: bool) -> Path:
    """The local copy of a table or folder.

    Raises:
        ConfigError: not allowed, or a package is not installed.
        DataError: nothing is there, or it cannot be fetched.
    """
    files = _file_system(address, remote)
    system, path = files
    from motet.data.cache import default_cache

    try:
        found = [path] if system.isfile(path) else sorted(system.find(path))
        if not found:
            raise DataError(f"{address}: nothing is there. Check the address.")
        single = found == [path]
        base = posixpath.dirname(path) if single else path.rstrip("/")
        stamps = [str(system.ukey(name)) for name in found]
        key = hashlib.sha256("\0".join([address, *found, *stamps]).encode()).hexdigest()
        home = default_cache() / "remote" / key
        for name in found:
            _copy(system, name, home, _below(name, base, address))
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"{address}: cannot be fetched: {error}. Check the address and your rights."
        ) from None
    if not single:
        return home
    table = home / posixpath.basename(path)
    _fetch_media(system, base, home, table, address)
    return table


def _file_system(address: str, remote: bool) -> tuple[Any, str]:
    _allow(address, remote)
    try:
        fsspec = importlib.import_module("fsspec")
    except ImportError:
        raise missing_extra("remote", "fsspec", f"Opening {address}") from None
    try:
        system, path = fsspec.core.url_to_fs(address)
    except ImportError as error:  # fsspec names the package
        named = re.search(r"[Ii]nstall (\w+)", str(error))
        package = named.group(1) if named else str(error)
        if package in EXTRAS:
            raise missing_extra(EXTRAS[package], package, f"Opening {address}") from None
        raise ConfigError(
            f"Opening {address} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install {package}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"{address}: {error}.") from None
    return system, path


def _allow(address: str, remote: bool) -> None:
    if not remote:
        raise ConfigError(
            f"{address}: an address; only local files are read. --set data.remote=true allows it."
        )


def _below(name: str, base: str, address: str) -> str:
    inner = posixpath.relpath(name, base) if base else name.lstrip("/")
    if inner.startswith("..") or posixpath.isabs(inner) or "\0" in inner:
        raise DataError(f"{address}: {inner!r} lies outside it.", rule="refused path")
    return inner


def _copy(system: Any, name: str, home: Path, inner: str) -> None:
    target = home / inner
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        system.get_file(name, str(part))
        part.replace(target)


def _fetch_media(system: Any, base: str, home: Path, table: Path, address: str) -> None:
    from motet.data.table import open_table

    opened = open_table(table)
    wanted: dict[str, None] = {}
    for name in opened.columns:
        filled = (cell for cell in opened.column(name) if cell is not None)
        if any(map(_is_fetched, islice(filled, LOOK_AT))):
            wanted |= dict.fromkeys(cell for cell in opened.column(name) if _is_fetched(cell))
    if len(wanted) > MEDIA_CELLS:
        raise DataError(
            f"{address}: names {len(wanted)} files, more than {MEDIA_CELLS}. Use shards or Parquet."
        )
    listed: dict[str, set[str]] = {}
    for cell in wanted:
        inner = posixpath.normpath(cell)
        if inner.startswith(("..", "/")) or "://" in cell:
            continue  # refused, with its line, when the cell is read
        name = posixpath.join(base, inner)
        folder, stem = posixpath.dirname(name), posixpath.splitext(inner)[0]
        if folder not in listed:
            listed[folder] = _names_in(system, folder)
        beside = [stem + ending for ending in BESIDE] if kind_of(cell) in ("audio", "video") else []
        try:
            if posixpath.basename(name) in listed[folder] or system.isfile(name):
                _copy(system, name, home, inner)
            for one in beside:
                if posixpath.basename(one) in listed[folder]:
                    _copy(system, posixpath.join(base, one), home, one)
        except (OSError, ValueError) as error:
            raise DataError(f"{address}: {cell!r} cannot be fetched: {error}.") from None


def _names_in(system: Any, folder: str) -> set[str]:
    """What lies in a folder; nothing where it cannot be listed, as of web servers."""
    try:
        return {posixpath.basename(name.rstrip("/")) for name in system.ls(folder, detail=False)}
    except (OSError, ValueError, NotImplementedError):
        return set()


def _is_fetched(cell: Any) -> TypeGuard[str]:
    return isinstance(cell, str) and (kind_of(cell) not in (None, "text") or is_transcript(cell))


def read_hub(address: str, *, remote: bool) -> tuple[Rows, str]:
    """Rows and fingerprint of a data set by its hub name, hf:NAME or hf:NAME:CONFIG, with a split column.

    Media are decoded by Motet, not by `datasets`; no code of the data set is run.

    Raises:
        ConfigError: not allowed, `datasets` is not installed.
        DataError: it cannot be loaded.
    """
    _allow(address, remote)
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise missing_extra("hf", "datasets", f"Opening {address}") from None
    from motet.data.arrow import class_words, joined

    name, _, config = address.removeprefix("hf:").partition(":")
    try:
        parts = datasets.load_dataset(name, config or None)
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{address}: cannot be loaded: {error}") from None
    tables: list[Any] = []
    words: dict[str, list[str]] = {}
    prints = []
    for part, loaded in parts.items():
        table = loaded.data.table
        features = {
            key: {"_type": type(value).__name__, "names": getattr(value, "names", None)}
            for key, value in loaded.features.items()
        }
        words |= class_words(features)
        if "split" not in table.column_names:
            table = table.append_column("split", [[str(part)] * table.num_rows])
        tables.append(table)
        prints.append(f"{part}={loaded._fingerprint}")
    fingerprint = hashlib.sha256("\0".join([address, *prints]).encode()).hexdigest()
    return joined(tables, words, Path(address)), fingerprint
