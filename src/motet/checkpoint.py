"""Folders of tensors and documents that are either whole or refused. safetensors and JSON only.

A folder is written beside its target, synced, described by `manifest.json` (SHA-256 and size of every
file) and renamed into place, so a crash at any moment leaves the old folder or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from motet.config import parse_json
from motet.errors import ConfigError, DataError, StorageError

MANIFEST = "manifest.json"
TENSORS = "model.safetensors"
FORMAT = 1
EDITABLE = ("README.md",)  # people may improve a model card without spoiling the model


@dataclass(frozen=True)
class Folder:
    """What stood in a verified folder: tensors on the CPU, `.json` documents parsed, others as text."""

    path: Path
    tensors: Mapping[str, Tensor]
    documents: Mapping[str, Any]


def save_folder(path: str | Path, *, tensors: Mapping[str, Tensor], documents: Mapping[str, Any]) -> Path:
    """Write a folder in one step: after a crash, `path` holds all of the old folder or all of the new.

    documents: file name -> text, or values for a `.json` file (NaN and infinities become null). Files
    that are in the old folder but not in its manifest (logs, notes) are kept. One writer at a time.

    Raises:
        StorageError: no space, or a write failed; what was there before is whole.
        ConfigError: a bad file name, or `path` holds files that Motet did not write.
    """
    path = Path(os.path.realpath(path))
    for name in documents:
        if not name or Path(name).name != name or name.startswith(".") or name in (MANIFEST, TENSORS):
            raise ConfigError(
                f"{path}: {name!r} cannot name a document; use a plain name, such as config.json."
            )
    fresh = path.with_name(f".{path.name}.new-{uuid.uuid4().hex[:8]}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        recover(path)
        _refuse_foreign(path, {MANIFEST, TENSORS, *documents})
        fresh.mkdir()
        _fill(fresh, tensors, documents)
        _swap(fresh, path)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(fresh, ignore_errors=True)
        with contextlib.suppress(OSError):
            recover(path)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        way_out = (
            "Free some space" if full or "os error 28" in str(error) else "Check the disk and permissions"
        )
        raise StorageError(
            f"{path}: could not be saved: {error}. What was there before is whole. {way_out} and run again."
        ) from None
    return path


def load_folder(path: str | Path) -> Folder:
    """Read a folder that `save_folder` wrote, checking the size and SHA-256 of every file.

    Raises:
        ConfigError: nothing is there, or it is not such a folder.
        DataError: a file is missing or damaged; the message names it.
    """
    path = Path(os.path.realpath(path))
    for attempt in range(3):
        try:
            return _load(_standing(path))
        except FileNotFoundError as error:  # replaced by a writer while we were reading
            lost = error
            if attempt == 2:
                break
    raise DataError(f"{lost.filename}: disappeared while {path} was read. Is another process saving there?")


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str | Path) -> None:
    """Put `tensors` into `module`; names and shapes must be exactly its own.

    Raises:
        DataError: a tensor is missing, left over, or of another shape.
    """
    wanted = module.state_dict()
    for name in sorted(wanted.keys() ^ tensors.keys()):
        what = "is missing" if name in wanted else "does not belong to this model"
        raise DataError(f"{where}: the tensor {name!r} {what}; the weights and config.json are not a pair.")
    for name, value in wanted.items():
        if value.shape != tensors[name].shape:
            raise DataError(
                f"{where}: the tensor {name!r} has shape {tuple(tensors[name].shape)}, the model needs "
                f"{tuple(value.shape)}; the weights and config.json are not a pair."
            )
    module.load_state_dict(dict(tensors))


def recover(path: str | Path) -> None:
    """Finish or undo a save of `path` that was cut off, and remove what it left behind."""
    path = Path(os.path.realpath(path))
    old = _aside(path)
    if old.exists():
        if path.exists():
            _finish(old, path)
        else:
            old.rename(path)
            _sync_folder(path.parent)
    for left in path.parent.glob(f".{path.name}.new-*"):
        shutil.rmtree(left, ignore_errors=True)


def _fill(folder: Path, tensors: Mapping[str, Tensor], documents: Mapping[str, Any]) -> None:
    if tensors:
        save_file(_separate(tensors), folder / TENSORS, metadata={"format": "pt"})
    for name, content in documents.items():
        text = content if isinstance(content, str) else _json(content)
        (folder / name).write_bytes(text.encode("utf-8"))
    names = sorted(entry.name for entry in folder.iterdir())
    listed = {name: _describe(folder / name) for name in names if name not in EDITABLE}
    (folder / MANIFEST).write_bytes(_render(listed).encode("utf-8"))
    for name in names:  # safetensors writes for the owner alone; a model folder is read by others too
        (folder / name).chmod((folder / MANIFEST).stat().st_mode)
    for name in [*names, MANIFEST]:
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())
    _sync_folder(folder)


def _swap(fresh: Path, path: Path) -> None:
    """Put `fresh` in the place of `path`. Between the renames, readers find the old one aside."""
    old = _aside(path)
    if path.exists():
        path.rename(old)
    fresh.rename(path)
    _sync_folder(path.parent)
    if old.exists():
        _finish(old, path)


def _finish(old: Path, path: Path) -> None:
    """Move what was not ours from the replaced folder into the new one, then remove it."""
    ours = {MANIFEST, *_listed(old), *EDITABLE}
    for entry in list(old.iterdir()):
        if entry.name not in ours and not (path / entry.name).exists():
            entry.rename(path / entry.name)
    _sync_folder(path)
    shutil.rmtree(old)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _standing(path: Path) -> Path:
    if (path / MANIFEST).is_file():
        return path
    if not path.exists() and (_aside(path) / MANIFEST).is_file():
        return _aside(path)
    what = (
        "has no manifest.json, so it is not a folder that Motet saved" if path.is_dir() else "is not a folder"
    )
    what = what if path.exists() else "does not exist"
    raise ConfigError(f"{path}: {what}. Give the folder that `motet fit` wrote with --out.")


def _refuse_foreign(path: Path, names: set[str]) -> None:
    """A folder that Motet did not write is only added to, never written over."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path}: is a file; choose another place for the folder.")
    if path.is_dir() and not (path / MANIFEST).exists():
        for name in sorted(names):
            if (path / name).exists():
                raise ConfigError(f"{path}: holds a {name} that Motet did not write; choose another folder.")


def _load(path: Path) -> Folder:
    listed = _manifest(path)
    for name, (size, digest) in listed.items():
        file = path / name
        if not file.is_file():
            raise DataError(f"{file}: is missing, though the manifest lists it. {_WAY_OUT}")
        if _describe(file) != (size, digest):
            raise DataError(
                f"{file}: is damaged: its size or SHA-256 is not that of the manifest. {_WAY_OUT}"
            )
    documents = dict(_documents(path, [*listed, *EDITABLE]))
    if TENSORS not in listed:
        return Folder(path, {}, documents)
    try:
        tensors = load_file(path / TENSORS)
        with (path / TENSORS).open("rb") as weights:  # of a name that stands twice safetensors takes one
            header = weights.read(int.from_bytes(weights.read(8), "little"))
        parse_json(header.decode(), where="header")
        return Folder(path, tensors, documents)
    except (SafetensorError, ConfigError) as error:
        raise DataError(f"{path / TENSORS}: is not a valid safetensors file: {error}. {_WAY_OUT}") from None


_WAY_OUT = "Use an earlier copy, or train again."


def _documents(path: Path, names: list[str]) -> Iterator[tuple[str, Any]]:
    for name in names:
        if name == TENSORS or not (path / name).is_file():
            continue
        try:
            text = (path / name).read_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path / name}: is not UTF-8 text: {error}.") from None
        yield name, parse_json(text, where=str(path / name)) if name.endswith(".json") else text


def _manifest(path: Path) -> dict[str, tuple[int, str]]:
    """The files listed. The text must be exactly as written, so a flipped bit in it is seen too."""
    raw = (path / MANIFEST).read_bytes()
    try:
        entries = parse_json(raw.decode("utf-8"), where=str(path / MANIFEST))["files"]
        listed = {name: (entry["size"], entry["sha256"]) for name, entry in entries.items()}
        whole = _render(listed).encode("utf-8") == raw
    except (ConfigError, UnicodeDecodeError, UnicodeEncodeError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise DataError(f"{path / MANIFEST}: is damaged, or of another version of Motet. {_WAY_OUT}")
    for name in listed:
        if Path(name).name != name or name in ("", ".", ".."):
            raise DataError(f"{path / MANIFEST}: lists {name!r}, which is not a plain file name.")
    return listed


def _listed(path: Path) -> list[str]:
    """The names in a manifest, as far as it can be read; for cleaning up only."""
    try:
        return list(_manifest(path))
    except (OSError, DataError):
        return []


def _render(listed: Mapping[str, tuple[int, str]]) -> str:
    files = {name: {"size": size, "sha256": digest} for name, (size, digest) in sorted(listed.items())}
    check = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return json.dumps({"format": FORMAT, "files": files, "check": check}, indent=2) + "\n"


def _describe(path: Path) -> tuple[int, str]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest


def _json(values: Any) -> str:
    return json.dumps(_finite(values), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, none sharing memory with another (safetensors refuses those)."""
    seen: set[int] = set()
    out = {}
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in seen or storage.nbytes() != value.numel() * value.element_size():
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        out[name] = value
    return out


def _sync_folder(path: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
