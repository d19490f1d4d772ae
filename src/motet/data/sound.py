"""Sounds decoded to 16 kHz mono, with every limit counted while decoding."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import SEEK_END
from pathlib import Path
from typing import IO

import av
import numpy as np
import soundfile
import soxr

from motet.data.blob import Blob, handle
from motet.data.container import Deadline, open_container, start_of
from motet.data.media import broken
from motet.data.mel import HOP, RATE
from motet.errors import ConfigError

BLOCK = 1 << 16  # samples of one channel decoded at a time
RATES = (1_000, 400_000)


@dataclass(frozen=True)
class AudioConfig:
    """`frames` log-mel frames of 10 ms make one token. Only the first `heard_seconds` are used.

    A file longer than `max_seconds`, or of more than `max_bytes` of decoded samples (all channels,
    4 bytes each), is refused as broken; so is one that takes `wall_seconds` to decode.
    """

    mels: int = 80
    frames: int = 8
    heard_seconds: float = 30.0
    max_seconds: float = 300.0
    max_bytes: int = 512 * 2**20
    wall_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.mels <= 200 or self.frames < 3:
            raise ConfigError("audio: mels must be in 1..200 and frames at least 3.")
        if self.heard_seconds * RATE < self.frames * HOP:
            raise ConfigError("audio: heard_seconds must hold at least one token of `frames` x 10 ms.")


Container = Callable[[Path | Blob, str, AudioConfig], np.ndarray | None]


def load_audio(
    path: Path | Blob,
    name: str = "",
    config: AudioConfig | None = None,
    *,
    container: Container | None = None,
) -> np.ndarray | None:
    """The whole sound, (n,) float32, mono, 16 kHz, n >= 1; None for a video without sound.

    `container` decodes what is neither WAV, FLAC nor Ogg, by default `container_sound`.

    Raises:
        DataError: damaged, shorter than its header says, longer than the limits, no samples,
            NaN or infinite samples, an absurd sample rate.
    """
    name, config, container = name or path.name, config or AudioConfig(), container or container_sound
    try:
        with path.open("rb") as file:
            plain = _is_plain(file, name)
    except OSError as error:
        raise broken(name, "unreadable", f"the file cannot be read: {error.strerror}") from None
    wave = _by_soundfile(path, name, config, container) if plain else container(path, name, config)
    if wave is not None and not len(wave):
        raise broken(name, "no samples", "the sound has 0 samples")
    return wave


def _is_plain(file: IO[bytes], name: str) -> bool:
    """Whether it is a WAV, FLAC or Ogg file, which libsndfile reads; whole, as far as its headers say."""
    head = file.read(12)
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        _check_wav(file, name, wide=head[:4] == b"RF64")
        return True
    if head[:4] == b"OggS":
        _check_ogg(file, name)
        return True
    return head[:4] == b"fLaC"


def _check_wav(file: IO[bytes], name: str, *, wide: bool) -> None:
    """The data chunk must be as long as it says; libsndfile returns what is there without a word."""
    size, at = file.seek(0, SEEK_END), 12
    for _ in range(10_000):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            raise broken(name, "truncated", "the WAV file ends before its samples begin")
        tag, length = struct.unpack("<4sI", head)
        if tag == b"data":
            missing = at + 8 + length - size
            if missing > 0 and length != 0xFFFFFFFF and not wide:
                raise broken(
                    name, "truncated", f"the WAV file lacks {missing} bytes of the {length} announced"
                )
            return
        at += 8 + length + length % 2


def _check_ogg(file: IO[bytes], name: str) -> None:
    """The last page must be whole and marked as the last."""
    file.seek(max(0, file.seek(0, SEEK_END) - 2 * 65536))
    tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:] if at >= 0 else b""
    segments = page[27 : 27 + page[26]] if len(page) >= 27 else b""
    last = len(page) >= 27 and page[5] & 4
    if not last or len(page) < 27 + page[26] + sum(segments):
        raise broken(name, "truncated", "the Ogg file has no last page (cut off?)")


class _Mono:
    """Gathers blocks of any rate and channels as 16 kHz mono, counting against the limits."""

    def __init__(self, name: str, config: AudioConfig) -> None:
        self.name, self.config = name, config
        self.rate, self.samples, self.bytes = 0, 0, 0
        self.parts: list[np.ndarray] = []
        self.stream: soxr.ResampleStream | None = None
        self.deadline = Deadline(name, config.wall_seconds)

    def start(self, rate: int) -> None:
        if not RATES[0] <= rate <= RATES[1]:
            raise broken(
                self.name, "sample rate", f"{rate} samples a second is outside {RATES[0]}..{RATES[1]}"
            )
        self.rate = rate
        if rate != RATE:
            self.stream = soxr.ResampleStream(rate, RATE, 1, dtype="float32")

    def delay(self, seconds: float) -> None:
        """Silence before the first block."""
        self.count(int(seconds * self.rate), 1)
        self.parts.append(np.zeros(int(seconds * RATE), np.float32))

    def count(self, samples: int, channels: int) -> None:
        """Count what is announced or decoded, and refuse what is too long."""
        self.samples += samples
        self.bytes += samples * channels * 4
        if self.samples > self.config.max_seconds * self.rate:
            raise broken(
                self.name, "too long", f"more than {self.config.max_seconds:g} s of sound (audio.max_seconds)"
            )
        if self.bytes > self.config.max_bytes:
            limit = self.config.max_bytes >> 20
            raise broken(self.name, "too long", f"more than {limit} MiB of decoded sound (audio.max_bytes)")
        self.deadline.check()

    def add(self, block: np.ndarray) -> None:
        """block: (samples, channels) float32."""
        self.count(*block.shape)
        if not np.isfinite(block).all():
            raise broken(self.name, "NaN", "samples that are NaN or infinite")
        mono = block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
        self.parts.append(self.stream.resample_chunk(mono) if self.stream else mono)

    def finish(self) -> np.ndarray:
        if self.stream:
            self.parts.append(self.stream.resample_chunk(np.zeros(0, np.float32), last=True))
        if len(self.parts) == 1:
            return self.parts[0]
        return np.concatenate(self.parts) if self.parts else np.zeros(0, np.float32)


def _by_soundfile(
    path: Path | Blob, name: str, config: AudioConfig, container: Container
) -> np.ndarray | None:
    mono = _Mono(name, config)
    try:
        with soundfile.SoundFile(handle(path)) as file:
            announced = file.frames
            mono.start(file.samplerate)
            if announced < 2**62:  # libsndfile's "unknown" is the largest integer
                mono.count(announced, file.channels)
                mono.samples = mono.bytes = 0
            for block in _blocks(file):
                mono.add(block)
    except soundfile.LibsndfileError as error:
        if "nimplemented" in str(error) or "nknown" in str(error) or "upported" in str(error):
            return container(path, name, config)
        raise broken(name, "damaged", f"the sound cannot be decoded: {error.error_string}") from None
    except (RuntimeError, TypeError, ValueError) as error:
        raise broken(name, "damaged", f"the sound cannot be decoded: {error}") from None
    if mono.samples < announced < 2**62:
        raise broken(name, "truncated", f"only {mono.samples} of {announced} samples are there")
    return mono.finish()


def _blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    left = file.frames  # the largest integer where that is not known
    while left > 0 and len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        left -= len(block)
        yield block


def container_sound(path: Path | Blob, name: str, config: AudioConfig) -> np.ndarray | None:
    """Any other container. The sound starts where the container's clock does, with silence if late."""
    with open_container(path, name, seconds=config.wall_seconds) as container:
        if not container.streams.audio:
            if any(s.frames or s.duration or not s.disposition for s in container.streams.video):
                return None
            raise broken(name, "no sound", "the file has neither sound nor video")
        stream = container.streams.audio[0]
        mono = _Mono(name, config)
        to_float = av.AudioResampler(format="fltp")
        for frame in container.decode(stream):
            if not mono.rate:
                mono.start(frame.sample_rate)
                late = max(0.0, (frame.time or 0.0) - start_of(container))
                mono.delay(late)
            for part in to_float.resample(frame):
                mono.add(part.to_ndarray().T)
        return mono.finish() if mono.rate else np.zeros(0, np.float32)
