"""What people hand to a model: texts, files, pictures in memory, rows, tables; sorted by modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from motet.data.columns import modality_name
from motet.data.paths import kind_of, shorten
from motet.data.processor import Processor, spoken_in
from motet.data.shards import is_pattern
from motet.data.table import FILES
from motet.data.transcript import is_transcript
from motet.errors import ConfigError, DataError

MEDIA = ("image", "audio", "video")


@dataclass(frozen=True, eq=False)
class Entry:
    """One thing to predict, encode or index. `where` begins messages about it.

    cells: modality -> cell, without empty ones; the paths among them are read under `root`.
    fields: all that is known of the row, by column. `line` is its line in a table. `around`: the entries
    before and after it in its conversation, in their order.
    """

    where: str
    cells: Mapping[str, Any]
    root: Path
    id: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    line: int = 0
    around: tuple[tuple[Entry, ...], tuple[Entry, ...]] = ((), ())


def is_table(input: Any) -> bool:
    """Whether an input is a table or a folder of media, rather than one thing."""
    if not isinstance(input, str | Path) or len(str(input)) > 4096:
        return False
    return str(input).lower().endswith((*FILES, ".tar")) or is_pattern(str(input)) or Path(input).is_dir()


def entry_of(value: Any, processors: Mapping[str, Processor], *, where: str = "input") -> Entry:
    """One input: a text, a file, a picture or array, or a mapping to these from column, modality or kind.

    A text goes to the model's text modality, a file to the modality of its kind, which its content says.

    Raises:
        ConfigError: the model has no modality for it, or a key is no modality.
        DataError: a path without a file.
    """
    if isinstance(value, Mapping):
        names = {modality_name(str(key)): key for key in value}
        names |= {f"{name}_sound": key for name, key in names.items()}  # the sound track of a clip
        for key in value:  # {"image": ...} for the only pictures of a model that calls them "photo"
            kin = [m for m, p in processors.items() if p.kind == key]
            if key not in processors and len(kin) == 1:
                names.setdefault(kin[0], key)
                names.setdefault(f"{kin[0]}_sound", key)
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
    if is_transcript(path.name):
        spoken = [m for m, p in processors.items() if spoken_in(p)]
        name = spoken[0] if spoken else _first(processors, ("text",), "a text", where)
        return Entry(str(path), {name: path}, Path(), None, {name: str(path)})
    if kind == "text":
        name = _first(processors, ("text",), "a text", where)
        return Entry(str(path), {name: _text_of(path)}, Path(), None, {name: str(path)})
    if kind == "video":  # its frames, its sound, or both, as the model hears and sees
        names = [m for m, p in processors.items() if p.kind == "video"][:1]
        heard = [m for m, p in processors.items() if p.kind == "audio"]
        names += [m for m in heard if m.removesuffix("_sound") in names][:1] or heard[:1]
        if not names:
            _first(processors, ("video", "audio"), "a clip", where)
    else:
        names = [_first(processors, (kind,), f"a file of kind {kind}", where)]
    cells: dict[str, Any] = dict.fromkeys(names, path)
    words = path.with_suffix(".txt")  # beside it, as in a folder of clips
    clip = kind in ("audio", "video") and words != path
    if clip and "text" in processors and processors["text"].kind == "text" and words.is_file():
        cells["text"] = _text_of(words)
    return Entry(str(path), cells, Path(), None, {name: str(cell) for name, cell in cells.items()})


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
