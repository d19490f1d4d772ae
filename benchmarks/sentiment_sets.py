"""Sets of benchmarks/sentiment.py: texts rated by people, emoji that people rated."""

from __future__ import annotations

import csv
import json
import tarfile
from pathlib import Path

import numpy as np

VADER = {
    "tweets": "tweets_GroundTruth.txt",
    "film": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
}
ARCHIVE = "hutto_ICWSM_2014.tar.gz"


def vader_table(folder: Path, name: str, out: Path, *, limit: int | None) -> Path:
    """Texts with the mean of 20 ratings, -4..4 (Hutto and Gilbert 2014); a review is one group."""
    file = out / VADER[name]
    if not file.is_file():
        loose = next(folder.rglob(VADER[name]), None)
        if loose is not None:
            data = loose.read_bytes()
        else:
            with tarfile.open(next(folder.rglob(ARCHIVE))) as archive:
                member = next(m for m in archive.getmembers() if m.isfile() and m.name.endswith(VADER[name]))
                data = archive.extractfile(member).read()  # type: ignore[union-attr]
        file.write_bytes(data)
    rows = []
    for line in file.read_bytes().decode("utf-8", errors="replace").splitlines():
        parts = line.split("\t", 2)
        if len(parts) == 3:
            rows.append((parts[0], float(parts[1]), parts[2].strip()))
    if limit is not None and len(rows) > limit:
        rows = [rows[i] for i in sorted(np.random.default_rng(0).permutation(len(rows))[:limit])]
    path = out / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as table:
        for id, score, text in rows:
            row = {"id": id, "group": id.split("_")[0], "text": text, "score": score}
            table.write(json.dumps(row) + "\n")
    return path


def emoji_table(emoji: Path, out: Path) -> Path:
    """The emoji that people rated, without their split: every seed draws its own, by concept."""
    with emoji.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["sentiment"]]
    path = out / "emoji.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        columns = ("id", "name", "picture", "speech", "sentiment", "group")
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            media = {name: str((emoji.parent / row[name]).relative_to(out)) for name in ("picture", "speech")}
            writer.writerow(row | media)
    return path
