"""Frames of clips, chosen by time and turned upright."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from motet.data.blob import Blob
from motet.data.container import Deadline, open_container, start_of
from motet.data.media import broken, square
from motet.errors import ConfigError


@dataclass(frozen=True)
class VideoConfig:
    """Frames are taken every 1/`fps` s; where that gives more than `max_frames`, half as often, and so on.

    `size` and `patch` hold without an encoder. `sound`: whether the sound track of the clips is a
    modality as well. The other limits refuse a clip as broken.
    """

    size: int = 64
    patch: int = 16
    fps: float = 2.0
    max_frames: int = 16
    sound: bool = True
    max_seconds: float = 600.0
    max_pixels: int = 36_000_000
    wall_seconds: float = 120.0

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size < self.patch or self.size % self.patch:
            raise ConfigError(f"video: size {self.size} must be a multiple of patch {self.patch}.")
        if self.fps <= 0 or self.max_frames < 1:
            raise ConfigError("video: fps must be above 0 and max_frames at least 1.")


@dataclass(frozen=True)
class Clip:
    """frames: (n, size, size, 3) uint8; times: (n,) float32, seconds from the clip's start."""

    frames: np.ndarray
    times: np.ndarray


def load_video(
    path: Path | Blob, name: str = "", config: VideoConfig | None = None, *, size: int = 0
) -> Clip | None:
    """The frames on display at times 0, s, 2s, ...; None for a file that has sound only.

    Right for variable frame rates and unknown durations, because every frame's own time is read.

    Raises:
        DataError: damaged, shorter than its header says, without a frame, or beyond the limits.
    """
    name, config = name or path.name, config or VideoConfig()
    kept: list[np.ndarray] = []
    step = 1 / config.fps
    with open_container(path, name, seconds=config.wall_seconds) as container:
        if not container.streams.video:
            if container.streams.audio:
                return None
            raise broken(name, "no video", "the file has neither video nor sound")
        for frame, until in _on_display(container, name, config):
            picture = None
            while len(kept) * step < until:
                picture = _upright(frame, size or config.size) if picture is None else picture
                kept.append(picture)
                if len(kept) > config.max_frames:
                    kept, step = kept[::2], step * 2
    if not kept:
        raise broken(name, "no frames", "not one frame of its video can be decoded (cut off?)")
    return Clip(np.stack(kept), (np.arange(len(kept)) * step).astype(np.float32))


def _on_display(container: Any, name: str, config: VideoConfig) -> Iterator[tuple[Any, float]]:
    """Each frame and the time, in seconds on the container's clock, until which it is shown."""
    stream = container.streams.video[0]
    _check_pixels(stream.codec_context, name, config)
    deadline = Deadline(name, config.wall_seconds)
    start, usual = start_of(container), float(1 / (stream.average_rate or 25))
    previous, shown = None, 0.0
    for frame in container.decode(stream):
        deadline.check()
        _check_pixels(frame, name, config)
        time = shown + usual if frame.time is None else max(shown, frame.time - start)
        if time > config.max_seconds:
            raise broken(name, "too long", f"more than {config.max_seconds:g} s of video (video.max_seconds)")
        if previous is not None:
            yield previous, time
        previous, shown = frame, time
    if previous is not None:
        yield previous, shown + usual


def _check_pixels(sized: Any, name: str, config: VideoConfig) -> None:
    if sized.width * sized.height > config.max_pixels:
        limit = config.max_pixels / 1e6
        raise broken(
            name,
            "too large",
            f"frames of {sized.width} x {sized.height}, more than {limit:g} million (video.max_pixels)",
        )


def _upright(frame: Any, size: int) -> np.ndarray:
    """(size, size, 3) uint8, turned as the clip's display matrix says."""
    picture = square(Image.fromarray(frame.to_ndarray(format="rgb24")), size)
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))
