"""The tables of `fused.py` and `objectives.py`: stamps and digits, a split of their own for every seed."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

from motet.data.builtin.digits import build_digits
from motet.data.builtin.tuxpaint import build_tuxpaint
from motet.errors import ConfigError

FSDD = "MOTET_FSDD"
LANGUAGE = "es"  # the one with the most recordings after French whose captions name no English word
BUILT = "built"  # the folder of the data set as it is, beside the table made of it
MEDIA = ("picture", "speech")
LABEL = {"stamps": "category", "digits": "digit"}
MODALITIES = {"stamps": ("picture", "caption_own", "speech"), "digits": ("picture", "speech")}
KEPT = {"train": 8, "val": 20, "test": 50}  # recordings of a digit by one speaker


def make_table(name: str, work: Path, seed: int) -> Path:
    """The table of a set: only rows that have every modality, and only the columns that are used.

    Raises:
        ConfigError: what the set is made of is not here.
    """
    folder = work / f"{name}-{seed}"
    match name:
        case "stamps":
            built = build_tuxpaint(folder / BUILT, language=LANGUAGE, seed=seed)
        case "digits":
            if FSDD not in os.environ:
                raise ConfigError(f"digits: {FSDD} names the folder of recordings 0_NAME_0.wav.")
            built = build_digits(folder / BUILT, Path(os.environ[FSDD]), seed=seed)
        case _:
            raise ConfigError(f"--sets {name}: there are {', '.join(LABEL)}.")
    columns = ["id", *MODALITIES[name], LABEL[name], "split", *(["group"] if name == "stamps" else [])]
    rows = [row for row in read_built(built) if all(row[m] for m in MODALITIES[name])]
    return write_table(folder / "whole.csv", columns, _few(rows) if name == "digits" else rows)


def read_built(built: Path) -> list[dict[str, str]]:
    """The rows of a data set, their media named as from the folder above its own."""
    with built.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {m: f"{BUILT}/{row[m]}" for m in MEDIA if row.get(m)}
    return rows


def write_table(path: Path, columns: list[str], rows: list[dict[str, str]]) -> Path:
    """A table of some columns of `rows`."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def _few(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Few rows for training: with all of them a picture alone leaves nothing to gain."""
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for row in rows:
        key = row["speaker"], row["digit"]
        if seen[key] < KEPT[row["split"]]:
            kept.append(row)
        seen[key] += 1
    return kept
