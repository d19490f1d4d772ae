"""Words with their times: SubRip, WebVTT, JSON, Praat TextGrid and CTM files, read strictly.

A cue of several words gives each its share of the cue's time, by its length; a format that times
single words (JSON with words, TextGrid, CTM, WebVTT with inner timestamps) places each exactly.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from motet.data import cues
from motet.data.media import broken, read_bytes
from motet.data.paths import extension_of
from motet.data.words import MAX_SECONDS, MAX_WORDS, Word, cut, timed, wrong

FORMATS = ("srt", "vtt", "json", "textgrid", "ctm")
BESIDE = (".srt", ".vtt", ".TextGrid", ".ctm")  # what may stand beside a clip under its name
MAX_BYTES = 8 * 2**20


def is_transcript(cell: Any) -> bool:
    """Whether a cell names a file with word times, by its ending."""
    return extension_of(cell) in FORMATS


def beside(media: str, root: Path) -> str | None:
    """The transcript beside a sound or clip: the same name with .srt, .vtt, .TextGrid or .ctm; or None."""
    stem = PurePosixPath(media).with_suffix("")
    found = (str(stem) + ending for ending in (*BESIDE, *(e.upper() for e in BESIDE[:2])))
    return next((name for name in found if (root / name).is_file()), None)


def read_transcript(path: Path, name: str = "") -> list[Word]:
    """The words of a file, in order of time.

    Raises:
        DataError: not of the format that its name says, with the line; no word in it; too large.
    """
    name = name or path.name
    text = _decoded(read_bytes(path, name, MAX_BYTES), name)
    match path.suffix.lower():
        case ".srt":
            words: Iterable[Word] = cues.srt(text, name)
        case ".vtt":
            words = cues.vtt(text, name)
        case ".json":
            words = _json(text, name)
        case ".textgrid":
            words = _textgrid(text, name)
        case ".ctm":
            words = _ctm(text, name)
        case ending:
            raise broken(name, "transcript", f"{ending!r} is no transcript; known are {', '.join(FORMATS)}")
    found: list[Word] = []
    for word in words:
        found.append(word)
        if len(found) > MAX_WORDS:
            raise broken(name, "too long", f"more than {MAX_WORDS} words")
    if not found:
        raise broken(name, "no text", "there is no word in it")
    return sorted(found, key=lambda word: word.start)


def _decoded(data: bytes, name: str) -> str:
    wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")  # as Praat writes it
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise broken(name, "encoding", f"line {line} is not {'UTF-16' if wide else 'UTF-8'}") from None
    if "\0" in text:
        raise broken(name, "encoding", f"line {text[: text.index(chr(0))].count(chr(10)) + 1} holds NUL")
    return text.replace("\r\n", "\n").replace("\r", "\n")


# ---- JSON


def _json(text: str, name: str) -> Iterator[Word]:
    """A list of words, or an object with `words` or `segments`, whose own `words` go first; as of Whisper."""
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise wrong(name, error.lineno, f"not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise broken(name, "transcript", f"not usable JSON: {error}") from None
    yield from _entries(found, name, "the file")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key that stands twice in one object")
    return made


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no number")


def _entries(found: Any, name: str, where: str) -> Iterator[Word]:
    if isinstance(found, dict):
        key = next((key for key in ("words", "segments", "chunks") if key in found), None)
        if key is None:
            raise broken(name, "transcript", f"{where} has neither 'words' nor 'segments'")
        found, where = found[key], key
    if not isinstance(found, list):
        raise broken(name, "transcript", f"{where} is no list of words")
    for i, entry in enumerate(found):
        at = f"{where}[{i}]"
        if not isinstance(entry, dict):
            raise broken(name, "transcript", f"{at} is no object with a word, its start and its end")
        if entry.get("words"):
            if where.count("[") > 4:
                raise broken(name, "transcript", f"{at}: words within words within words")
            yield from _entries(entry["words"], name, f"{at}.words")
        else:
            yield from _entry(entry, name, at)


def _entry(entry: dict[str, Any], name: str, at: str) -> Iterator[Word]:
    text = next((entry[key] for key in ("word", "text") if key in entry), None)
    pair = entry.get("timestamp")
    times: list[Any] = pair if isinstance(pair, list) else [entry.get("start"), entry.get("end")]
    if not isinstance(text, str):
        raise broken(name, "transcript", f"{at} has no 'word' or 'text'")
    if len(times) != 2:
        raise broken(name, "transcript", f"{at}: a 'timestamp' is a pair of seconds")
    for time in times:
        if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time <= MAX_SECONDS:
            raise broken(name, "transcript", f"{at}: 'start' and 'end' must be seconds, from 0 on")
    start, end = times
    if start > end:
        raise broken(name, "transcript", f"{at}: {start:g} to {end:g} s does not run forwards from 0")
    yield from cut(text, float(start), float(end))


# ---- TextGrid and CTM

_PRAAT = re.compile(r'"((?:[^"]|"")*)"|(?<![\w.])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w.\]])|(<exists>)')


def _textgrid(text: str, name: str) -> Iterator[Word]:
    """The interval tier called "words" (or "word"), else the first one; the long and the short form."""
    tokens: list[tuple[Any, int]] = []
    line, last = 1, 0
    for found in _PRAAT.finditer(text):
        line += text.count("\n", last, found.start())
        last = found.start()
        quoted, number, _ = found.groups()
        value = quoted.replace('""', '"') if quoted is not None else float(number) if number else True
        tokens.append((value, line))
        if len(tokens) > 8 * MAX_WORDS:
            raise broken(name, "too long", f"more than {MAX_WORDS} words")
    reader = _Tokens(tokens, name)
    if reader.text() != "ooTextFile" or reader.text() != "TextGrid":
        raise wrong(name, 1, 'a TextGrid begins with File type = "ooTextFile", Object class = "TextGrid"')
    reader.number(), reader.number()
    if reader.next("<exists>") is not True:
        raise wrong(name, reader.line, "the TextGrid has no tiers")
    tiers: list[tuple[str, list[Word]]] = []
    for _ in range(reader.count()):
        kind, title = reader.text(), reader.text()
        reader.number(), reader.number()
        words: list[Word] = []
        for _ in range(reader.count()):
            start = reader.number()
            end = reader.number() if kind == "IntervalTier" else start
            at, label = reader.line, reader.text()
            words += timed(name, at, label, start, end)
        if kind == "IntervalTier":
            tiers.append((title.lower(), words))
    if not tiers:
        raise wrong(name, reader.line, "no tier of intervals")
    yield from next((words for title, words in tiers if title in ("words", "word")), tiers[0][1])


class _Tokens:
    """The strings and numbers of a TextGrid, one after the other; `line` is that of the last one."""

    def __init__(self, tokens: list[tuple[Any, int]], name: str) -> None:
        self.tokens, self.name, self.at, self.line = tokens, name, 0, 1

    def next(self, wanted: str) -> Any:
        if self.at >= len(self.tokens):
            raise wrong(self.name, self.line, f"the file ends where {wanted} should stand (cut off?)")
        value, self.line = self.tokens[self.at]
        self.at += 1
        return value

    def text(self) -> str:
        value = self.next("a text")
        if not isinstance(value, str):
            raise wrong(self.name, self.line, f"expected a text in quotes, found {value}")
        return value

    def number(self) -> float:
        value = self.next("a number")
        if isinstance(value, str | bool):
            raise wrong(self.name, self.line, f"expected a number, found {str(value)[:40]!r}")
        return float(value)

    def count(self) -> int:
        value = self.number()
        if not 0 <= value <= len(self.tokens) or value % 1:
            raise wrong(self.name, self.line, f"{value:g} entries cannot be")
        return int(value)


def _ctm(text: str, name: str) -> Iterator[Word]:
    """Lines of: recording, channel, start, duration, word, and perhaps its confidence."""
    recording = None
    for number, line in enumerate(text.split("\n"), 1):
        parts = line.split()
        if not parts or line.startswith(";;"):
            continue
        try:
            start, lasts = float(parts[2]), float(parts[3])
            word = parts[4]
        except (IndexError, ValueError):
            raise wrong(name, number, "expected: recording channel start duration word") from None
        if recording not in (None, parts[0]):
            raise wrong(name, number, f"a second recording, {parts[0][:40]!r}; one file has one")
        recording = parts[0]
        if word not in ("<eps>", "SIL", "<sil>"):
            yield from timed(name, number, word, start, start + lasts)
