"""Media inside a table or an archive: bytes with a name, read as a file would be."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow

HEAD = 64
# The first bytes of a format, and the ending that stands for it. RIFF and ftyp boxes say more inside.
_STARTS = {
    b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif",
    b"MM\0*": "tif", b"fLaC": "flac", b"OggS": "ogg", b"\x1aE\xdf\xa3": "mkv", b"ID3": "mp3",
    b"\x93NUMPY": "npy", b"\xff\xfb": "mp3", b"\xff\xf3": "mp3",
}  # fmt: skip
_RIFF = {b"WAVE": "wav", b"AVI ": "avi", b"WEBP": "webp"}


class Blob:
    """The content of a media cell that is no path. Decoders use it in place of a `Path`.

    The bytes are `data` (bytes or an Arrow buffer, which may lie in a mapped file), or the `size` bytes
    of `file` from `offset` on, read when asked for. `str(blob)` is its name.
    """

    __slots__ = ("_data", "_file", "_offset", "name", "size")

    def __init__(
        self,
        name: str,
        data: bytes | pyarrow.Buffer | None = None,
        *,
        file: Path | None = None,
        offset: int = 0,
        size: int = 0,
    ) -> None:
        self.name = name
        self._data, self._file, self._offset = data, file, offset
        self.size = len(memoryview(data)) if data is not None else size

    def read_bytes(self) -> bytes:
        return self._read(0, self.size)

    def _read(self, start: int, count: int) -> bytes:
        if self._file is None:
            return bytes(memoryview(self._data or b"")[start : start + count])
        with self._file.open("rb") as file:
            file.seek(self._offset + start)
            return file.read(count)

    @property
    def head(self) -> bytes:
        """The first bytes, which tell the format."""
        return self._read(0, min(HEAD, self.size))

    def open(self, mode: str = "rb") -> BytesIO:
        assert mode == "rb"
        return BytesIO(self.read_bytes())

    def stat(self) -> Any:
        """Only `st_size`, as of a file."""
        return SimpleNamespace(st_size=self.size)

    @property
    def extension(self) -> str:
        """By content, or else by the name; "" where neither says."""
        ending = self.name.rpartition(".")[2].lower() if "." in self.name else ""
        return sniffed(self.head) or (ending if ending.isalnum() else "")

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Blob({self.name!r}, {self.size} bytes)"

    def __reduce__(self) -> tuple[Any, ...]:
        return (Blob, (self.name, self.read_bytes())) if self._file is None else (_in_file, self._place())

    def _place(self) -> tuple[str, Path | None, int, int]:
        return self.name, self._file, self._offset, self.size


def _in_file(name: str, file: Path, offset: int, size: int) -> Blob:
    return Blob(name, file=file, offset=offset, size=size)


def handle(media: Path | Blob) -> str | BytesIO:
    """What a decoder opens: the whole path of a file, which no decoder takes for an address, or bytes."""
    return media.open() if isinstance(media, Blob) else os.path.abspath(media)


def sniffed(head: bytes) -> str:
    """The ending that fits a file's first bytes; "" where they say nothing."""
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12], "")
    if head[4:8] == b"ftyp":
        return "m4a" if head[8:12] == b"M4A " else "mp4"
    return next((ending for start, ending in _STARTS.items() if head.startswith(start)), "")
