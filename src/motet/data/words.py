"""Words with their times, and what the readers of transcripts share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from motet.data.media import broken
from motet.errors import DataError

MAX_WORDS = 200_000
MAX_SECONDS = 1e6


@dataclass(frozen=True)
class Word:
    """One word and when it is said, in seconds from the start of the sound."""

    text: str
    start: float
    end: float


def wrong(name: str, line: int, why: str) -> DataError:
    """The error for one line of a transcript."""
    return broken(name, "transcript", f"line {line}: {why}")


def cut(text: str, start: float, end: float) -> Iterator[Word]:
    """The words of one cue, each with its share of the time by its length."""
    words = text.split()
    whole = sum(len(word) for word in words)
    at = 0
    for word in words:
        begin = start + (end - start) * at / whole
        at += len(word)
        yield Word(word, begin, start + (end - start) * at / whole)


def timed(name: str, line: int, text: str, start: float, end: float) -> Iterator[Word]:
    """`cut`, of times that are checked to run forwards from 0."""
    if not 0 <= start <= end <= MAX_SECONDS:  # so NaN is refused as well
        raise wrong(name, line, f"times {start:g} to {end:g} s do not run forwards from 0")
    return cut(text, start, end)
