"""MELD: its CSV files and clips."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from motet.data.folder import SPLITS
from motet.data.published.writer import MediaWriter, Row
from motet.errors import DataError


def read_meld(source: Path, clips: Path, writer: MediaWriter) -> Iterator[Row]:
    """Source: https://github.com/declare-lab/MELD: {train,dev,test}_sent_emo.csv, dia{D}_utt{U}.mp4.

    Clips of different parts have the same names, so they are looked for in folders named by the part
    first. An utterance without a clip keeps its text.
    """
    files = [source] if source.is_file() else sorted(source.glob("*_sent_emo*.csv"))
    if not files:
        raise DataError(f"{source}: no train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv in it.")
    found = _clips(clips)
    lacking = 0
    for file in files:
        part = next((SPLITS[w] for w in re.split(r"[^a-z]+", file.stem.lower()) if w in SPLITS), None)
        for number, cells in _csv_rows(file):
            place = tuple(_whole(cells, key, file, number) for key in ("Dialogue_ID", "Utterance_ID"))
            name = f"dia{place[0]}_utt{place[1]}"
            prefix = f"{part}_" if part else ""
            row: Row = {"id": f"{prefix}{name}", "group": f"{prefix}dia{place[0]}", "order": place[1]}
            row |= {"split": part} if part else {}
            row["text"] = cells["Utterance"].strip() or None
            clip = found.get((part, name)) or found.get((None, name))
            lacking += clip is None
            if found:
                row["clip"] = None if clip is None else writer.media(f"clips/{part or 'all'}", clip)
            row |= {"emotion": cells["Emotion"].strip().lower() or None}
            yield row | {"sentiment": cells["Sentiment"].strip().lower() or None}
    if lacking:
        writer.notes.append(f"{lacking} utterances have no clip below {clips}; their text is kept")


def _clips(folder: Path) -> dict[tuple[str | None, str], Path]:
    """(part, dia0_utt0) -> file; the part where a folder above it names one, else None."""
    found: dict[tuple[str | None, str], Path] = {}
    for path in sorted(
        p for p in folder.rglob("dia*_utt*.*") if p.suffix.lower() in (".mp4", ".mkv", ".wav")
    ):
        words = [
            w for part in path.relative_to(folder).parts[:-1] for w in re.split(r"[^a-z]+", part.lower())
        ]
        part = next((SPLITS[word] for word in words if word in SPLITS), None)
        found.setdefault((part, path.stem), path)
    return found


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line and cells. MELD's files mix UTF-8 and Windows-1252."""
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", errors="replace")
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    needed = ("Utterance", "Emotion", "Sentiment", "Dialogue_ID", "Utterance_ID")
    lacking = [name for name in needed if name not in (reader.fieldnames or ())]
    if lacking:
        raise DataError(f"{file}: lacks the columns {', '.join(lacking)}, which MELD's files have.")
    try:
        for cells in reader:
            if any(cells[name] is None for name in needed):
                raise DataError(f"{file}, line {reader.line_num}: has fewer cells than the header.")
            yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(f"{file}, line {reader.line_num}: not CSV: {error}.") from None


def _whole(cells: Mapping[str, str], key: str, file: Path, line: int) -> int:
    if not cells[key].strip().isdigit():
        raise DataError(f"{file}, line {line}: {key} {cells[key][:40]!r} is no number.")
    return int(cells[key])
