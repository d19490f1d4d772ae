"""IEMOCAP: its label and transcript files and its sounds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from motet.data.published.writer import MediaWriter, Row
from motet.errors import DataError

_TURN = re.compile(r"\[([\d.]+) - ([\d.]+)\]\t(\S+)\t(\S+)\t\[([\d.]+), ([\d.]+), ([\d.]+)\]")
_SAID = re.compile(r"(\S+) \[[\d.]+-[\d.]+\]: (.*)")
_EMOTIONS = {
    **{"ang": "angry", "hap": "happy", "exc": "excited", "sad": "sad", "fru": "frustrated", "neu": "neutral"},
    **{"fea": "fearful", "sur": "surprised", "dis": "disgusted", "oth": "other"},
}


def read_iemocap(source: Path, writer: MediaWriter) -> Iterator[Row]:
    """Session*/dialog/EmoEvaluation/*.txt, dialog/transcriptions/*.txt, sentences/wav/*/*.wav.

    A session is a group, so that no speaker is in two parts. Turns on which the raters did not agree
    ("xxx") have no emotion, but their valence, activation and dominance.
    """
    sessions = sorted(path for path in source.glob("Session*") if path.is_dir())
    for session in sessions:
        said: dict[str, str] = {}
        for file in sorted((session / "dialog" / "transcriptions").glob("*.txt")):
            said |= dict(_matches(_SAID, file, lambda found: (found[1], found[2].strip())))
        for file in sorted((session / "dialog" / "EmoEvaluation").glob("*.txt")):
            turns = _matches(_TURN, file, lambda found: found.groups())
            for order, (_, _, id, emotion, *scores) in enumerate(turns):
                sound = session / "sentences" / "wav" / id.rsplit("_", 1)[0] / f"{id}.wav"
                valence, activation, dominance = map(float, scores)
                yield {
                    **{"id": id, "group": session.name, "dialog": file.stem, "order": order},
                    "text": said.get(id) or None,
                    "audio": writer.media("audio", sound) if sound.is_file() else None,
                    "emotion": None if emotion == "xxx" else _EMOTIONS.get(emotion, emotion),
                    **{"valence": valence, "activation": activation, "dominance": dominance},
                }
    if not sessions:
        raise DataError(f"{source}: no folders Session1, Session2, ... in it, as IEMOCAP has them.")


def _matches(pattern: re.Pattern[str], file: Path, pick: Callable[[re.Match[str]], Any]) -> Iterator[Any]:
    for line in file.read_text("utf-8", errors="replace").splitlines():
        found = pattern.match(line)
        if found:
            yield pick(found)
