"""Texts that are said in a sound or clip: found beside it, placed on its clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motet.data.isolate import load_audio
from motet.data.media import open_media
from motet.data.mel import HOP, RATE
from motet.data.sound import AudioConfig
from motet.data.transcript import beside, is_transcript, read_transcript

# The sound's own modality keeps the user's limits; for the times of words a long sound is heard as well.
LONG = AudioConfig(max_seconds=4 * 3600.0, max_bytes=2**31)
PAUSE = 20  # frames of 10 ms: shorter pauses belong to the speech around them


@dataclass(frozen=True)
class Spoken:
    """The cell of a plain transcript, and the cell of the sound or clip that it is said in."""

    text: str
    media: Any


@dataclass(frozen=True)
class Heard:
    """The cell of a sound or clip without words, and the folder of the model that is to hear them."""

    media: Any
    model: str


@dataclass(frozen=True)
class Timed:
    """A text and the time of each of its words (those of `text.split()`), in seconds; (words,) float32."""

    text: str
    times: np.ndarray
    estimated: bool = False


def placed(cell: Any, media: Any, root: Path, *, transcribe: str = "") -> Any:
    """The cell of a text as its processor reads it; `media` is that of the sound or clip it is said in.

    A file with word times as a `Path`; where the cell is empty, that of the file beside `media`, or
    else `Heard` where `transcribe` names a model; a plain text as `Spoken`, or as it is where there is no
    sound or clip.
    """
    if cell is None or cell == "":
        found = beside(media, root) if isinstance(media, str) and media else None
        if found is None and transcribe and media not in (None, ""):
            return Heard(media, transcribe)
        return None if found is None else Path(found)
    if is_transcript(cell) and (media is not None or (root / cell).is_file()):
        return Path(cell)
    return Spoken(cell, media) if isinstance(cell, str) and media not in (None, "") else cell


def read_words(cell: Path, root: Path) -> tuple[str, np.ndarray]:
    """The text of a transcript file, and the time at which each of its words begins.

    Raises:
        DataError: outside `root`, missing, or not what its ending says.
    """
    path = open_media(str(cell), root)
    assert isinstance(path, Path)  # the cell is not empty
    words = read_transcript(path, str(cell))
    return " ".join(word.text for word in words), np.array([word.start for word in words], np.float32)


def spread(words: Sequence[str], media: Any, root: Path) -> np.ndarray | None:
    """Times of words, by their length, over the voiced part of what `media` names; None without a sound.

    Raises:
        DataError: the sound or clip is broken.
    """
    path = open_media(media, root)
    wave = None if path is None else load_audio(path, str(media), LONG)
    if wave is None or not len(words):
        return None
    times = voiced(wave)
    lengths = np.array([len(word) + 1 for word in words], np.float64)
    share = (np.cumsum(lengths) - lengths) / lengths.sum()
    return times[(share * len(times)).astype(np.int64)].astype(np.float32)


def voiced(wave: np.ndarray) -> np.ndarray:
    """Times of the frames, 10 ms each, in which something is heard; all of them where nothing stands out.

    wave: (n,) at 16 kHz. A frame is heard within 35 dB of the loudest, and 10 dB over the quietest
    tenth where that leaves 10 dB to the loudest. Pauses under 0.2 s count as heard.
    """
    frames = np.pad(wave, (0, -len(wave) % HOP)).reshape(-1, HOP)
    level = 10 * np.log10((frames.astype(np.float64) ** 2).mean(axis=1) + 1e-12)
    loudest, floor = level.max(), np.quantile(level, 0.1)
    heard = np.flatnonzero(level >= max(loudest - 35, min(floor + 10, loudest - 10)))
    if loudest < -70:  # silence
        return np.arange(len(level)) * HOP / RATE
    gaps = np.flatnonzero((np.diff(heard) > 1) & (np.diff(heard) <= PAUSE))
    filled = [np.arange(heard[i] + 1, heard[i + 1]) for i in gaps]
    return np.sort(np.concatenate([heard, *filled])) * HOP / RATE
