"""Immutable pieces of the exact store: some rows, their vectors, and the search through them.

NAME.npy holds the vectors (n, E) float32, NAME.jsonl one row a line with the modalities of its vectors,
NAME.webp the thumbnails one after the other; a row's line says how long its own is.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motet.index.durable import verified, write
from motet.index.filter import Filter
from motet.index.store import Row

AT_ONCE = 32  # queries: their scores are held in memory


@dataclass(frozen=True)
class SegmentInfo:
    name: str
    rows: int
    vectors_sha256: str
    rows_sha256: str
    thumbnails_sha256: str = ""
    dead: tuple[int, ...] = ()


class Segment:
    """The rows of one pair of files; `alive` (rows,) says which still count."""

    def __init__(self, folder: Path, info: SegmentInfo) -> None:
        text = verified(folder / f"{info.name}.jsonl", info.rows_sha256)
        verified(folder / f"{info.name}.npy", info.vectors_sha256)
        self.info = info
        self._thumbnails = np.zeros(0, np.uint8)  # (bytes,)
        if info.thumbnails_sha256:
            verified(folder / f"{info.name}.webp", info.thumbnails_sha256)
            self._thumbnails = np.memmap(folder / f"{info.name}.webp", mode="r")
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in text.splitlines()]
        self.vectors: np.ndarray = np.load(folder / f"{info.name}.npy", mmap_mode="r", allow_pickle=False)
        self.modality = np.array([m for row in self.rows for m in row["modalities"]], dtype=np.str_)
        self.row = np.repeat(np.arange(len(self.rows)), [len(row["modalities"]) for row in self.rows])
        self._thumbnail_at = np.cumsum([0, *(row.get("thumbnail", 0) for row in self.rows)])
        self.start = np.searchsorted(self.row, np.arange(len(self.rows)))
        self.modalities = frozenset(map(str, np.unique(self.modality)))
        self.fields = frozenset(name for row in self.rows for name in row["fields"])
        self.alive = np.ones(len(self.rows), dtype=bool)
        self.revive(info)

    def revive(self, info: SegmentInfo) -> None:
        """Take the dead rows from `info`, the same segment in a newer manifest."""
        self.info = info
        self.alive[:] = True
        self.alive[list(info.dead)] = False

    def read(self, position: int) -> Row:
        row, start = self.rows[position], self.start[position]
        vectors = {m: np.asarray(self.vectors[start + i]) for i, m in enumerate(row["modalities"])}
        return Row(row["id"], row["digest"], row["fields"], vectors, self.thumbnail(position))

    def thumbnail(self, position: int) -> bytes:
        """The thumbnail of a row, empty where it has none."""
        start, end = self._thumbnail_at[position : position + 2].tolist()
        return self._thumbnails[start:end].tobytes()

    def best(
        self, queries: np.ndarray, top: int, modality: str | None, where: Filter | None
    ) -> list[list[tuple[float, str, str]]]:
        """(cosine, id, modality) of at most `top` different rows nearest to each of `queries` (Q, E)."""
        rows = self.alive
        if where is not None:
            rows = rows & np.array([where(row["fields"]) for row in self.rows], dtype=bool)
        allowed = rows[self.row] if modality is None else rows[self.row] & (self.modality == modality)
        found = []
        for start in range(0, len(queries), AT_ONCE):
            for scores in queries[start : start + AT_ONCE] @ self.vectors.T:
                found.append(self._best(np.where(allowed, np.clip(scores, -1, 1), -np.inf), top))
        return found

    def _best(self, scores: np.ndarray, top: int) -> list[tuple[float, str, str]]:
        """scores: (vectors,), -inf for those that do not count. Best first."""
        by_row = np.maximum.reduceat(scores, self.start) if len(scores) else scores
        count = min(top, int(np.isfinite(by_row).sum()))
        if count == 0:
            return []
        floor = np.partition(by_row, -count)[-count]
        best = np.flatnonzero(by_row >= floor)
        best = best[np.argsort(-by_row[best], kind="stable")][:count]
        out = []
        for position in best:
            row, start = self.rows[position], self.start[position]
            which = int(np.argmax(scores[start : start + len(row["modalities"])]))
            out.append((float(by_row[position]), row["id"], row["modalities"][which]))
        return out


def write_segment(folder: Path, rows: Sequence[Row], width: int) -> SegmentInfo:
    name = f"seg-{secrets.token_hex(8)}"
    lines = [
        json.dumps(
            {"id": r.id, "digest": r.digest, "modalities": list(r.vectors), "fields": dict(r.fields)}
            | ({"thumbnail": len(r.thumbnail)} if r.thumbnail else {})
        )
        for r in rows
    ]
    vectors = [vector for row in rows for vector in row.vectors.values()]
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(vectors, np.float32).reshape(-1, width), allow_pickle=False)
    content = {".jsonl": ("\n".join(lines) + "\n").encode(), ".npy": buffer.getvalue()}
    thumbnails = b"".join(row.thumbnail for row in rows)
    if thumbnails:
        content[".webp"] = thumbnails
    for suffix, data in content.items():
        write(folder / (name + suffix), data)
    digests = {suffix: hashlib.sha256(data).hexdigest() for suffix, data in content.items()}
    return SegmentInfo(name, len(rows), digests[".npy"], digests[".jsonl"], digests.get(".webp", ""))
