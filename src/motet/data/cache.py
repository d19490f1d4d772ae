"""Pieces on disk, by the content they were made from and by what made them."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from motet.data.blob import Blob
from motet.data.half import compact, expanded
from motet.data.hear import fingerprint
from motet.data.media import broken, open_media
from motet.data.processor import Processor
from motet.data.spoken import Heard, Spoken
from motet.types import Piece

MEDIA = ("image", "audio", "video")


def default_cache() -> Path:
    """$MOTET_CACHE, or ~/.cache/motet (under $XDG_CACHE_HOME where that is set)."""
    if named := os.environ.get("MOTET_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motet"


def content_key(cell: Any, root: Path, processor: Processor) -> str | None:
    """sha256 of the cell's content (a file's bytes, not its path) and the processor; None if it is empty.

    Raises:
        DataError: the cell names no usable file.
    """
    if cell is None or cell in ("", []):
        return None
    digest = hashlib.sha256(processor.fingerprint.encode())
    named = isinstance(cell, str) and processor.kind == "features"
    if processor.kind in MEDIA or named or isinstance(cell, Path | Blob):
        digest.update(_hash_of(cell, root))
    elif isinstance(cell, Spoken):
        digest.update(cell.text.encode("utf-8", "surrogatepass") + b"\0" + _hash_of(cell.media, root))
    elif isinstance(cell, Heard):
        digest.update(fingerprint(cell.model).encode() + b"\0" + _hash_of(cell.media, root))
    elif isinstance(cell, str):
        digest.update(cell.encode("utf-8", "surrogatepass"))
    else:
        digest.update(json.dumps(cell, default=str).encode())
    return digest.hexdigest()


def _hash_of(cell: Any, root: Path) -> bytes:
    """sha256 of what a cell of media names or holds."""
    path = open_media(cell, root)
    assert path is not None
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise broken(str(cell), "unreadable", f"the file cannot be read: {error.strerror}") from None


class FeatureCache:
    """Pieces as safetensors behind their sha256, written whole or not at all; a damaged one counts as absent.

    Vectors that float16 holds exactly are stored so. `FeatureCache(None)` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, key: str) -> Piece | None:
        if self.folder is None:
            return None
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            return None
        parts = load(data[32:])
        labels = json.loads(parts.pop("labels").tobytes()) if "labels" in parts else None
        estimated = parts.pop("estimated", None) is not None
        return expanded(Piece(**parts, labels=None if labels is None else tuple(labels), estimated=estimated))

    def put(self, key: str, piece: Piece) -> None:
        """Where nothing can be written (no space, no right to), that is said once and the cache is off."""
        if self.folder is None:
            return
        packed = compact(piece)
        parts = {"values": packed.values, "time": packed.time, "row": packed.row, "col": packed.col}
        if packed.labels is not None:
            parts["labels"] = np.frombuffer(json.dumps(packed.labels).encode(), np.uint8)
        if packed.estimated:
            parts["estimated"] = np.ones(1, np.uint8)
        data = save({name: np.ascontiguousarray(v) for name, v in parts.items() if v is not None})
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                os.replace(temporary, path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            print(
                f"{self.folder}: nothing more is cached: {error.strerror}. MOTET_CACHE names another folder.",
                file=sys.stderr,
            )
            self.folder = None

    def _path(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / "pieces" / key[:2] / f"{key}.piece"


def size_of(piece: Piece) -> int:
    """Bytes of memory, roughly."""
    arrays = (piece.values, piece.time, piece.row, piece.col)
    return sum(a.nbytes for a in arrays if a is not None) + 60 * len(piece.labels or ())
