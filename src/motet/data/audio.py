"""Sounds to windows of log-mel frames."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motet.data.half import half
from motet.data.isolate import load_audio
from motet.data.media import described, digest, open_media
from motet.data.mel import HOP, RATE, log_mel
from motet.data.sound import AudioConfig
from motet.errors import ConfigError
from motet.types import Kind, ModalitySpec, Piece


class AudioProcessor:
    """Sounds to tokens of `frames` x `mels` numbers, normalised by band; time is a window's centre.

    mean, std: (mels,) over the training part.
    """

    kind: Kind = "audio"
    encoder = None

    def __init__(self, name: str, config: AudioConfig, mean: Sequence[float], std: Sequence[float]) -> None:
        if len(mean) != config.mels or len(std) != config.mels or min(std) <= 0:
            raise ConfigError(f"audio {name!r}: mean and std must hold {config.mels} numbers, std above 0.")
        self.name, self.config = name, config
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        self.spec = ModalitySpec(name, "audio", "vectors", config.frames * config.mels)
        self.fingerprint = digest(self.to_dict())

    def read(self, cell: Any, root: Path) -> np.ndarray | None:
        """The first `heard_seconds` of the sound, (n,) float32, mono, 16 kHz; None where there is none.

        Raises:
            DataError: outside `root`, missing, or not a whole and usable sound.
        """
        return read_audio(cell, root, self.config)

    def pieces(self, raws: Sequence[np.ndarray]) -> list[Piece]:
        """One Piece a sound, at least one token; the last window is filled with silence."""
        return [self._piece(wave) for wave in raws]

    def _piece(self, wave: np.ndarray) -> Piece:
        config = self.config
        mel = log_mel(padded(wave, config), config.mels)
        np.divide(mel - self.mean, self.std, out=mel, casting="same_kind")  # in float64
        tokens = len(mel) // config.frames
        values = half(mel.reshape(tokens, config.frames * config.mels))
        time, labels = _windows(tokens, config.frames * HOP / RATE)
        return Piece(values, time, labels=labels)

    def to_dict(self) -> dict[str, Any]:
        return described(self, mean=self.mean.tolist(), std=self.std.tolist())


def read_audio(cell: Any, root: Path, config: AudioConfig) -> np.ndarray | None:
    path = open_media(cell, root)
    wave = None if path is None else load_audio(path, str(cell), config)
    return None if wave is None else wave[: int(config.heard_seconds * RATE)]


@functools.lru_cache(maxsize=64)
def _windows(tokens: int, seconds: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Centres, (tokens,) float32, and names of windows one after the other; shared and read-only."""
    time = np.arange(tokens, dtype=np.float32) * np.float32(seconds) + np.float32(seconds / 2)
    time.flags.writeable = False
    return time, tuple(f"{t * seconds:.2f}-{(t + 1) * seconds:.2f} s" for t in range(tokens))


def padded(wave: np.ndarray, config: AudioConfig) -> np.ndarray:
    """With silence at the end, so that it holds whole tokens and at least one."""
    unit = config.frames * HOP
    more = -len(wave) % unit if len(wave) else unit
    return np.pad(wave, (0, more)) if more else wave


def fit_audio(waves: Iterable[np.ndarray], config: AudioConfig) -> dict[str, list[float]]:
    """Mean and standard deviation of each mel band over `waves`."""
    count, total, square = 0, np.zeros(config.mels), np.zeros(config.mels)
    for wave in waves:
        mel = log_mel(padded(wave, config), config.mels).astype(np.float64)
        count, total, square = count + len(mel), total + mel.sum(0), square + (mel**2).sum(0)
    if not count:
        return {"mean": [0.0] * config.mels, "std": [1.0] * config.mels}
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 1e-4))
    return {"mean": mean.tolist(), "std": std.tolist()}


def load_audio_processor(saved: Mapping[str, Any], config: AudioConfig) -> AudioProcessor:
    return AudioProcessor(saved["name"], config, saved["mean"], saved["std"])
