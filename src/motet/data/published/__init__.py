"""Published sets, from the files that their users already have, to a table that `motet fit` takes.

CMU-MOSI, CMU-MOSEI and CH-SIMS as MMSA ships them (`.pkl`, or the same arrays in `.npz`), MELD
(its CSV files and clips), IEMOCAP (its folders). Nothing is downloaded.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from motet.data.paths import did_you_mean
from motet.data.published.iemocap import read_iemocap
from motet.data.published.meld import read_meld
from motet.data.published.mmsa import Words, read_mmsa
from motet.data.published.writer import MediaWriter, Row
from motet.errors import ConfigError, DataError, StorageError

Layout = Literal["mosi", "mosei", "sims", "meld", "iemocap"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
TABLE = "table.jsonl"


@dataclass(frozen=True)
class Converted:
    """table: the file to train on. rows: how many of each part. notes: what people should know."""

    table: Path
    rows: Mapping[str, int]
    notes: tuple[str, ...]


def convert(
    layout: str, source: Path, out: Path, *, clips: Path | None = None, text: Words = "raw"
) -> Converted:
    """Write `out`/table.jsonl, with its media beside it, from a published set's own files.

    clips: where MELD's clips lie, if not beside the CSV. text: of the MMSA layouts, the sentences
    ("raw"), their features, or both.

    Raises:
        ConfigError: an unknown layout, or `out` is there already.
        DataError: the source is not of this layout, or holds what is never read.
    """
    if layout not in LAYOUTS:
        raise ConfigError(
            f"{layout!r}: no known layout. Known are {', '.join(LAYOUTS)}.{did_you_mean(layout, LAYOUTS)}"
        )
    if not source.exists():
        raise DataError(f"{source}: no such file or folder (looked from {Path.cwd()}). Check the path.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out}: is there already and not empty. Give another --out.")
    fresh = out.with_name(f".{out.name}.new-{uuid.uuid4().hex[:8]}")
    try:
        fresh.mkdir(parents=True)
        writer = MediaWriter(fresh)
        match layout:
            case "meld":
                rows = read_meld(source, clips or (source if source.is_dir() else source.parent), writer)
            case "iemocap":
                rows = read_iemocap(source, writer)
            case _:
                rows = read_mmsa(source, text, writer)
        counts = _write_table(rows, fresh, source)
        if out.exists():
            out.rmdir()
        fresh.rename(out)
    except OSError as error:
        raise StorageError(
            f"{out}: cannot be written: {error.strerror}. Free space, or give another --out."
        ) from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Converted(out / TABLE, counts, tuple(writer.notes))


def _write_table(rows: Iterator[Row], folder: Path, source: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    seen: set[str] = set()
    with (folder / TABLE).open("w", encoding="utf-8") as file:
        for row in rows:
            if row["id"] in seen:
                raise DataError(f"{source}: the id {row['id']!r} stands in it twice.")
            seen.add(row["id"])
            part = row.get("split", "all")
            counts[part] = counts.get(part, 0) + 1
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
    if not counts:
        raise DataError(f"{source}: not one row was found in it.")
    return counts
