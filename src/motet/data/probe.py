"""What is wrong with one cell: broken (an error), or readable but odd (a warning); and what is like it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from motet.data.audio import load_audio
from motet.data.blob import HEAD, Blob, sniffed
from motet.data.features import read_features
from motet.data.image import load_image
from motet.data.media import open_media
from motet.data.mel import RATE
from motet.data.near import clip_print, picture_print, sound_print
from motet.data.paths import extension_of
from motet.data.spoken import read_words
from motet.data.text import TextConfig, clean
from motet.data.transcript import beside, is_transcript
from motet.data.video import load_video
from motet.errors import DataError

Level = Literal["error", "warning", "note"]
SILENT = 1e-3  # peak of full scale 1: -60 dB
SHORT = 0.1  # seconds
BLACK = 8  # of 255, the brightest value
LATE = 1.0  # seconds by which sound and picture may differ in length
# Families of endings that share their first bytes.
_FAMILIES = (
    ("png",), ("jpg", "jpeg"), ("gif",), ("webp",), ("bmp",), ("tif", "tiff"), ("wav",), ("avi",), ("flac",),
    ("ogg", "oga", "opus"), ("mp4", "m4v", "m4a", "mov"), ("mkv", "webm"), ("mp3", "aac"),
)  # fmt: skip


class Oddity(NamedTuple):
    level: Level
    rule: str
    message: str


class Look(NamedTuple):
    """What one cell is: its oddities, and what near-duplicates share (media only)."""

    oddities: tuple[Oddity, ...]
    print: np.ndarray | None


def probe(cell: Any, kind: str, root: Path, *, words: bool = False) -> Look:
    """Everything that is wrong with one cell that is not empty, read as `kind`. With `words` the transcript
    beside a sound or clip is read as well."""
    prints: list[np.ndarray] = []
    found: list[Oddity] = []
    try:
        if kind == "text":
            said = str(cell)
            if is_transcript(cell) and (root / cell).is_file():
                said = read_words(Path(cell), root)[0]
            found += _probe_text(said)
        else:
            found += _probe_media(cell, kind, root, prints)
            beside_it = beside(cell, root) if words and isinstance(cell, str) else None
            if beside_it is not None:
                read_words(Path(beside_it), root)
    except DataError as error:
        found.append(Oddity("error", error.rule, str(error).removeprefix("path: ")))
    return Look(tuple(found), prints[0] if prints else None)


def _probe_text(text: str) -> Iterator[Oddity]:
    limit = TextConfig().max_chars
    if not clean(text, limit):
        yield Oddity("error", "no text", "nothing but control characters")
    if len(text) > limit:
        yield Oddity("warning", "long text", f"{len(text)} characters, of which the first {limit} are read")
    if "\ufffd" in text:
        yield Oddity("warning", "bad UTF-8", "holds U+FFFD, which stands for bytes that were no UTF-8")


def _probe_media(cell: Any, kind: str, root: Path, prints: list[np.ndarray]) -> Iterator[Oddity]:
    if isinstance(cell, list):
        read_features(cell, root)
        return
    media = open_media(cell, root)
    if media is None:
        return
    name = str(cell)
    match kind:
        case "image":
            image = load_image(media, name)
            prints.append(picture_print(image))
            yield from _probe_picture(np.asarray(image))
        case "audio":
            sound = load_audio(media, name)
            if sound is None:
                yield Oddity("warning", "no sound", "a video without a sound track: missing here")
            else:
                prints.append(sound_print(sound))
                yield from _probe_sound(sound)
        case "video":
            yield from _probe_clip(media, name, prints)
        case _:
            read_features(cell, root)
    if not isinstance(media, Blob):
        found = sniff(media)
        if found and extension_of(cell) not in found:
            yield Oddity("warning", "wrong ending", f"{cell!r} holds {found[0]} (read by its content)")


def _probe_picture(pixels: np.ndarray) -> Iterator[Oddity]:
    if pixels.max() < BLACK:
        yield Oddity("warning", "black", "the picture is black")
    elif pixels.reshape(-1, pixels.shape[-1]).std(0).max() == 0:
        yield Oddity("warning", "one colour", "the picture has one colour only")


def _probe_sound(sound: np.ndarray) -> Iterator[Oddity]:
    if np.abs(sound).max() < SILENT:
        yield Oddity("warning", "silent", f"silence of {len(sound) / RATE:.1f} s")
    elif len(sound) < SHORT * RATE:
        yield Oddity("warning", "too short", f"{len(sound) / RATE * 1000:.0f} ms of sound")


def _probe_clip(path: Path | Blob, cell: str, prints: list[np.ndarray]) -> Iterator[Oddity]:
    clip, sound = load_video(path, cell), load_audio(path, cell)
    if clip is None:
        yield Oddity("warning", "no picture", "a video with sound only: its frames are missing")
    else:
        prints.append(clip_print(clip))
        yield from _probe_picture(clip.frames.reshape(-1, clip.frames.shape[2], 3))
    if sound is not None:
        yield from _probe_sound(sound)
    if clip is not None and sound is not None:
        step = float(clip.times[1]) if len(clip.times) > 1 else LATE
        apart = abs(float(clip.times[-1]) + step / 2 - len(sound) / RATE)
        if apart > LATE + step:
            yield Oddity("warning", "misaligned", f"sound and picture differ by {apart:.1f} s in length")


def sniff(path: Path) -> tuple[str, ...]:
    """The endings that fit a file's first bytes; () where they say nothing."""
    with path.open("rb") as file:
        found = sniffed(file.read(HEAD))
    return next((family for family in _FAMILIES if found in family), ())
