"""Tux Paint's stamps as a data set: pictures with captions, human speech and sounds in many languages.

Source: Debian's package `tuxpaint-stamps-default` (GPL-2; its licences lie in /usr/share/doc). A
stamp is a picture `X.png`; `X.txt` holds an English caption and, line by line, translations;
`X_desc_es.ogg` is the Spanish caption read by a person (`X_desc.ogg` the English one), `X.wav` or `X.ogg` a
sound effect; folders say the category. Rows with the same English caption are one group, and so are
those that share a translation or a file byte for byte. Speech is mostly by one person a language, and now
and then differs from its text.

SVG stamps (165 of 950) are drawn by `resvg` where the extra "svg" is installed. Elsewhere they have no
picture but keep their other columns. `skipped` in tuxpaint.json names the stamps without a picture.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motet.data.builtin.place import put_in_place
from motet.data.groups import connected
from motet.data.split import deal_groups
from motet.errors import ConfigError, DataError

HOME = Path("/usr/share/tuxpaint/stamps")
INSTALL = "apt-get install tuxpaint-stamps-default"
TABLE, MARK = "tuxpaint.csv", "tuxpaint.json"
COLUMNS = ("id", "picture", "caption", "caption_own", "speech", "sound", "category", "group", "split")
VERSION = 2  # of this recipe
SVG_WIDTH = 400  # pixels of a drawn stamp
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?(@[a-z]+)?")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Stamp:
    """One stamp. `caption` is English, `own` in the chosen language; None: not there."""

    id: str
    picture: Path | None
    caption: str
    own: str | None
    speech: Path | None
    sound: Path | None
    category: str


def build_tuxpaint(
    out: Path, *, language: str = "en", home: Path = HOME, seed: int = 0, progress: Progress | None = None
) -> Path:
    """Build the data set in the folder `out`; returns its table, `out/tuxpaint.csv`.

    The media of the chosen language are copied below `out`; the table is split 70/15/15 by caption. A
    finished folder of the same recipe is used again; `out` is never half a data set.

    Raises:
        ConfigError: the stamps are not installed, no such language, or `out` holds other files.
        StorageError: `out` cannot be written.
    """
    out = Path(out)
    stamps = find_stamps(language, home)
    recipe = {"version": VERSION, "language": language, "seed": seed, "rows": len(stamps)}
    recipe["svg"] = _drawer() is not None
    if _finished(out, recipe):
        return out / TABLE
    if out.exists() and not (
        out.is_dir() and set(os.listdir(out)) <= {TABLE, MARK, "SOURCES.txt", "dataset.json", "media"}
    ):
        raise ConfigError(f"{out}: exists and holds other files than these stamps. Choose another folder.")
    put_in_place(out, lambda new: _write(new, stamps, recipe, home, progress), "the stamps")
    return out / TABLE


def find_stamps(language: str = "en", home: Path = HOME) -> list[Stamp]:
    """Every stamp with an English caption and a picture or speech, in order of its path.

    Raises:
        ConfigError: the stamps are not installed, or none is spoken or written in `language`.
    """
    if not _LANGUAGE.fullmatch(language):
        raise ConfigError(f"language {language!r}: expected a code such as es or pt_BR.")
    if not home.is_dir():
        raise ConfigError(
            f"{home}: Tux Paint's stamps are not installed. On Debian and Ubuntu: {INSTALL}. Elsewhere give "
            "the folder where they are."
        )
    stamps = [stamp for path in sorted(home.rglob("*.txt")) for stamp in _read(path, home, language)]
    if not any(stamp.own or stamp.speech for stamp in stamps):
        raise ConfigError(
            f"language {language!r}: no stamp below {home} is written or spoken in it. Try es, fr or ru."
        )
    return stamps


def _read(path: Path, home: Path, language: str) -> Iterator[Stamp]:
    stem = path.with_suffix("")
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None
    caption = lines[0].strip() if lines else ""
    if not caption or "=" in caption.split(" ")[0]:
        return
    said = dict(line.split(".utf8=", 1) for line in lines[1:] if ".utf8=" in line)
    own = said.get(language, "").strip() or None  # none in English: that is the caption
    spoken = stem.with_name(stem.name + ("_desc.ogg" if language == "en" else f"_desc_{language}.ogg"))
    drawn = (".png",) if _drawer() is None else (".png", ".svg")
    picture, speech = _there(stem, drawn), spoken if spoken.is_file() else None
    if picture is None and speech is None:
        return
    parts = path.relative_to(home).parts
    id = "/".join(stem.relative_to(home).parts)
    yield Stamp(id, picture, caption, own, speech, _there(stem, (".wav", ".ogg")), parts[0])


def _there(stem: Path, endings: tuple[str, ...]) -> Path | None:
    paths = (stem.with_name(stem.name + ending) for ending in endings)
    return next((path for path in paths if path.is_file()), None)


def _write(out: Path, stamps: list[Stamp], recipe: dict, home: Path, progress: Progress | None) -> None:
    out.mkdir(parents=True)
    groups = _groups(stamps)
    strata = {group: stamp.category for group, stamp in zip(groups, stamps, strict=True)}
    part_of = deal_groups(groups, strata, seed=int(recipe["seed"]))
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for done, (stamp, group) in enumerate(zip(stamps, groups, strict=True), 1):
        picture, speech, sound = (_copied(path, home, out) for path in _files(stamp))
        rows.writerow(
            [
                stamp.id,
                picture,
                stamp.caption,
                stamp.own,
                speech,
                sound,
                stamp.category,
                group,
                part_of[group],
            ]
        )
        if progress is not None:
            progress(done, len(stamps), "copying stamps")
    (out / TABLE).write_text(text.getvalue(), encoding="utf-8", newline="")
    (out / "SOURCES.txt").write_text((__doc__ or "") + "\n", encoding="utf-8")
    note = f"Tux Paint's stamps with captions and human speech in {recipe['language']!r}."
    about = {"name": "Tux Paint stamps", "note": note, "licence": "GPL-2"}
    (out / "dataset.json").write_text(json.dumps(about), encoding="utf-8")
    pictured = {row[0] for row in csv.reader(io.StringIO(text.getvalue())) if row[1]}
    skipped = [stamp.id for stamp in stamps if stamp.id not in pictured]
    mark = {**recipe, "table": _digest(text.getvalue().encode()), "skipped": skipped}
    (out / MARK).write_text(json.dumps(mark, indent=1), encoding="utf-8")


def _groups(stamps: list[Stamp]) -> list[str]:
    """The group of each stamp, called by its first stamp's caption."""
    known: dict[object, int] = {}
    links = np.full((5, len(stamps)), -1, np.int64)
    for i, stamp in enumerate(stamps):
        texts = [(k, " ".join(t.casefold().split())) for k, t in enumerate((stamp.caption, stamp.own)) if t]
        files = [(2 + k, _digest(p.read_bytes())) for k, p in enumerate(_files(stamp)) if p]
        for k, key in (*texts, *files):
            links[k, i] = known.setdefault((min(k, 2), key), len(known))
    first = connected([links], len(stamps))
    return [" ".join(stamps[i].caption.casefold().split()) for i in first.tolist()]


def _files(stamp: Stamp) -> tuple[Path | None, Path | None, Path | None]:
    return stamp.picture, stamp.speech, stamp.sound


def _copied(path: Path | None, home: Path, out: Path) -> str:
    """The path of the copy as the table names it."""
    if path is None:
        return ""
    inner = Path("media") / path.relative_to(home)
    target = out / inner
    if path.suffix != ".svg":
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        return inner.as_posix()
    drawn = draw_svg(path)
    if drawn is None:
        return ""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".png").write_bytes(drawn)
    return inner.with_suffix(".png").as_posix()


def draw_svg(path: Path) -> bytes | None:
    """An SVG stamp as PNG, `SVG_WIDTH` pixels wide; None where resvg cannot draw it or is not installed."""
    draw = _drawer()
    if draw is None:
        return None
    try:  # from its text alone, so that nothing that it names is opened
        return draw(path.read_text("utf-8"), width=SVG_WIDTH, skip_system_fonts=True)
    except (ValueError, UnicodeDecodeError):
        return None


def _drawer() -> Callable[..., bytes] | None:
    """What makes the PNG of an SVG; None where the extra "svg" is not installed."""
    try:
        draw: Callable[..., bytes] = importlib.import_module("resvg_py").svg_to_bytes
    except ImportError:
        return None
    return draw


def _finished(out: Path, recipe: dict) -> bool:
    """Whether `out` holds this very data set."""
    try:
        mark = json.loads((out / MARK).read_text("utf-8"))
        table = (out / TABLE).read_bytes()
        rows = csv.DictReader(io.StringIO(table.decode()))
        whole = all(
            (out / row[name]).is_file()
            for row in rows
            for name in ("picture", "speech", "sound")
            if row[name]
        )
    except (OSError, ValueError, KeyError):
        return False
    return whole and {**recipe, "table": _digest(table), "skipped": mark.get("skipped")} == mark


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
