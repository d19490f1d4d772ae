"""Containers of sound and video, opened by PyAV so that a hostile file can reach nothing but itself."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from motet.data.blob import Blob, handle
from motet.data.media import broken
from motet.errors import DataError

# Self-contained demuxers only: no playlists (hls, concat, dash), devices, pictures or scripts.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,ogg,"
    "mp3,aac,ac3,eac3,flac,wav,w64,aiff,amr,amrnb,amrwb,caf,au,opus"
)
# The C code reports damage by FFmpegError; PyAV itself by the others.
DAMAGE = (av.FFmpegError, OSError, ValueError, RuntimeError, EOFError, AssertionError, MemoryError)


class Deadline:
    """Wall time for one file."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        self.end = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() > self.end:
            raise broken(self.name, "too slow", f"decoding took more than {self.seconds:g} s of wall time")


@contextmanager
def open_container(path: Path | Blob, name: str, *, seconds: float = 60.0) -> Iterator[Any]:
    """An `av` input container over a local file or bytes; `seconds` bounds opening and each read.

    Raises:
        DataError: not an allowed container, shorter than it says, or damaged.
    """
    try:
        _check_whole(path, name)
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        with av.open(
            handle(path), options=options, metadata_errors="replace", timeout=(seconds, seconds)
        ) as container:
            yield container
    except DataError:
        raise
    except DAMAGE as error:
        # FFmpeg's own messages may hold the path
        why = getattr(error, "strerror", None) or type(error).__name__
        raise broken(name, "damaged", f"not a readable sound or video file ({why})") from None


def _check_whole(path: Path | Blob, name: str) -> None:
    """Refuse a file that ends before its own headers say: decoders return the rest without a word."""
    size = path.stat().st_size
    if size == 0:
        raise broken(name, "empty file", "the file has 0 bytes")
    with path.open("rb") as file:
        head = file.read(64)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            end = _end_of_boxes(file, size)
        elif head[:4] == b"\x1aE\xdf\xa3":
            end = _end_of_segment(file)
        elif head[:4] == b"RIFF":
            end = 8 + struct.unpack("<I", head[4:8])[0]
            end = 0 if head[4:8] == b"\xff\xff\xff\xff" else end
        else:
            end = 0
    if end > size:
        raise broken(
            name, "truncated", f"the file has {size} bytes of the {end} that it announces (cut off?)"
        )


def _end_of_boxes(file: Any, size: int) -> int:
    """Where the last top-level box of an MP4 ends, beyond `size` if it is cut."""
    at = 0
    for _ in range(10_000):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return at + 8 if head else at
        length = struct.unpack(">I", head[:4])[0]
        if length == 1:
            if len(head) < 16:
                return at + 16
            length = struct.unpack(">Q", head[8:])[0]
        elif length == 0:
            return size
        if length < 8:
            return at  # not a box: trailing bytes, which players ignore
        at += length
        if at >= size:
            return at
    return at


def _end_of_segment(file: Any) -> int:
    """Where the Segment of a Matroska file ends; 0 when its length is not known."""
    file.seek(4)
    end = 4
    for _ in range(2):
        value, width = _vint(file.read(8))
        if value is None or not width:
            return 0
        body = end + width
        if _ == 1:
            return body + value
        file.seek(body + value)
        end = body + value + 4
        if file.read(4) != b"\x18S\x80g":
            return 0
    return 0


def _vint(data: bytes) -> tuple[int | None, int]:
    """An EBML length: its value (None: unknown) and its width in bytes."""
    if not data or not data[0]:
        return None, 0
    width = 9 - data[0].bit_length()
    value = int.from_bytes(data[:width], "big") & ((1 << (7 * width)) - 1)
    return (None if value == (1 << (7 * width)) - 1 else value), width


def start_of(container: Any) -> float:
    """Seconds at which the container's clock starts; times of its streams are counted from there."""
    return (container.start_time or 0) / 1_000_000
