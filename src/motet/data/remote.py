"""Tables elsewhere, only where `data.remote=true` allows it: fetched once by `fsspec`, or by `datasets`.

A table's file is copied into the cache with the media that its cells name and the transcripts beside
them; a folder with all that is below it. What changed since is fetched again: each file is known by what
its own store says of it (tag or time of change, and size). Nothing else is ever fetched: a path that leaves
the table's folder is refused.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import posixpath
import re
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, TypeGuard

from motet.data.paths import kind_of
from motet.data.rows import Rows
from motet.data.transcript import BESIDE, is_transcript
from motet.errors import ConfigError, DataError, missing_extra

MEDIA_CELLS = 100_000  # files fetched for one table
TELLING = (  # names under which stores say what changes with a file: its tag, or else its time
    ("ETag", "etag", "md5Hash", "content_md5", "Content-MD5", "generation", "blob_id"),
    ("mtime", "LastModified", "last_modified", "Last-Modified", "updated", "created"),
)
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
        system.invalidate_cache()  # what an earlier look has found may have changed
        infos = {path: system.info(path)} if system.isfile(path) else system.find(path, detail=True)
        found = sorted(infos)
        if not found:
            raise DataError(f"{address}: nothing is there. Check the address.")
        single = found == [path]
        base = posixpath.dirname(path) if single else path.rstrip("/")
        stamps = [_known_by(system, name, infos[name]) for name in found]
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


def _copy(system: Any, name: str, home: Path, inner: str, *, anew: bool = False) -> None:
    target = home / inner
    if anew or not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        system.get_file(name, str(part))
        part.replace(target)


def _known_by(system: Any, name: str, info: Mapping[str, Any]) -> str:
    """A file's stamp; some stores say more of one file than in a listing."""
    return _stamp(info) or _stamp(system.info(name))


def _stamp(info: Mapping[str, Any]) -> str:
    """What changes with a file, of all that a store says of it; "" where that is nothing."""
    for kind in TELLING:
        said = [str(info[key]) for key in kind if info.get(key)]
        if said:
            return f"{said[0]} {info.get('size')}"
    return ""


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
    kept = home.with_name(home.name + ".json")
    stamps = _read_stamps(kept)
    listed: dict[str, dict[str, Any]] = {}
    try:
        for cell in wanted:
            inner = posixpath.normpath(cell)
            if inner.startswith(("..", "/")) or "://" in cell:
                continue  # refused, with its line, when the cell is read
            beside = [posixpath.splitext(inner)[0] + ending for ending in BESIDE]
            try:
                for one in [inner, *(beside if kind_of(cell) in ("audio", "video") else [])]:
                    name = posixpath.join(base, one)
                    folder = posixpath.dirname(name)
                    if folder not in listed:
                        listed[folder] = _listed(system, folder)
                    info = listed[folder].get(posixpath.basename(name))
                    if info is None and one == inner and system.isfile(name):  # web servers list nothing
                        info = system.info(name)
                    _bring(system, name, home, one, info, stamps)
            except (OSError, ValueError) as error:
                raise DataError(f"{address}: {cell!r} cannot be fetched: {error}.") from None
    finally:  # what has come need not come again
        part = kept.with_suffix(".part")
        part.write_text(json.dumps(stamps))
        part.replace(kept)


def _bring(
    system: Any, name: str, home: Path, inner: str, info: Mapping[str, Any] | None, stamps: dict[str, str]
) -> None:
    """One file as it is there now, by its stamp; none where there is none (any more)."""
    if info is None:
        (home / inner).unlink(missing_ok=True)
        stamps.pop(inner, None)
        return
    stamp = _known_by(system, name, info)
    _copy(system, name, home, inner, anew=stamps.get(inner) != stamp)
    stamps[inner] = stamp


def _read_stamps(path: Path) -> dict[str, str]:
    """What each fetched file was known by; nothing where that is not known any more."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _listed(system: Any, folder: str) -> dict[str, Any]:
    """What lies in a folder; nothing where it cannot be listed, as of web servers."""
    try:
        infos = system.ls(folder, detail=True)
    except (OSError, ValueError, NotImplementedError):
        return {}
    return {posixpath.basename(info["name"].rstrip("/")): info for info in infos}


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
