"""Entries to samples: every cell read and made into tokens, broken ones said."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from PIL import Image, ImageOps

from motet.data.cache import FeatureCache, content_key
from motet.data.context import in_context
from motet.data.media import square
from motet.data.mel import RATE
from motet.data.picture import to_rgb
from motet.data.processor import Processor, heard_by, spoken_in
from motet.data.spoken import Spoken, placed
from motet.errors import DataError
from motet.predictor.inputs import Entry
from motet.types import Piece, Sample


@dataclass(frozen=True, eq=False)
class Broken:
    """An entry that cannot be used, and the cell's column that is why."""

    column: str
    error: DataError


def keys_of(entry: Entry, processors: Mapping[str, Processor]) -> dict[str, str] | Broken:
    """modality -> digest of the cell's content, files included, and of what turns it into tokens."""
    keys = {}
    for m, processor in processors.items():
        cell, root = cell_of(entry, m, processor)
        if cell is None:
            continue
        try:
            key = _key(cell, root, processor)
        except DataError as error:
            return Broken(entry.columns.get(m, m), error)
        if key is not None:
            keys[m] = key
    return keys


def cell_of(entry: Entry, modality: str, processor: Processor) -> tuple[Any, Path]:
    """The cell that a processor reads, and the folder of its paths; (None, ...) if it is missing.

    A text that is said in a sound or clip comes with that, or from the file of words beside it. What a
    text holds is taken for the name of a file in tables only.
    """
    cell, root = entry.cells.get(modality), entry.root
    if isinstance(cell, Path):
        path = cell.resolve()
        return (Path(path.name) if processor.kind == "text" else path.name), path.parent
    if processor.kind != "text":
        return cell, root
    media = entry.cells.get(spoken_in(processor))
    if entry.line:
        return placed(cell, media, root, transcribe=heard_by(processor)), root
    if not isinstance(media, Path):
        return cell, root
    path = media.resolve()
    if cell is not None:
        return Spoken(str(cell), path.name), path.parent
    return placed(None, path.name, path.parent, transcribe=heard_by(processor)), path.parent


def _key(cell: Any, root: Path, processor: Processor) -> str | None:
    match cell:
        case Image.Image() | np.ndarray() | tuple():
            digest = hashlib.sha256(processor.fingerprint.encode())
            for part in cell if isinstance(cell, tuple) else (cell,):
                digest.update(np.ascontiguousarray(part).tobytes())
            return digest.hexdigest()
        case _:
            return content_key(cell, root, processor)


def read_entries(
    entries: Sequence[Entry], processors: Mapping[str, Processor], cache: FeatureCache
) -> list[Sample | Broken]:
    """Every entry as tokens, or why it cannot be; encoders run on all of them together.

    Where entries have a conversation around them, that is read too, without what is broken in it.
    """
    near = {e.where: e for entry in entries for side in entry.around for e in side}
    near = {where: e for where, e in near.items() if where not in {entry.where for entry in entries}}
    found = _read_alone([*entries, *near.values()], processors, cache)
    if not near and not any(any(entry.around) for entry in entries):
        return found
    whole = zip([*(entry.where for entry in entries), *near], found, strict=True)
    pieces = {where: sample.pieces for where, sample in whole if isinstance(sample, Sample)}
    told = []
    for entry, sample in zip(entries, found, strict=False):
        before, after = ([pieces[e.where] for e in side if e.where in pieces] for side in entry.around)
        told.append(
            replace(sample, pieces=in_context(sample.pieces, before, after))
            if isinstance(sample, Sample)
            else sample
        )
    return told


def _read_alone(
    entries: Sequence[Entry], processors: Mapping[str, Processor], cache: FeatureCache
) -> list[Sample | Broken]:
    pieces: list[dict[str, Piece]] = [{} for _ in entries]
    broken: dict[int, Broken] = {}
    for m, processor in processors.items():
        todo: list[tuple[int, str, Any]] = []
        for i, entry in enumerate(entries):
            cell, root = cell_of(entry, m, processor)
            if i in broken or cell is None:
                continue
            try:
                key = _key(cell, root, processor)
                known = cache.get(key) if key else None
                raw = None if known is not None or key is None else _read(cell, root, processor)
            except DataError as error:
                broken[i] = Broken(entry.columns.get(m, m), error)
                continue
            if known is not None:
                if len(known):  # caches keep a piece without tokens for a file without this modality
                    pieces[i][m] = known
            elif raw is not None:
                todo.append((i, key or "", raw))
        for (i, key, _), piece in zip(todo, processor.pieces([raw for *_, raw in todo]), strict=True):
            if processor.spec.pretrained:  # only what was dear to compute
                cache.put(key, piece)
            pieces[i][m] = piece
    return [
        broken.get(i) or Sample(id=entry.id or str(i), pieces=pieces[i]) for i, entry in enumerate(entries)
    ]


def _read(cell: Any, root: Path, processor: Processor) -> Any:
    match cell:
        case Image.Image() | np.ndarray() | tuple() if processor.kind == "image":
            picture = cell if isinstance(cell, Image.Image) else Image.fromarray(np.asarray(cell))
            upright = to_rgb(ImageOps.exif_transpose(picture), "picture")
            return square(upright, processor.size)  # type: ignore[attr-defined]
        case np.ndarray() | tuple() if processor.kind == "audio":
            return _wave(cell)
        case _:
            return processor.read(cell, root)


def _wave(cell: Any) -> np.ndarray:
    """(n,) samples at 16 kHz, or a pair of (n,) or (n, channels) samples and their rate."""
    samples, rate = cell if isinstance(cell, tuple) else (cell, RATE)
    wave = np.asarray(samples, np.float32)
    wave = wave.mean(axis=1) if wave.ndim == 2 else wave
    if wave.ndim != 1 or not len(wave) or not np.isfinite(wave).all():
        raise DataError(
            f"a sound must be finite samples of shape (n,) or (n, channels), found {np.shape(samples)}."
        )
    return wave if rate == RATE else soxr.resample(wave, rate, RATE)
