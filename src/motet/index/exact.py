"""The exact store: every vector is compared with the query, in fp32. No dependency; the oracle of the others.

A folder of immutable segments and one manifest:

    rows.json                         which segments count, and which of their rows are dead
    NAME.npy, NAME.jsonl, NAME.webp   the segments

A change writes a new segment, then replaces the manifest: what a reader finds is always the whole
of one commit. Small segments are merged into the new one, so their number stays logarithmic.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from motet.config import from_dict, read, to_dict
from motet.errors import ConfigError, DataError
from motet.index.durable import lock, write, writing
from motet.index.filter import Filter
from motet.index.segment import Segment, SegmentInfo, write_segment
from motet.index.store import Row
from motet.types import Hit

MANIFEST = "rows.json"
FORMAT = 1
MOST_DEAD = 20_000  # of one segment, before it is written anew: keeps the manifest small


@dataclass(frozen=True)
class Manifest:
    format: int
    width: int
    segments: tuple[SegmentInfo, ...] = ()


class ExactStore:
    """See the module. Several processes may read and write; writers wait for each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segments: dict[str, Segment] = {}
        self._places: dict[str, tuple[str, int]] = {}
        self._stamp: tuple[int, int] | None = None
        self.refresh()

    @staticmethod
    def exists(folder: Path) -> bool:
        return (folder / MANIFEST).is_file()

    @classmethod
    def create(cls, folder: Path, width: int) -> ExactStore:
        """A new, empty store.

        Raises:
            ConfigError: something is at this path already.
            StorageError: it cannot be written.
        """
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder}: already there, and not empty. Choose another path for the new index."
            )
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            write(folder / MANIFEST, _as_json(to_dict(Manifest(FORMAT, width))))
        return cls(folder)

    def refresh(self) -> None:
        """Read what has been committed since, if anything has."""
        for attempt in range(5):
            try:
                stat = (self.folder / MANIFEST).stat()
                if (stat.st_ino, stat.st_mtime_ns) == self._stamp:
                    return
                self._load(_read_manifest(self.folder))
                self._stamp = (stat.st_ino, stat.st_mtime_ns)
                return
            except FileNotFoundError as error:  # a writer merged a segment after the manifest was read
                if attempt == 4:
                    raise DataError(
                        f"{self.folder}: {Path(error.filename).name} is missing; the index is damaged. "
                        "Build it again with: motet index MODEL TABLE --out NEW"
                    ) from None

    def _load(self, manifest: Manifest) -> None:
        known = self._segments
        self._segments = {
            info.name: known[info.name] if info.name in known else Segment(self.folder, info)
            for info in manifest.segments
        }
        for info in manifest.segments:
            self._segments[info.name].revive(info)
        self._places = {
            segment.rows[position]["id"]: (name, int(position))
            for name, segment in self._segments.items()
            for position in np.flatnonzero(segment.alive)
        }
        self._manifest = manifest

    def __len__(self) -> int:
        return len(self._places)

    def get(self, id: str) -> Row | None:
        if id not in self._places:
            return None
        name, position = self._places[id]
        return self._segments[name].read(position)

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """id -> digest of those that are there."""
        places = {id: self._places[id] for id in ids if id in self._places}
        return {id: self._segments[name].rows[i]["digest"] for id, (name, i) in places.items()}

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """id -> thumbnail of those that have one."""
        places = {id: self._places[id] for id in ids if id in self._places}
        found = {id: self._segments[name].thumbnail(i) for id, (name, i) in places.items()}
        return {id: thumbnail for id, thumbnail in found.items() if thumbnail}

    def has_field(self, name: str) -> bool:
        return any(name in s.fields for s in self._segments.values())

    def fields(self) -> set[str]:
        """The names of all fields that any row has."""
        return {name for s in self._segments.values() for name in s.fields}

    def has_modality(self, name: str) -> bool:
        return any(name in s.modalities for s in self._segments.values())

    def modalities(self) -> set[str]:
        return {name for s in self._segments.values() for name in s.modalities}

    def rows(self) -> Iterator[Row]:
        """All rows, in no order."""
        for name, position in list(self._places.values()):
            yield self._segments[name].read(position)

    def write(self, put: Sequence[Row] = (), delete: Iterable[str] = ()) -> int:
        """One commit: rows replaced or added, ids taken out. Returns how many rows went or were replaced.

        When it returns the change is on disk; when it raises nothing has changed.

        Raises:
            StorageError: no space, or the folder cannot be written.
        """
        with writing(self.folder), lock(self.folder):
            self.refresh()
            new = {row.id: row for row in put}
            gone = [self._places[id] for id in {*delete, *new} if id in self._places]
            dead: dict[str, set[int]] = {name: set(s.info.dead) for name, s in self._segments.items()}
            for name, position in gone:
                dead[name].add(position)
            keep, rows = self._merge(dead, list(new.values()))
            if rows:
                keep.append(write_segment(self.folder, rows, self._manifest.width))
            manifest = replace(self._manifest, segments=tuple(keep))
            write(self.folder / MANIFEST, _as_json(to_dict(manifest)))
            self.refresh()
            self._sweep()
        return len(gone)

    def _merge(self, dead: Mapping[str, set[int]], rows: list[Row]) -> tuple[list[SegmentInfo], list[Row]]:
        """Which segments stay, and the rows of the new one: `rows` and those of segments it takes in."""
        keep = []
        for name, segment in reversed(self._segments.items()):
            living = len(segment.rows) - len(dead[name])
            if living <= 2 * len(rows) or len(dead[name]) > min(living, MOST_DEAD):
                rows = [segment.read(i) for i in range(len(segment.rows)) if i not in dead[name]] + rows
            else:
                keep.append(replace(segment.info, dead=tuple(sorted(dead[name]))))
        return keep[::-1], rows

    def _sweep(self) -> None:
        """Remove the files of segments that no longer count, and those of writers that died."""
        for path in self.folder.iterdir():
            ours = path.name.startswith("seg-") or path.suffix == ".temp"
            if ours and path.stem not in self._segments:
                with suppress(OSError):
                    path.unlink()

    def search(
        self, query: np.ndarray, top: int, *, modality: str | None = None, where: Filter | None = None
    ) -> list[Hit]:
        """The rows nearest to `query` (E,), of unit length, by cosine; a row counts by its best vector."""
        return self.search_many(query[None], top, modality=modality, where=where)[0]

    def search_many(
        self, queries: np.ndarray, top: int, *, modality: str | None = None, where: Filter | None = None
    ) -> list[list[Hit]]:
        """`search` for each of the queries (Q, E)."""
        self.refresh()
        found: list[list[tuple[float, str, str]]] = [[] for _ in queries]
        for segment in self._segments.values():
            parts = segment.best(queries.astype(np.float32), top, modality, where)
            for own, part in zip(found, parts, strict=True):
                own.extend(part)
        return [self._hits(sorted(own, key=lambda item: -item[0])[:top]) for own in found]

    def _hits(self, found: Sequence[tuple[float, str, str]]) -> list[Hit]:
        hits = []
        for score, id, kind in found:
            name, position = self._places[id]
            hits.append(Hit(id, score, kind, dict(self._segments[name].rows[position]["fields"])))
        return hits

    def stale(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing is kept back."""

    def drop(self) -> None:
        """Its folder is all there is of it."""
        with writing(self.folder):
            shutil.rmtree(self.folder)


def _read_manifest(folder: Path) -> Manifest:
    values = read(folder / MANIFEST)
    if values.get("format") != FORMAT:
        raise DataError(
            f"{folder}: an index of format {values.get('format')!r}; this Motet reads format {FORMAT}. "
            "Build it again with: motet index MODEL TABLE --out NEW"
        )
    return from_dict(Manifest, values, where=str(folder / MANIFEST))


def _as_json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values) + "\n").encode()
