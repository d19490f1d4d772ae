"""Tux Paint's stamps as one table for retrieval: a row for every language in which a stamp is described.

Columns: `picture`; `caption`, English; `own`, the caption in the row's language; `sounds`, how espeak-ng
would pronounce it: counts of one and two sounds (IPA), hashed; `speech`, a person reading it, as Whisper's
encoder hears it. Rows that share a caption, a translation or a file are one group, and groups never cross the
split.
"""

from __future__ import annotations

import csv
import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from speech_embedding import SpeechEmbedding

from motet.data.builtin.tuxpaint import Stamp, draw_svg, find_stamps
from motet.data.groups import connected
from motet.data.sound import load_audio
from motet.errors import DataError

LANGUAGES = ("es", "fr", "ca", "ro", "bg", "ru", "be", "el", "da", "en")
TEST, VAL = 120, 90  # captions
COLUMNS = ("id", "picture", "caption", "own", "sounds", "speech", "language", "group", "split")
STRESS = str.maketrans("", "", "ˈˌ-")
UTF8, IPA = 1, 2
SOUNDS = 2048


@dataclass(frozen=True)
class Described:
    """A stamp in one language. `features` names the file of its speech's features."""

    stamp: Stamp
    language: str
    group: int
    features: Path | None

    @property
    def own(self) -> str:
        return self.stamp.caption if self.language == "en" else self.stamp.own or ""


def described(work: Path, languages: Sequence[str], whisper: Path) -> list[Described]:
    """Every stamp in every language that describes it; pictures and features are made once, below `work`."""
    found = [
        (replace(stamp, picture=_beside(work, stamp)), language)
        for language in languages
        for stamp in find_stamps(language)
    ]
    group = _groups([stamp for stamp, _ in found])
    embed: SpeechEmbedding | None = None
    out = []
    for (stamp, language), own_group in zip(found, group, strict=True):
        features = None
        if stamp.speech is not None:
            features = work / "speech" / language / f"{stamp.id}.npy"
            if not features.exists():
                embed = embed or SpeechEmbedding(whisper)
                features = _features(stamp.speech, features, embed)
        out.append(Described(stamp, language, own_group, features))
    return [one for one in out if one.own or one.features]


def _beside(work: Path, stamp: Stamp) -> Path | None:
    """The stamp's picture as a PNG below `work`; None without one, or where its SVG cannot be drawn."""
    if stamp.picture is None:
        return None
    copy = work / "picture" / f"{stamp.id}.png"
    if not copy.exists():
        drawn = draw_svg(stamp.picture) if stamp.picture.suffix == ".svg" else stamp.picture.read_bytes()
        if drawn is None:
            return None
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(drawn)
    return copy


def _features(sound: Path, path: Path, embed: SpeechEmbedding) -> Path | None:
    try:
        wave = load_audio(sound)
    except DataError as error:
        print(f"left out: {error}", file=sys.stderr)
        return None
    assert wave is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, embed(wave).astype(np.float16))
    return path


def _groups(stamps: Sequence[Stamp]) -> list[int]:
    """The first row that each row is linked to by a caption, a translation or a picture."""
    known: dict[object, int] = {}
    links = np.full((3, len(stamps)), -1, np.int64)
    for i, stamp in enumerate(stamps):
        keys = (
            _key(stamp.caption),
            stamp.own and _key(stamp.own),
            stamp.picture and stamp.picture.read_bytes(),
        )
        for k, key in enumerate(keys):
            if key:
                links[k, i] = known.setdefault(key, len(known))
    return connected([links], len(stamps)).tolist()


def _key(text: str) -> str:
    return " ".join(text.casefold().split())


def split(rows: Sequence[Described], seed: int) -> dict[int, str]:
    """group -> "test", "val" or "train": TEST and VAL captions of stamps that have all in es and in fr."""
    whole = [row for row in rows if row.features and row.own and row.stamp.picture]
    told = {(row.language, _key(row.stamp.caption)): row.group for row in whole}
    captions: dict[int, int] = {}
    for (language, caption), group in told.items():
        if language == "es" and ("fr", caption) in told:
            captions[group] = captions.get(group, 0) + 1
    part = {row.group: "train" for row in rows}
    left = {"test": TEST, "val": VAL}
    for group in np.random.default_rng(seed).permutation(sorted(captions)).tolist():
        for name, most in left.items():
            if captions[group] <= most:
                part[group] = name
                left[name] -= captions[group]
                break
    return part


def write_table(rows: Sequence[Described], part: dict[int, str], path: Path) -> Path:
    """The table of the rows whose part is not "", in the folder that `described` was given."""
    rows = [row for row in rows if part[row.group]]
    with path.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for row, ipa in zip(rows, _pronounced(rows), strict=True):
            stamp, features = row.stamp, row.features and row.features.relative_to(path.parent)
            picture = stamp.picture and stamp.picture.relative_to(path.parent)
            counts = path.parent / "sounds" / row.language / f"{stamp.id}.npy"
            if ipa and not counts.exists():
                counts.parent.mkdir(parents=True, exist_ok=True)
                np.save(counts, _counts(ipa))
            sounds = counts.relative_to(path.parent) if ipa else None
            who = (row.language, row.group, part[row.group])
            out.writerow(
                [f"{stamp.id}@{row.language}", picture, stamp.caption, row.own, sounds, features, *who]
            )
    return path


def _counts(text: str) -> np.ndarray:
    """(SOUNDS,): roots of how often each sound and each two in a row occur, hashed."""
    out = np.zeros(SOUNDS, np.float32)
    for size in (1, 2):
        for i in range(len(text) - size + 1):
            code = size
            for letter in text[i : i + size]:
                code = (code * 1_000_003 + ord(letter)) % SOUNDS
            out[code] += 1
    return np.sqrt(out)


def _pronounced(rows: Sequence[Described]) -> list[str]:
    """The IPA of each row's own caption, without stress."""
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    if library.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0x8000) <= 0:
        sys.exit("espeak-ng does not start")
    out, voice = [], ""
    for row in rows:
        if row.language != voice:
            voice = row.language
            if library.espeak_SetVoiceByName(voice.encode()):
                sys.exit(f"espeak-ng has no voice {voice!r}")
        text, said = ctypes.c_char_p(row.own.encode()), []
        while text.value:
            said.append(library.espeak_TextToPhonemes(ctypes.pointer(text), UTF8, IPA).decode())
        out.append(" ".join(said).translate(STRESS))
    return out
