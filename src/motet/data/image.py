"""Pictures: decoded by content from an allow-list of formats, to tokens that know their row and column."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from motet.data.blob import Blob
from motet.data.media import broken, described, digest, half, open_media, read_bytes, square
from motet.errors import ConfigError, DataError
from motet.types import Encoder, Kind, ModalitySpec, Piece

MAX_SCANS = 100  # encoders write about ten
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
_DAMAGE = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    MemoryError,
)


@dataclass(frozen=True)
class ImageConfig:
    """`size` is the side in pixels and `patch` a token's, without an encoder (which brings its own)."""

    size: int = 64
    patch: int = 8
    max_pixels: int = 50_000_000
    max_bytes: int = 256 * 2**20

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size < self.patch or self.size % self.patch:
            raise ConfigError(f"image: size {self.size} must be a multiple of patch {self.patch}.")


def load_image(
    path: Path | Blob,
    name: str = "",
    *,
    max_pixels: int = 50_000_000,
    max_bytes: int = 2**28,
    least: int = 0,
) -> Image.Image:
    """The picture as it should be seen: upright, RGB, transparency on white, first frame of many.

    The format is found from the content, never from the extension. `name` stands in messages. With
    `least` above 0 a JPEG may come at a half, a quarter or an eighth of its size, which is several
    times faster, as long as both its sides are at least `least` pixels.

    Raises:
        DataError: not a picture of an allowed format, more than `max_pixels` (found from the
            header, before decoding), or damaged.
    """
    name = name or path.name
    data = read_bytes(path, name, max_bytes)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise _too_large(name, width, height, max_pixels)
            if not _complete(image.format or "", data):
                raise broken(name, "truncated", "the picture ends before its data does (cut off?)")
            image.seek(0)
            if image.format == "JPEG":
                _check_scans(name, data)
                if least:
                    image.draft(None, (least, least))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image, name)
    except UnidentifiedImageError:
        raise broken(
            name, "not a picture", f"its content is none of {', '.join(FORMATS)}, whatever its name says"
        ) from None
    except Image.DecompressionBombError:
        raise _too_large(name, 0, 0, max_pixels) from None
    except _DAMAGE as error:
        rule = "truncated" if "truncated" in str(error) else "damaged"
        raise broken(
            name, rule, f"the picture cannot be decoded: {str(error) or type(error).__name__}"
        ) from None


def _too_large(name: str, width: int, height: int, limit: int) -> DataError:
    size = f"{width} x {height} pixels are" if width else "the picture is"
    return broken(
        name, "too large", f"{size} more than the limit of {limit / 1e6:g} million (image.max_pixels)"
    )


def _complete(format: str, data: bytes) -> bool:
    """Whether the file's own end marker or length is there; decoders forgive more than that."""
    match format:
        case "JPEG":
            return data.find(b"\xff\xd9", _scan_of(data)) >= 0
        case "PNG":
            return data.rfind(b"IEND") >= max(0, data.find(b"IDAT")) and len(data) >= data.rfind(b"IEND") + 8
        case "WEBP":
            return len(data) >= 8 + struct.unpack("<I", data[4:8])[0]
        case "GIF":
            return data.rstrip(b"\0\r\n ").endswith(b";")
        case _:
            return True


def _check_scans(name: str, data: bytes) -> None:
    """Each scan of a progressive JPEG goes over the whole picture; a small file can hold thousands."""
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise broken(name, "too large", f"{scans} scans of the picture, more than {MAX_SCANS}")


def _scan_of(data: bytes) -> int:
    """Where a JPEG's own scan begins, past the segments (which may hold a thumbnail, a JPEG as well).

    What phones append after the end (a second picture, a short film) does not matter then.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 1 if data[at + 1] == 0xFF else 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return at


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """RGB of any mode: transparency on white, 16-bit grey scaled. `name` stands in messages.

    Raises:
        DataError: pixels that are NaN or infinite.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(_grey8(np.asarray(image), image.mode, name)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGB", image.size, "white")
        for top in range(0, image.height, 256):  # in strips: whole copies of a large picture are dear
            strip = image.crop((0, top, image.width, min(top + 256, image.height))).convert("RGBA")
            white.paste(strip, (0, top), strip)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _grey8(values: np.ndarray, mode: str, name: str) -> np.ndarray:
    """Deep grey to 8 bit by scale: 16-bit 30000 is 117. Floats are taken as 0..1 or 0..255."""
    if mode == "F":
        if not np.isfinite(values).all():
            raise broken(name, "NaN", "pixels that are NaN or infinite")
        scaled = values * 255 if values.max() <= 1 else values
        return np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
    wide = np.clip(values, 0, 65535).astype(np.uint32)
    if mode == "I" and wide.max() <= 255:
        return wide.astype(np.uint8)
    return ((wide * 255 + 32767) // 65535).astype(np.uint8)


_LEVELS = half(np.arange(256, dtype=np.float32) / 127.5 - 1)


def patches(pictures: np.ndarray, patch: int) -> np.ndarray:
    """(n, S, S, 3) uint8 -> (n, (S/patch)^2, 3*patch^2) float32 in -1..1 as float16 holds it, row by row."""
    n, size = pictures.shape[:2]
    grid = size // patch
    x = pictures.reshape(n, grid, patch, grid, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return _LEVELS.take(x.reshape(n, grid * grid, 3 * patch * patch), mode="clip")  # a mode without checks


def encode_pictures(pictures: Sequence[np.ndarray], patch: int, encoder: Encoder | None) -> list[np.ndarray]:
    """Each (S, S, 3) uint8 picture to (rows, cols, width): patches, or what the frozen encoder says."""
    if not len(pictures):
        return []
    if encoder is None:
        flat = patches(np.stack(pictures), patch)
        grid = pictures[0].shape[0] // patch
        return [one.reshape(grid, grid, -1) for one in flat]
    mean, std = (np.asarray(v, np.float32).reshape(3, 1, 1) for v in (encoder.mean, encoder.std))  # type: ignore[attr-defined]
    inputs = [(p.transpose(2, 0, 1).astype(np.float32) / 255 - mean) / std for p in pictures]
    return [half(one) for one in encoder(inputs)]


@functools.lru_cache(maxsize=64)
def grid_places(rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each of rows*cols tokens, each (rows*cols,) float32; shared and read-only."""
    row, col = (place.astype(np.float32) for place in np.divmod(np.arange(rows * cols), cols))
    row.flags.writeable = col.flags.writeable = False
    return row, col


@functools.lru_cache(maxsize=64)
def _grid_labels(rows: int, cols: int) -> tuple[str, ...]:
    return tuple(f"row {r}, column {c}" for r in range(1, rows + 1) for c in range(1, cols + 1))


class ImageProcessor:
    """Pictures to patches, or to the token grid of a frozen encoder. Time is 0."""

    kind: Kind = "image"

    def __init__(self, name: str, config: ImageConfig, encoder: Encoder | None = None) -> None:
        self.name, self.config, self.encoder = name, config, encoder
        self.size: int = encoder.size if encoder else config.size  # type: ignore[attr-defined]
        width = encoder.width if encoder else 3 * config.patch**2
        self.spec = ModalitySpec(name, "image", "vectors", width, encoder.name if encoder else None)
        self.fingerprint = digest(self.to_dict())

    def read(self, cell: Any, root: Path) -> np.ndarray | None:
        """The picture that `cell` names, (size, size, 3) uint8; None for an empty cell.

        Raises:
            DataError: outside `root`, missing, or not a whole picture.
        """
        path = open_media(cell, root)
        if path is None:
            return None
        config = self.config
        picture = load_image(
            path, str(cell), max_pixels=config.max_pixels, max_bytes=config.max_bytes, least=2 * self.size
        )
        return square(picture, self.size)

    def pieces(self, raws: Sequence[np.ndarray]) -> list[Piece]:
        """One Piece a picture: n = rows * cols tokens, row by row."""
        out = []
        for grid in encode_pictures(raws, self.config.patch, self.encoder):
            rows, cols, width = grid.shape
            row, col = grid_places(rows, cols)
            labels = _grid_labels(rows, cols)
            out.append(
                Piece(
                    grid.reshape(-1, width),
                    np.zeros(rows * cols, np.float32),
                    row=row,
                    col=col,
                    labels=labels,
                )
            )
        return out

    def to_dict(self) -> dict[str, Any]:
        return described(self)
