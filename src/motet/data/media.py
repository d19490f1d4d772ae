"""What the processors share: opening a cell's file, messages, number formats, fingerprints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from motet.config import to_dict
from motet.data.blob import Blob
from motet.data.paths import resolve_media
from motet.errors import DataError, MismatchError

if TYPE_CHECKING:
    from motet.types import Encoder, Kind

# of the processors' arithmetic: raised when one changes, so that no cache is misread
VERSIONS: Mapping[Kind, int] = {"text": 1, "image": 2, "audio": 1, "video": 2, "features": 1}


def broken(name: str, rule: str, why: str) -> DataError:
    """The error for one unusable cell; the dataset puts table, line and column before it."""
    return DataError(f"{name!r}: {why}.", rule=rule)


def open_media(cell: Any, root: Path) -> Path | Blob | None:
    """The file that `cell` names under `root`, or the bytes that it holds; None for an empty cell.

    Raises:
        DataError: not a path, outside `root`, missing, not a regular file, a URL.
    """
    if cell is None or cell == "":
        return None
    if isinstance(cell, Blob):
        return cell
    if not isinstance(cell, str | Path):
        raise broken(
            str(cell)[:80], "not a path", f"expected the path of a file, found {type(cell).__name__}"
        )
    return resolve_media(str(cell), root, "path")


def read_bytes(path: Path | Blob, name: str, limit: int) -> bytes:
    """The whole file, unless it is empty or larger than `limit` bytes."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise broken(name, "too large", f"{size >> 20} MiB is more than the limit of {limit >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise broken(name, "unreadable", f"the file cannot be read: {error.strerror}") from None
    if not data:
        raise broken(name, "empty file", "the file has 0 bytes")
    return data


def square(image: Image.Image, size: int) -> np.ndarray:
    """Shorter side to `size`, centre cropped: (size, size, 3) uint8."""
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    resized = image.resize(
        (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side), reducing_gap=3.0
    )
    return np.asarray(resized)


def digest(*parts: Any) -> str:
    """sha256 of JSON values, independent of the order of keys."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def described(processor: Any, **fitted: Any) -> dict[str, Any]:
    """What a processor writes into the model folder: its config, what it learned, its encoder."""
    encoder: Encoder | None = processor.encoder
    return {
        "name": processor.name,
        "kind": processor.kind,
        "version": VERSIONS[processor.kind],
        "config": to_dict(processor.config),
        **fitted,
        "encoder": {"name": encoder.name, "width": encoder.width, "fingerprint": encoder.fingerprint}
        if encoder
        else None,
    }


def check_encoder(saved: Mapping[str, Any], encoder: Encoder | None, where: str) -> None:
    """The encoder must be the one that the processor was saved with.

    Raises:
        MismatchError: another one, or none where one is needed.
    """
    wanted = saved.get("encoder")
    have = encoder.fingerprint if encoder else None
    if (wanted or {}).get("fingerprint") != have:
        name = wanted["name"] if wanted else "none"
        raise MismatchError(
            f"{where}: made with encoder {name!r}, given {encoder.name if encoder else 'none'!r} "
            "or another version of it. Install or name the encoder that the model was trained with."
        )
