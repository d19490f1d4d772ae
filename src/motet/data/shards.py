"""WebDataset shards: tar files whose members of one name before the first dot are one row.

`0001.jpg 0001.txt 0001.json` is a row with a picture, a text, and a column for each key of the JSON.
A column is called by the kind of its members (image, audio, video, text) where a row has at most one
of that kind, or else by their ending. Members are never unpacked: they are read in their place.
"""

from __future__ import annotations

import glob
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motet.config import parse_json
from motet.data.blob import Blob
from motet.data.paths import kind_of, shorten
from motet.data.rows import Cell, Rows, plain_cell
from motet.errors import ConfigError, DataError

CLASSES = ("cls", "cls2")
TEXTS = ("txt", "text", "caption", *CLASSES)
NAMES = {"txt": "text", "cls": "label"}
MAX_TEXT = 2**20  # bytes read of a text or JSON member
MAX_SHARDS = 100_000
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def is_pattern(path: str) -> bool:
    """Whether a path names several shards, by {000..012}, * or ?."""
    return path.endswith(".tar") and bool(_BRACES.search(path) or glob.has_magic(path))


def expand(pattern: str) -> list[Path]:
    """The shards that a pattern names, in order.

    Raises:
        DataError: none, or a numbered one is missing.
    """
    names = [pattern]
    while any(_BRACES.search(name) for name in names):
        names = [whole for name in names for whole in _numbered(name)]
        if len(names) > MAX_SHARDS:
            raise DataError(f"{pattern}: more than {MAX_SHARDS} shards. Name fewer.")
    found = [Path(p) for name in names for p in (sorted(glob.glob(name)) if glob.has_magic(name) else [name])]
    missing = next((path for path in found if not path.is_file()), None)
    if missing or not found:
        raise DataError(
            f"{pattern}: {missing or 'no such shard'} cannot be found (looked from {Path.cwd()}). "
            "Check the pattern."
        )
    return found


def _numbered(name: str) -> Iterator[str]:
    braces = _BRACES.search(name)
    if braces is None:
        yield name
        return
    first, last = braces.groups()
    if int(last) - int(first) >= MAX_SHARDS:
        raise DataError(f"{name}: more than {MAX_SHARDS} shards. Name fewer.")
    for number in range(int(first), int(last) + 1):
        yield f"{name[: braces.start()]}{number:0{len(first)}}{name[braces.end() :]}"


class ShardRows(Rows):
    """Rows over tar members. places[column]: (n, 3) int64 of shard, offset and size; shard -1: empty.

    `endings`: column -> the ending of its members. `keys`: columns that are keys of the JSON member.
    """

    def __init__(
        self,
        shards: Sequence[Path],
        samples: Sequence[str],
        places: Mapping[str, np.ndarray],
        endings: Mapping[str, str],
        keys: Sequence[str],
    ) -> None:
        self.shards, self.samples = list(shards), samples
        self.places, self.endings, self.keys = dict(places), dict(endings), tuple(keys)
        self.names = ("id", *(name for name in self.places if name != "json"), *self.keys)
        self.classes = frozenset(name for name, ending in self.endings.items() if ending in CLASSES)

    def __len__(self) -> int:
        return len(self.samples)

    def cell(self, i: int, name: str) -> Cell:
        if name == "id":
            return self.samples[i]
        if name in self.keys:
            cell: Cell = plain_cell(self._json(i).get(name))
            return cell
        blob = self._blob(i, name)
        if blob is None or self.endings[name] not in TEXTS:
            return blob
        return blob.read_bytes()[:MAX_TEXT].decode("utf-8", errors="replace").strip() or None

    def iterate(self, names: Sequence[str]) -> Iterator[tuple[Cell, ...]]:
        for i in range(len(self)):
            yield tuple(self.cell(i, name) for name in names)

    def _blob(self, i: int, name: str) -> Blob | None:
        shard, offset, size = self.places[name][i].tolist()
        if shard < 0:
            return None
        ending = self.endings[name]
        return Blob(f"{self.samples[i]}.{ending}", file=self.shards[shard], offset=offset, size=size)

    def _json(self, i: int) -> dict[str, Any]:
        blob = self._blob(i, "json")
        return {} if blob is None else read_object(blob)


def read_shards(shards: Sequence[Path]) -> ShardRows:
    """The members of every shard, grouped into rows; only headers and JSON members are read.

    Raises:
        DataError: not a plain tar, a cut one, links or devices in it, a name that leaves the folder, two
            members of one name and ending, a JSON member that is no object.
    """
    samples: dict[str, int] = {}
    found: list[tuple[int, str, int, int, int]] = []  # sample, ending, shard, offset, size
    for number, path in enumerate(shards):
        for member in _members(path):
            folder, _, base = member.name.removeprefix("./").rpartition("/")
            stem, _, ending = base.partition(".")
            if not stem or not ending:
                continue  # hidden files, and names without an ending
            key = f"{folder}/{stem}" if folder else stem
            sample = samples.setdefault(key, len(samples))
            found.append((sample, ending.lower(), number, member.offset_data, member.size))
    if not found:
        raise DataError(f"{shards[0]}: no members such as 0001.jpg in it. Write the shards again.")
    endings = dict.fromkeys(ending for _, ending, *_ in found)
    column_of = _columns({(sample, ending) for sample, ending, *_ in found}, endings)
    places = {name: np.full((len(samples), 3), -1, np.int64) for name in dict.fromkeys(column_of.values())}
    keys: dict[str, None] = {}
    for sample, ending, *place in found:
        slot = places[column_of[ending]][sample]
        if slot[0] >= 0:
            name = list(samples)[sample]
            raise DataError(f"{shards[place[0]]}: two members {name}.{ending}. Names must differ.")
        slot[:] = place
        if ending == "json":
            blob = Blob(f"{ending} of sample {sample}", file=shards[place[0]], offset=place[1], size=place[2])
            keys |= dict.fromkeys(read_object(blob, shards[place[0]]))
    taken = {"id", *places}
    named = {column: ending for ending, column in reversed(column_of.items())}
    return ShardRows(shards, list(samples), places, named, [key for key in keys if key not in taken])


def _members(path: Path) -> Iterator[tarfile.TarInfo]:
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = member.name
                if name.startswith(("/", "\\")) or ".." in name.split("/") or "\\" in name:
                    raise _refused(path, name, "leaves the folder that it would be unpacked into")
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise _refused(path, name, "is a link, a device or a sparse file")
                if member.offset_data + member.size > size:
                    raise _refused(path, name, "is longer than the rest of the file (cut off?)")
                yield member
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable plain tar file: {error}. Shards are not compressed; write it again."
        ) from None


def _refused(path: Path, name: str, why: str) -> DataError:
    return DataError(
        f"{path}: the member {shorten(name)} {why}. Nothing was unpacked; write the shard again without it.",
        rule="refused archive",
    )


def _columns(pairs: set[tuple[int, str]], endings: Mapping[str, Any]) -> dict[str, str]:
    """Ending -> column."""
    kinds = {ending: kind_of(f"x.{ending}") for ending in endings if ending != "txt" and "." not in ending}
    seen: set[tuple[int, str]] = set()
    several = set()
    for sample, ending in pairs:
        kind = kinds.get(ending)
        if kind:
            several |= {kind} if (sample, kind) in seen else set()
            seen.add((sample, kind))
    out = {}
    for ending in endings:
        kind = kinds.get(ending)
        plain = NAMES.get(ending) or re.sub(r"[^a-z0-9_]", "_", ending)
        out[ending] = kind if kind and kind not in several and kind != "features" else plain
    return out


def read_object(blob: Blob, shard: Path | None = None) -> dict[str, Any]:
    """The JSON object in a member. Raises DataError where it is none."""
    where = f"{shard}: {blob.name}" if shard else blob.name
    try:
        if blob.size > MAX_TEXT:
            raise ConfigError(f"{where}: more than {MAX_TEXT >> 10} KiB of JSON.")
        value = parse_json(blob.read_bytes().decode(), where=where)
    except (ConfigError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{where}: not usable JSON: {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected a JSON object, found {shorten(value)}.")
    return value
