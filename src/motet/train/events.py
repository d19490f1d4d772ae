"""The event file that TensorBoard reads: RUN/events/events.out.tfevents.motet, without its package.

A record is its length (8 bytes), a checksum of that, an Event of protocol buffers, and a checksum of it;
an Event here has a time (field 1), a step (2) and a Summary (5) of tags and numbers.

Source: tensorflow/core/lib/io/record_writer.h, tensorflow/core/util/event.proto and
tensorflow/core/framework/summary.proto.
"""

from __future__ import annotations

import functools
import math
import os
import struct
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from motet.errors import StorageError

NAME = "events.out.tfevents.motet"  # it must have "tfevents" in it
_TIME, _STEP, _VERSION, _SUMMARY = b"\x09", b"\x10", b"\x1a", b"\x2a"  # field << 3 | wire type
_LARGEST = 3.4e38
_VALUE, _TAG, _NUMBER = b"\x0a", b"\x0a", b"\x15"


class Events:
    """The events of the run in `folder`, which continues at `step`; what was logged after that goes.

    Raises:
        StorageError: the file cannot be written.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self.path = folder / "events" / NAME
        try:
            self.path.parent.mkdir(exist_ok=True)
            held = self.path.read_bytes() if self.path.is_file() else b""
            kept = _until(held, step)
            with open(self.path, "ab") as file:
                file.truncate(kept)
        except OSError as error:
            raise self._error(error) from None
        if not kept:
            self._append(_VERSION + _sized(b"brain.Event:2"))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """One event with all `values`, by tag."""
        numbers = (
            _VALUE + _sized(_TAG + _sized(tag.encode()) + _NUMBER + struct.pack("<f", _single(value)))
            for tag, value in values.items()
        )
        self._append(_STEP + _varint(step) + _SUMMARY + _sized(b"".join(numbers)))

    def _append(self, event: bytes) -> None:
        try:
            with open(self.path, "ab") as file:
                file.write(_record(_TIME + struct.pack("<d", time.time()) + event))
        except OSError as error:
            raise self._error(error) from None

    def _error(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path}: cannot be written: {os.strerror(error.errno or 0)}. Free some space and run again "
            "with --resume."
        )


def _single(value: float) -> float:
    """Infinite where it does not fit into 4 bytes."""
    return math.copysign(math.inf, value) if abs(value) > _LARGEST else value


def _record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + _checked(length) + data + _checked(data)


def _records(held: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each record begins, and its data, up to the first that is cut off or damaged."""
    start = 0
    while start + 16 <= len(held):
        length = held[start : start + 8]
        stop = start + 12 + struct.unpack("<Q", length)[0]
        data = held[start + 12 : stop]
        if held[start + 8 : start + 12] != _checked(length) or held[stop : stop + 4] != _checked(data):
            return
        yield start, data
        start = stop + 4


def _until(held: bytes, step: int) -> int:
    """How many of the bytes are whole records of events up to `step`."""
    kept = 0
    for start, data in _records(held):
        if _step_of(data) > step:
            return start
        kept = start + len(data) + 16
    return kept


def _step_of(event: bytes) -> int:
    """Of an event as written here: after the time (9 bytes) comes the step, or the file's version."""
    if event[9:10] != _STEP:
        return 0
    number = 0
    for i, byte in enumerate(event[10:20]):
        number |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            break
    return number


def _sized(data: bytes) -> bytes:
    return _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _checked(data: bytes) -> bytes:
    """The masked CRC-32C of the format."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def crc32c(data: bytes) -> int:
    """The Castagnoli checksum, RFC 3720 appendix B.4."""
    crc, table = 0xFFFFFFFF, _table()
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@functools.cache
def _table() -> list[int]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return table
