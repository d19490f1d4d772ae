"""What people hand to a model: texts, files, pictures in memory, rows, tables; sorted by modality."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from PIL import Image, ImageOps

from motet.data.cache import FeatureCache, content_key
from motet.data.columns import modality_name
from motet.data.image import square, to_rgb
from motet.data.mel import RATE
from motet.data.paths import kind_of, shorten
from motet.data.processor import Processor
from motet.data.table import Table
from motet.errors import ConfigError, DataError
from motet.types import Piece, Sample

MEDIA = ("image", "audio", "video")


@dataclass(frozen=True, eq=False)
class Entry:
    """One thing to predict, encode or index. `where` begins messages about it.

    cells: modality -> cell, without empty ones; the paths among them are read under `root`.
    fields: all that is known of the row, by column. `line` is its line in a table.
    """

    where: str
    cells: Mapping[str, Any]
    root: Path
    id: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    line: int = 0


@dataclass(frozen=True, eq=False)
class Broken:
    """An entry that cannot be used, and the cell's column that is why."""

    column: str
    error: DataError


class TableEntries(Sequence[Entry]):
    """The rows of a table. columns: modality -> the column that holds it."""

    def __init__(
        self, table: Table, columns: Mapping[str, str], id: str | None, kinds: Mapping[str, str]
    ) -> None:
        self.table, self.columns, self.id, self.kinds = table, columns, id, kinds

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Entry:  # type: ignore[override]  (no slices)
        row = self.table.row(i)
        cells = {m: row[column] for m, column in self.columns.items() if row[column] is not None}
        fields = {name: cell for name, cell in row.items() if cell is not None and name != self.id}
        for m, column in self.columns.items():
            cell = row[column]
            if self.kinds[m] == "features":
                fields.pop(column, None)
            elif self.kinds[m] in MEDIA and isinstance(cell, str):
                fields[column] = str(self.table.root.resolve() / cell)
        id = None if self.id is None or row[self.id] is None else str(row[self.id])
        return Entry(
            self.table.where(i), cells, self.table.root, id, fields, self.columns, self.table.line(i)
        )


def entry_of(value: Any, processors: Mapping[str, Processor], *, where: str = "input") -> Entry:
    """One input: a text, a file, a picture or array, or a mapping of column or modality to one of these.

    A text goes to the model's text modality, a file to the modality of its kind, which its content says.

    Raises:
        ConfigError: the model has no modality for it, or a key is no modality.
        DataError: a path without a file.
    """
    if isinstance(value, Mapping):
        names = {modality_name(str(key)): key for key in value}
        names |= {f"{name}_sound": key for name, key in names.items()}  # the sound track of a clip
        cells = {m: _free(value[names[m]], p, where) for m, p in processors.items() if m in names}
        if not cells and value:
            raise ConfigError(
                f"{where}: none of {', '.join(map(str, value))} is a modality of this model; it has "
                f"{', '.join(processors)}."
            )
        fields = {str(k): v for k, v in value.items() if isinstance(v, str | int | float | bool | Path)}
        id = fields.pop("id", None)
        cells = {m: cell for m, cell in cells.items() if cell is not None}
        return Entry(where, cells, Path(), None if id is None else str(id), fields)
    if isinstance(value, str) and not _is_file(value):
        return _text_entry(value, processors, where)
    if isinstance(value, str | Path):
        return _file_entry(Path(value), processors, where)
    kind = "image" if isinstance(value, Image.Image) or getattr(value, "ndim", 0) == 3 else "audio"
    if not isinstance(value, Image.Image | np.ndarray | tuple):
        raise ConfigError(
            f"{where}: {type(value).__name__} cannot be used. Give a text, a path, a PIL picture, an array, "
            'or a mapping such as {"text": ..., "image": ...}.'
        )
    name = _first(processors, (kind,), f"a {'picture' if kind == 'image' else 'sound'}", where)
    return Entry(where, {name: value}, Path())


def _text_entry(text: str, processors: Mapping[str, Processor], where: str) -> Entry:
    if kind_of(text) in (*MEDIA, "features") and not any(c.isspace() for c in text):
        raise DataError(f"{where}: {shorten(text)}: no such file (looked from {Path.cwd()}). Check the path.")
    name = _first(processors, ("text",), "a text", where)
    return Entry(where, {name: text}, Path(), None, {name: text})


def _file_entry(path: Path, processors: Mapping[str, Processor], where: str) -> Entry:
    if not path.is_file():
        raise DataError(f"{where}: {path}: no such file (looked from {Path.cwd()}). Check the path.")
    kind = kind_of_file(path)
    if kind == "text":
        name = _first(processors, ("text",), "a text", where)
        return Entry(str(path), {name: _text_of(path)}, Path(), None, {name: str(path)})
    if kind == "video":  # its frames, its sound, or both, as the model hears and sees
        names = [m for m, p in processors.items() if p.kind == "video"][:1]
        names += [m for m, p in processors.items() if p.kind == "audio"][:1]
        if not names:
            _first(processors, ("video", "audio"), "a clip", where)
    else:
        names = [_first(processors, (kind,), f"a file of kind {kind}", where)]
    return Entry(str(path), dict.fromkeys(names, path), Path(), None, {name: str(path) for name in names})


def _first(processors: Mapping[str, Processor], kinds: Sequence[str], what: str, where: str) -> str:
    for name, processor in processors.items():
        if processor.kind in kinds:
            return name
    has = ", ".join(f"{m} ({p.kind})" for m, p in processors.items())
    raise ConfigError(f"{where}: this model has no modality for {what}; it has {has}.")


def _free(value: Any, processor: Processor, where: str) -> Any:
    """A cell of a mapping: media given as text are paths from the working folder."""
    if isinstance(value, str) and value and processor.kind != "text":
        value = Path(value)
    if isinstance(value, Path) and not value.is_file():
        raise DataError(f"{where}: {value}: no such file (looked from {Path.cwd()}). Check the path.")
    return None if isinstance(value, str) and not value.strip() else value


def _is_file(text: str) -> bool:
    try:
        return "\n" not in text and len(text) < 4096 and Path(text).is_file()
    except (OSError, ValueError):
        return False


def _text_of(path: Path) -> str:
    try:
        return path.read_bytes()[: 1 << 20].decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: neither a medium that Motet reads nor UTF-8 text.") from None


_MAGIC = (
    (b"\x89PNG", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"BM", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"OggS", "audio"),
    (b"fLaC", "audio"),
    (b"ID3", "audio"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"\x93NUMPY", "features"),
)


def kind_of_file(path: Path) -> str:
    """By content; by the name's ending where the content does not say."""
    with path.open("rb") as file:
        head = file.read(16)
    if head[:4] == b"RIFF":
        return {b"WEBP": "image", b"AVI ": "video"}.get(head[8:12], "audio")
    if head[4:8] == b"ftyp":
        return "audio" if head[8:12] == b"M4A " else "video"
    found = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    return found or kind_of(path.name) or "text"


def keys_of(entry: Entry, processors: Mapping[str, Processor]) -> dict[str, str] | Broken:
    """modality -> digest of the cell's content, files included, and of what turns it into tokens."""
    keys = {}
    for m, cell in entry.cells.items():
        try:
            key = _key(cell, entry.root, processors[m])
        except DataError as error:
            return Broken(entry.columns.get(m, m), error)
        if key is not None:
            keys[m] = key
    return keys


def _key(cell: Any, root: Path, processor: Processor) -> str | None:
    match cell:
        case Path():
            path = cell.resolve()
            return content_key(path.name, path.parent, processor)
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
    """Every entry as tokens, or why it cannot be; encoders run on all of them together."""
    pieces: list[dict[str, Piece]] = [{} for _ in entries]
    broken: dict[int, Broken] = {}
    for m, processor in processors.items():
        todo: list[tuple[int, str, Any]] = []
        for i, entry in enumerate(entries):
            if i in broken or m not in entry.cells:
                continue
            try:
                key = _key(entry.cells[m], entry.root, processor)
                known = cache.get(key) if key else None
                raw = (
                    None if known is not None or key is None else _read(entry.cells[m], entry.root, processor)
                )
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
        case Path():
            path = cell.resolve()
            return processor.read(path.name, path.parent)
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
