"""From a cell to a file, and from a file's name to its kind; how messages show names."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from motet.data.blob import Blob
from motet.errors import DataError

EXTENSIONS = {
    "image": ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff"),
    "audio": ("wav", "flac", "ogg", "oga", "opus", "mp3", "m4a", "aac"),
    "video": ("mp4", "m4v", "mkv", "mov", "avi", "webm"),
    "features": ("npy",),
    "text": ("txt",),
}
PICKLED = ("pkl", "pickle", "pt", "pth", "joblib")
_KINDS = {extension: kind for kind, extensions in EXTENSIONS.items() for extension in extensions}


def extension_of(cell: Any) -> str:
    """The lower-cased ending of a cell that could be a path, without the dot, or "". Of media in memory
    the content says it."""
    if isinstance(cell, Blob):
        return cell.extension
    if not isinstance(cell, str) or len(cell) > 1024 or "\n" in cell:
        return ""
    ending = PurePosixPath(cell).suffix.lower().removeprefix(".")
    return ending if ending.isalnum() else ""


def kind_of(cell: Any) -> str | None:
    """The kind of file that a cell names by its ending, or None."""
    return _KINDS.get(extension_of(cell))


def shorten(value: Any, length: int = 80) -> str:
    """`repr(value)`, cut for a message."""
    text = repr(value[: length + 1] if isinstance(value, str) else value)
    return text if len(text) <= length else text[: length - 1] + "…"


def did_you_mean(word: object, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the one that is most like it, or ""."""
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    return f" Did you mean {close[0]!r}?" if close else ""


def resolve_media(cell: str, root: Path, where: str) -> Path:
    """The regular file that a media cell names, inside `root` after following every link.

    Nothing is opened here. `where` begins the messages.

    Raises:
        DataError: a URL, an absolute path, a path that leaves `root`, no file, or no regular file.
    """

    def refuse(why: str, rule: str = "refused path") -> DataError:
        return DataError(
            f"{where}: {shorten(cell)} {why}. Paths are read relative to the table, from {root}; "
            "--set data.root=DIR changes that.",
            rule=rule,
        )

    if not isinstance(cell, str) or not cell.strip() or "\0" in cell or "\n" in cell:
        raise refuse("is not the path of a file")
    # A drive letter is one character; two or more before a colon are a protocol, to FFmpeg at least.
    if re.match(r"[A-Za-z][A-Za-z0-9+.,\-]+:", cell) or cell.startswith(("//", "\\\\")):
        raise refuse("is an address; only local files are read")
    if os.path.isabs(cell) or re.match(r"[A-Za-z]:|\\", cell):
        raise refuse("is an absolute path")
    base = os.path.realpath(root)
    real, mode = os.path.join(base, cell), _mode_without_links(base, cell)
    if mode is None:
        real = os.path.realpath(real)
        if os.path.commonpath([base, real]) != base:
            raise refuse("lies outside the table's folder")
        try:
            mode = os.stat(real).st_mode
        except OSError as error:
            raise refuse(f"cannot be found ({error.strerror})", "missing file") from None
    if not stat.S_ISREG(mode):
        raise refuse("is not a regular file")
    return Path(real)


def _mode_without_links(base: str, cell: str) -> int | None:
    """What kind of file `cell` is below the real folder `base`; None where a link, or a part such as ..,
    is on the way, or nothing is there. Looks at each part of the cell only, not of the whole path."""
    mode = None
    for part in cell.split("/"):
        base = f"{base}/{part}"
        try:
            mode = None if part in ("", ".", "..") else os.lstat(base).st_mode
        except OSError:
            return None
        if mode is None or stat.S_ISLNK(mode):
            return None
    return mode
