"""Files of an index that survive a crash: whole or absent, checked when read, one writer at a time."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from motet.errors import DataError, StorageError


def verified(path: Path, digest: str) -> bytes:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise DataError(
            f"{path}: its content is not what was written (SHA-256 differs); the index is damaged. "
            "Restore it, or build it again with: motet index MODEL TABLE --out NEW"
        )
    return data


def write(path: Path, data: bytes) -> None:
    """Replace `path` so that after a crash it is the old or the new content, whole."""
    temp = path.with_name(f"{path.name}.{secrets.token_hex(4)}.temp")
    try:
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except OSError:
        with suppress(OSError):
            temp.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot write the index: {error.strerror or error}. What was committed before "
            "is whole; free some space or correct the permissions and run it again."
        ) from None


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """One writer at a time; the system releases the lock of a process that dies."""
    with (folder / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
