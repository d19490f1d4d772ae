"""SubRip and WebVTT: cues with times, and words with times within a cue."""

from __future__ import annotations

import re
from collections.abc import Iterator

from motet.data.words import Word, timed, wrong

_CLOCK = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)[.,](\d{1,3})"
_ARROW = re.compile(rf"^\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?$")
_INNER = re.compile(rf"<{_CLOCK}>")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,200}>|\{\\[^{}]{0,200}\}")
_ENTITY = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&lrm;": "", "&rlm;": ""}


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, thousandths = parts
    return (
        int(hours or 0) * 3600
        + int(minutes or 0) * 60
        + int(seconds or 0)
        + int((thousandths or "").ljust(3, "0")) / 1000
    )


def _blocks(text: str) -> Iterator[tuple[int, list[str]]]:
    """Runs of lines between blank ones, each with the number of its first line."""
    block: list[str] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        if line.strip():
            block.append(line)
        elif block:
            yield number - len(block), block
            block = []


def srt(text: str, name: str) -> Iterator[Word]:
    for line, block in _blocks(text):
        at = 1 if len(block) > 1 and block[0].strip().isdigit() and "-->" not in block[0] else 0
        yield from _cue(name, line + at, block[at:])


def vtt(text: str, name: str) -> Iterator[Word]:
    if not re.match(r"WEBVTT(?:[ \t\n]|$)", text):
        raise wrong(name, 1, "a WebVTT file begins with WEBVTT")
    for line, block in _blocks(text):
        if block[0].startswith(("WEBVTT", "NOTE", "STYLE", "REGION")) and "-->" not in block[0]:
            continue
        at = 1 if len(block) > 1 and "-->" not in block[0] else 0
        yield from _cue(name, line + at, block[at:])


def _cue(name: str, line: int, block: list[str]) -> Iterator[Word]:
    """One cue: its line of times, and lines of text that may hold times of their own."""
    found = _ARROW.match(block[0])
    if not found:
        raise wrong(name, line, "expected times such as 00:00:02,500 --> 00:00:04,000")
    times = found.groups()
    start, end = _seconds(times[:4]), _seconds(times[4:])
    if end < start:
        raise wrong(name, line, f"the cue ends at {end:g} s before it begins at {start:g} s")
    marked = _INNER.split(" ".join(block[1:]))  # text, then four groups and text for each time in it
    marks = [start, *(_seconds(tuple(marked[i : i + 4])) for i in range(1, len(marked), 5)), end]
    for i, part in enumerate(marked[::5]):
        if not start <= marks[i] <= marks[i + 1]:
            raise wrong(name, line, "the times within the cue do not run forwards")
        yield from timed(name, line, _plain(part), marks[i], marks[i + 1])


def _plain(text: str) -> str:
    text = _TAG.sub("", text)
    for entity, character in _ENTITY.items():
        text = text.replace(entity, character)
    return text
