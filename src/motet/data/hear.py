"""What is said in sounds and clips without any words beside them, heard by a Whisper model of the user's.

The model is a local folder as `transformers` saves it; nothing is fetched. What was heard is kept in the
cache, by the bytes of the sound and of the model.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motet.config import read
from motet.data.isolate import load_audio
from motet.data.media import broken, open_media
from motet.data.mel import RATE
from motet.data.spoken import LONG, Heard, Timed
from motet.errors import ConfigError, missing_extra

WINDOW, EDGE = 30, 5  # seconds heard at once; a window ends at the quietest place in its last ones
QUIET = RATE // 10  # samples that such a place is long
SILENT = 1e-3  # of 1: below, a window is not heard at all, in which a model would only imagine words
WEIGHTS = ("*.safetensors", "*.json", "*.txt")


@dataclass(frozen=True, eq=False)
class Listener:
    """A loaded model: `hear` gives words and the seconds at which each begins."""

    pipeline: Any

    def hear(self, wave: np.ndarray) -> tuple[list[str], list[float]]:
        """wave: (n,) float32 at 16 kHz, of any length."""
        words: list[str] = []
        times: list[float] = []
        for start, end in windows(wave):
            part = wave[start:end]
            if np.abs(part).max(initial=0) < SILENT:
                continue
            at, last = start / RATE, end / RATE
            for chunk in self.pipeline(np.ascontiguousarray(part), return_timestamps="word")["chunks"]:
                begin = chunk["timestamp"][0]
                time = times[-1] if begin is None and times else at + (begin or 0.0)
                time = min(max(time, times[-1] if times else at), last)
                for word in chunk["text"].split():
                    words.append(word)
                    times.append(time)
        return words, times


def windows(wave: np.ndarray) -> Iterator[tuple[int, int]]:
    """Places (start, end) in samples, at most WINDOW seconds each, cut where it is quietest."""
    start, most, edge = 0, WINDOW * RATE, EDGE * RATE
    while len(wave) - start > most:
        tail = wave[start + most - edge : start + most]
        loud = (tail.astype(np.float64) ** 2).reshape(-1, QUIET).mean(1)
        end = start + most - edge + int(loud.argmin()) * QUIET + QUIET // 2
        yield start, end
        start = end
    yield start, len(wave)


def transcribed(cell: Heard, root: Path) -> Timed | None:
    """The words of a sound or clip with their times, marked as estimated; None where nothing is heard.

    Raises:
        ConfigError: the model cannot be loaded.
        DataError: the sound or clip is broken.
    """
    media = open_media(cell.media, root)
    if media is None:
        return None
    name = str(cell.media)
    try:
        with media.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise broken(name, "unreadable", f"the file cannot be read: {error.strerror}") from None
    kept = _place(content, cell.model)
    found = _known(kept)
    if found is None:
        wave = load_audio(media, name, LONG)
        words, times = ([], []) if wave is None else listener(cell.model).hear(wave)
        found = words, times
        _keep(kept, words, times)
    words, times = found
    return Timed(" ".join(words), np.array(times, np.float32), estimated=True) if words else None


@functools.lru_cache(maxsize=2)
def listener(folder: str) -> Listener:
    """Raises ConfigError: `transformers` is missing, or `folder` is no Whisper model with safetensors."""
    check_whisper(folder)
    try:
        import transformers
    except ImportError:
        raise missing_extra("hf", "transformers", "Transcribing speech") from None
    try:
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        model = transformers.WhisperForConditionalGeneration.from_pretrained(
            folder, use_safetensors=True, **options
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        features = transformers.WhisperFeatureExtractor.from_pretrained(folder, **options)
        made = transformers.pipeline(
            "automatic-speech-recognition",
            model=model.eval(),
            tokenizer=tokenizer,
            feature_extractor=features,
            device="cpu",
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"text.transcribe={folder}: the model cannot be loaded: {why}. Save it with save_pretrained."
        ) from None
    return Listener(made)


def check_whisper(folder: str) -> None:
    """Raises ConfigError where `folder` holds no Whisper model; nothing of it is loaded."""
    path = Path(folder)
    kind = read(path / "config.json").get("model_type") if (path / "config.json").is_file() else None
    if kind != "whisper" or not any(path.glob("*.safetensors")):
        found = f"a model of kind {kind!r}" if kind else "no config.json"
        raise ConfigError(
            f"text.transcribe={folder}: {found}; expected the folder of a Whisper model, with config.json, "
            "model.safetensors and its tokenizer (looked from "
            f"{Path.cwd()}). Save one with save_pretrained, or leave text.transcribe out."
        )


@functools.lru_cache(maxsize=8)
def fingerprint(folder: str) -> str:
    """sha256 of the files that make the model."""
    check_whisper(folder)
    digest = hashlib.sha256()
    for path in sorted(path for pattern in WEIGHTS for path in Path(folder).glob(pattern)):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _place(content: str, folder: str) -> Path:
    from motet.data.cache import default_cache

    key = hashlib.sha256(f"{content}:{fingerprint(folder)}".encode()).hexdigest()
    return default_cache() / "heard" / key[:2] / f"{key}.json"


def _known(path: Path) -> tuple[list[str], list[float]] | None:
    try:
        found = json.loads(path.read_text("utf-8"))
        words, times = [str(word) for word in found["words"]], [float(time) for time in found["times"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (words, times) if len(words) == len(times) else None


def _keep(path: Path, words: list[str], times: list[float]) -> None:
    """Whole or not at all; where nothing can be written, it is heard again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({"words": words, "times": times}, file)
        os.replace(temporary, path)
    except OSError:
        return
