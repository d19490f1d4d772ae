"""Pictures decoded by their content: an allow-list of formats, upright, RGB, within limits.

Plain pictures are decoded where they are asked for, and what bounds their time is counted before: their
pixels, their passes over the pixels, the parts of the file. `apart` decodes the others under a wall
clock: GIF and TIFF, whose headers alone can take long, and whatever has more than INLINE pixels to fill.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from motet.data.blob import HEAD, Blob, sniffed
from motet.data.media import broken, read_bytes
from motet.errors import ConfigError, DataError

INLINE = 16_000_000  # pixels, times the passes over them
MAX_SCANS = 100  # encoders write about ten
MAX_PARTS = 100_000  # segments of a JPEG before its pixels, chunks of a PNG
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
APART = ("gif", "tif")
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
    """`size` is the side in pixels and `patch` a token's, without an encoder (which brings its own).

    The other limits refuse a picture as broken.
    """

    size: int = 64
    patch: int = 8
    max_pixels: int = 50_000_000
    max_bytes: int = 256 * 2**20
    wall_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size < self.patch or self.size % self.patch:
            raise ConfigError(f"image: size {self.size} must be a multiple of patch {self.patch}.")


def load_image(
    path: Path | Blob,
    name: str = "",
    config: ImageConfig | None = None,
    *,
    least: int = 0,
    apart: Callable[[], Image.Image] | None = None,
) -> Image.Image:
    """The picture as it should be seen: upright, RGB, transparency on white, first frame of many.

    The format is found from the content, never from the extension. `name` stands in messages. With
    `least` above 0 a JPEG may come at a half, a quarter or an eighth of its size, which is several
    times faster, as long as both its sides are at least `least` pixels. `apart` is called for the
    same picture where decoding it may take long.

    Raises:
        DataError: not a picture of an allowed format, more than `max_pixels` (found from the
            header, before decoding), or damaged.
    """
    name, config = name or path.name, config or ImageConfig()
    data = read_bytes(path, name, config.max_bytes)
    if apart is not None and sniffed(data[:HEAD]) in APART:
        return apart()
    pixels_at = _pixels_at(name, data)
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            width, height = image.size
            if width * height > config.max_pixels:
                raise _too_large(name, width, height, config.max_pixels)
            # a phone's picture with a second one appended has a format name of its own, MPO
            format = "JPEG" if data.startswith(b"\xff\xd8") else image.format or ""
            if not _complete(format, data, pixels_at):
                raise broken(name, "truncated", "the picture ends before its data does (cut off?)")
            passes = _passes(name, image, data, pixels_at) if format == "JPEG" else 1
            if apart is not None and width * height * passes > INLINE:
                return apart()
            image.seek(0)
            if least and format == "JPEG":
                image.draft(None, (least, least))
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return to_rgb(image, name)
    except UnidentifiedImageError:
        raise broken(
            name, "not a picture", f"its content is none of {', '.join(FORMATS)}, whatever its name says"
        ) from None
    except Image.DecompressionBombError:
        raise _too_large(name, 0, 0, config.max_pixels) from None
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


def _pixels_at(name: str, data: bytes) -> int:
    """Where a JPEG's own first scan begins, past its segments (one may hold a thumbnail, a JPEG as well).

    The parts of a JPEG or PNG are counted on the way: each costs the decoder time, however small.
    """
    at, parts = 0, 0
    if data.startswith(b"\xff\xd8"):
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA and parts <= MAX_PARTS:
            at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
            parts += 1
    elif data.startswith(b"\x89PNG"):
        after = 8
        while after + 8 <= len(data) and parts <= MAX_PARTS:
            after += 12 + int.from_bytes(data[after : after + 4])
            parts += 1
    if parts > MAX_PARTS:
        raise broken(name, "too large", f"its file has more than {MAX_PARTS} parts")
    return at


def _complete(format: str, data: bytes, pixels_at: int) -> bool:
    """Whether the file's own end marker or length is there; decoders forgive more than that.

    What phones append after the end (a second picture, a short film) does not matter.
    """
    match format:
        case "JPEG":
            ended = data.endswith(b"\xff\xd9") and pixels_at < len(data) - 2  # spares a look at all of it
            return ended or data.find(b"\xff\xd9", pixels_at) >= 0
        case "PNG":
            return data.rfind(b"IEND") >= max(0, data.find(b"IDAT")) and len(data) >= data.rfind(b"IEND") + 8
        case "WEBP":
            return len(data) >= 8 + struct.unpack("<I", data[4:8])[0]
        case "GIF":
            return data.rstrip(b"\0\r\n ").endswith(b";")
        case _:
            return True


def _passes(name: str, image: Image.Image, data: bytes, pixels_at: int) -> int:
    """How often decoding goes over a JPEG. Each scan of a progressive one goes over all of it; a small
    file can hold thousands. A scan of all components that is not progressive is the only one."""
    if not image.info.get("progressive") and data[pixels_at + 4 : pixels_at + 5] == bytes([image.layers]):  # type: ignore[attr-defined]
        return 1
    scans = data.count(b"\xff\xda")
    if scans > MAX_SCANS:
        raise broken(name, "too large", f"{scans} scans of the picture, more than {MAX_SCANS}")
    return scans


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
