"""A folder of media as a table.

Either class folders (`cats/1.jpg`, `dogs/2.jpg`: a `label` column), below `train`, `val` and
`test` folders if there are such (a `split` column); or same-named files side by side
(`a.jpg a.txt a.wav`: columns image, text, audio), also in a folder for each kind (`pictures/a.jpg
sounds/a.wav`); or both.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from motet.data.paths import EXTENSIONS, kind_of, resolve_media
from motet.errors import DataError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test"}
MAX_TEXT = 2**20  # bytes read of a text file


def read_folder(root: Path) -> tuple[dict[str, list[str | None]], str]:
    """Columns id, one per kind of file found, split and label where folders say them; fingerprint.

    Raises:
        DataError: no media below `root`, or two files of one kind where kinds stand side by side.
    """
    files = list(_media_files(root))
    if not files:
        endings = ", ".join(f".{e}" for kind in ("image", "audio", "video") for e in EXTENSIONS[kind][:3])
        raise DataError(
            f"{root}: no media below this folder ({endings}, ...). Name a folder with files in it."
        )
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0{(root / name).lstat().st_size}\n".encode(errors="surrogateescape"))
    rows = _side_by_side(root, files)
    kinds = [kind for kind in EXTENSIONS if any(kind in row for row in rows.values())]
    ids = list(rows)
    columns: dict[str, list[str | None]] = {"id": list(ids)}
    for kind in kinds:
        cells = [rows[name].get(kind) for name in ids]
        columns[kind] = [_read_text(cell, root) for cell in cells] if kind == "text" else cells
    folders = [PurePosixPath(name).parts[:-1] for name in ids]
    if all(parts and parts[0].lower() in SPLITS for parts in folders):
        columns["split"] = [SPLITS[parts[0].lower()] for parts in folders]
        folders = [parts[1:] for parts in folders]
    if all(folders) and len({parts[0] for parts in folders}) > 1:
        columns["label"] = [parts[0] for parts in folders]
    return columns, digest.hexdigest()


def _media_files(root: Path) -> Iterator[str]:
    """Paths relative to `root`, in order, of files with a known ending; hidden ones are left out."""
    for folder, inner, names in os.walk(root):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and kind_of(name):
                yield (Path(folder) / name).relative_to(root).as_posix()


def _side_by_side(root: Path, files: list[str]) -> dict[str, dict[str, str]]:
    """Row name -> kind -> path. With one kind only, every file is a row of its own."""
    kinds = {kind_of(name) for name in files}
    homes: dict[str, set[str | None]] = {}
    for name in files:
        homes.setdefault(name.partition("/")[0], set()).add(kind_of(name))
    apart = 1 < len(kinds) == len(homes) and all(len(found) == 1 for found in homes.values())
    rows: dict[str, dict[str, str]] = {}
    for name in files:
        kind = kind_of(name) or ""
        key = name if len(kinds) == 1 else str(PurePosixPath(name).with_suffix(""))
        row = rows.setdefault(key.partition("/")[2] if apart and "/" in key else key, {})
        if kind in row:
            raise DataError(
                f"{root}: {row[kind]!r} and {name!r} are both the {kind} of one row. Rename one: "
                "files with the same name before the ending stand side by side."
            )
        row[kind] = name
    return rows


def _read_text(cell: str | None, root: Path) -> str | None:
    if cell is None:
        return None
    with resolve_media(cell, root, str(root)).open("rb") as file:
        text = file.read(MAX_TEXT).decode("utf-8", errors="replace")  # check_table reports U+FFFD
    return text.strip() or None
