"""A small picture of a row, kept with its vectors: what was found can be shown where its files are not."""

from __future__ import annotations

import io
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from motet.data.frames import VideoConfig
from motet.data.isolate import load_image
from motet.data.media import open_media
from motet.data.paths import kind_of
from motet.data.video import load_video
from motet.errors import MotetError
from motet.predictor.inputs import Entry

SIDE = 160  # pixels at most
MOST = 48_000  # bytes; Milvus keeps 65,535 characters


def thumbnail_of(entry: Entry) -> bytes:
    """WebP of the first picture or clip among the cells that can be read; empty where there is none."""
    for cell in entry.cells.values():
        with suppress(MotetError, OSError):
            picture = _picture(cell, entry.root)
            if picture is not None:
                return _small(picture)
    return b""


def _picture(cell: Any, root: Path) -> Image.Image | None:
    if isinstance(cell, Image.Image):
        return cell.convert("RGB")
    kind = kind_of(str(cell) if isinstance(cell, Path) else cell)
    if kind not in ("image", "video"):
        return None
    path = open_media(cell, root)
    if path is None:
        return None
    if kind == "image":
        return load_image(path, least=SIDE)
    clip = load_video(path, config=VideoConfig(max_frames=1), size=SIDE)
    return Image.fromarray(clip.frames[0]) if clip is not None and len(clip.frames) else None


def _small(picture: Image.Image) -> bytes:
    picture = picture.copy()
    picture.thumbnail((SIDE, SIDE))
    for quality in (75, 40, 10):
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", quality=quality)
        if buffer.tell() <= MOST:
            return buffer.getvalue()
    return b""
