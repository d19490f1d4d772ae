"""Putting a built data set in its place, whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from motet.errors import StorageError


def put_in_place(out: Path, write: Callable[[Path], None], what: str) -> None:
    """Have `write` fill a new folder beside `out`, then rename it to `out`; an earlier `out` is replaced.

    Raises:
        StorageError: `out` cannot be written; `what` names the data set in the message.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as folder:
            new = Path(folder) / "new"
            write(new)
            if out.exists():
                out.rename(Path(folder) / "old")
            new.rename(out)
    except OSError as error:
        raise StorageError(f"{out}: {what} cannot be written: {error.strerror}.") from None
