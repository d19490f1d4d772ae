"""The files of LanceDB: where they lie, whether they are whole, and what is said where they are not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from motet.errors import DataError, StorageError

ENDINGS = {".lance": b"LANC", ".idx": b"LANC", ".manifest": b"LANC", ".arrow": b"ARROW1"}


@contextmanager
def storing(place: Path | str) -> Iterator[None]:
    """LanceDB raises OSError, RuntimeError or ValueError for what goes wrong below it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise unwritten(place, _first_line(error)) from None


def local(place: Path | str) -> Path | None:
    """The folder that an address names; None for an object store."""
    if isinstance(place, str):
        return Path(unquote(urlsplit(place).path)) if place.startswith("file://") else None
    return place


def unwritten(place: Path | str, reason: str) -> StorageError:
    return StorageError(
        f"{place}: cannot write the index: {reason}. What was committed before is whole; free some "
        "space or correct the permissions and run it again."
    )


def whole(path: Path) -> bool:
    """Whether a file has the ending that its format puts last."""
    ending = ENDINGS[path.suffix]
    with suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - len(ending)))
        return file.read() == ending
    return True  # merged away meanwhile


@contextmanager
def reading(place: Path | str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{place}: cannot be read: {_first_line(error)}. If files of it were lost, build it again "
            "with: motet index MODEL TABLE --out NEW"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
