"""Pictures, frames and sounds as a page carries them: small, inside the page, as the model saw them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import av
import numpy as np
from PIL import Image

from motet.data.audio import RATE, load_audio
from motet.data.frames import VideoConfig
from motet.data.image import load_image, square
from motet.data.mel import HOP, log_mel
from motet.data.video import load_video
from motet.explain.draw import svg

BITS = 40_000  # a second of sound; mono at 16 kHz, which is all that the model hears
LONGEST = 300.0  # seconds of sound that a page carries
INK, PALE = np.array([11.0, 16, 23]), np.array([246.0, 240, 226])  # silence, loudest


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture_uri(path: Path, *, side: int = 320) -> str:
    """The picture as the model sees it, centre-cropped square, as a data: URI.

    Raises:
        DataError: not a whole picture.
    """
    image = load_image(path)
    return _webp(square(image, min(side, max(image.size))), quality=84)


def frames(path: Path, times: Sequence[float] | np.ndarray, *, side: int = 168) -> list[str]:
    """The frames of a clip at these evenly spaced times, as data: URIs; "" where it has none.

    Raises:
        DataError: the clip cannot be read.
    """
    step = float(times[1] - times[0]) if len(times) > 1 else 1.0
    clip = load_video(path, config=VideoConfig(fps=1 / step, max_frames=10**6), size=side)
    found = [] if clip is None else [_webp(frame, quality=70) for frame in clip.frames[: len(times)]]
    return [*found, *[""] * (len(times) - len(found))]


def _webp(pixels: np.ndarray, *, quality: int) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality)
    return data_uri(buffer.getvalue(), "image/webp")


def wave_of(path: Path, seconds: float | None = None) -> np.ndarray | None:
    """The sound of a file as the model hears it, (n,) at 16 kHz; None of a clip without sound.

    seconds: cut to this length, or filled with silence, so that it lies exactly under its tokens.

    Raises:
        DataError: it cannot be read.
    """
    wave = load_audio(path)
    if wave is None or seconds is None:
        return wave
    count = max(1, round(seconds * RATE))
    return np.pad(wave[:count], (0, max(0, count - len(wave))))


def sound_uri(wave: np.ndarray) -> str:
    """(n,) at 16 kHz as MP3 in a data: URI, which every browser plays; "" of more than LONGEST."""
    if len(wave) > LONGEST * RATE:
        return ""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as out:
        stream = out.add_stream("libmp3lame", rate=RATE, layout="mono", format="s16p")
        stream.bit_rate = BITS
        samples = (np.clip(wave, -1, 1) * 32767).astype(np.int16)
        for start in range(0, len(samples), 1152):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1152], "s16p", "mono")
            frame.sample_rate, frame.pts = RATE, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return data_uri(buffer.getvalue(), "audio/mpeg")


def player(uri: str, label: str) -> str:
    """An <audio> element that carries its sound; empty without one."""
    if not uri:
        return ""
    return f'<audio controls preload="metadata" aria-label="{escape(label)}" src="{uri}"></audio>'


def played(path: Path, label: str) -> str:
    """A player of a file; empty where it has no sound."""
    wave = wave_of(path)
    return "" if wave is None else player(sound_uri(wave), label)


def spectrogram(wave: np.ndarray, *, columns: int = 720) -> np.ndarray:
    """Loudness over time and pitch, dark to pale, low notes at the bottom. (80, columns, 3) uint8"""
    mel = log_mel(np.pad(wave, (0, max(0, 2 * HOP - len(wave)))))
    if len(mel) > columns:
        edges = np.linspace(0, len(mel), columns, endpoint=False).astype(int)
        mel = np.maximum.reduceat(mel, edges)
    low, high = float(mel.min()), float(mel.max())
    level = ((mel - low) / ((high - low) or 1.0)).T[::-1, :, None]
    return np.rint(INK + (PALE - INK) * level).astype(np.uint8)


def spectrogram_uri(wave: np.ndarray) -> str:
    return _webp(spectrogram(wave), quality=60)


def lit_picture(uri: str, grid: np.ndarray, title: str) -> str:
    """A picture in which patches stay the lighter the more they weigh. grid: (rows, cols)."""
    rows, cols = grid.shape
    shade = 0.74 * (1 - grid / (float(grid.max()) or 1.0))
    wide, high = 320 / cols, 320 / rows
    size = f'width="{wide:.3f}" height="{high:.3f}"'
    cells = "".join(
        f'<rect class="shade" x="{c * wide:.3f}" y="{r * high:.3f}" {size} fill-opacity="{shade[r, c]:.3f}"/>'
        for r in range(rows)
        for c in range(cols)
    )
    return svg(320, 320, title, f'<image href="{uri}" width="320" height="320"/>{cells}', kind="chart lit")


def ticks(seconds: float) -> list[tuple[float, str, str]]:
    """Round seconds along a timeline: (place of 0..1, text, how it is aligned)."""
    unit = next((u for u in (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60) if seconds / u <= 6), 120)
    return [
        (at / seconds, f"{at:g} s", "" if at == 0 else "end" if at > seconds - 0.3 * unit else "middle")
        for at in np.arange(0, seconds + 1e-9, unit).tolist()
    ]


def seconds_axis(seconds: float) -> str:
    """The seconds under a timeline."""
    marks = "".join(
        f'<span class="{side}" style="left:{100 * at:.2f}%">{label}</span>'
        for at, label, side in ticks(seconds)
    )
    return f'<div class="axis" aria-hidden="true">{marks}</div>'
