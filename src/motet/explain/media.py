"""Pictures with their patches lit, words coloured by weight, sounds with their seconds lit."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from motet.data.audio import RATE, load_audio
from motet.data.image import load_image, square
from motet.explain.draw import FULL, percent, svg
from motet.explain.style import MAX_WORDS

SOUND_TYPES = {
    ".wav": "audio/wav", ".ogg": "audio/ogg", ".oga": "audio/ogg", ".opus": "audio/ogg",
    ".mp3": "audio/mpeg", ".flac": "audio/flac", ".m4a": "audio/mp4",
}  # fmt: skip
MAX_SOUND = 3 * 2**20
WAVE = (620.0, 46.0)  # width and height of a waveform


def picture_uri(path: Path, *, side: int = 320) -> str:
    """The picture as the model sees it, centre-cropped square, as a data: URI.

    Raises:
        DataError: not a whole picture.
    """
    image = load_image(path)
    pixels = square(image, min(side, max(image.size)))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=86)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def player(path: Path, label: str) -> str:
    """An <audio> element that carries its sound; empty where the file is too large or no sound."""
    kind = SOUND_TYPES.get(path.suffix.lower())
    if kind is None or path.stat().st_size > MAX_SOUND:
        return ""
    uri = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    return f'<audio controls preload="metadata" aria-label="{escape(label)}" src="{uri}"></audio>'


def envelope(path: Path, bars: int = 120) -> tuple[np.ndarray, float]:
    """Loudness of a sound over `bars` equal parts, 0..1, and its length in seconds."""
    wave = load_audio(path)
    if wave is None:
        return np.zeros(bars), 0.0
    edges = np.linspace(0, len(wave), bars + 1).astype(int)
    parts = [wave[a : max(b, a + 1)] for a, b in pairwise(edges)]
    loud = np.array([np.abs(part).max(initial=0.0) for part in parts])
    return np.sqrt(loud / max(float(loud.max()), 1e-9)), len(wave) / RATE


def words(labels: Sequence[str], weights: np.ndarray) -> str:
    """A text whose words are the fuller in colour the more they weigh (relative to the heaviest)."""
    hues = weights / (float(np.max(weights)) or 1.0)
    spans = []
    for label, weight, hue in zip(labels, weights, hues, strict=True):
        kind = ' class="on"' if hue >= FULL else ""
        spans.append(f'<span{kind} style="--w:{hue:.3f}" title="{weight:.3f}">{escape(label)}</span> ')
    return f'<p class="words">{"".join(spans)}</p>'


def lit_picture(uri_id: str, grid: np.ndarray, title: str) -> str:
    """A picture in which patches stay the lighter the more they weigh. grid: (rows, cols)."""
    rows, cols = grid.shape
    shade = 0.74 * (1 - grid / (float(grid.max()) or 1.0))
    wide, high = 100 / cols, 100 / rows
    size = f'width="{wide:.3f}" height="{high:.3f}"'
    cells = "".join(
        f'<rect x="{c * wide:.3f}" y="{r * high:.3f}" {size} fill-opacity="{shade[r, c]:.3f}"/>'
        for r in range(rows)
        for c in range(cols)
    )
    return (
        f'<svg viewBox="0 0 100 100" role="img"><title>{escape(title)}</title><use href="#{uri_id}"/>'
        f'<g fill="#0b1017" shape-rendering="crispEdges">{cells}</g></svg>'
    )


def lens(
    name: str, uri: str, labels: Sequence[str], grids: np.ndarray, share: Sequence[float], *, kind: str
) -> str:
    """One large picture and a small one for every word; choosing a word shows its map large.

    Works by pointer, touch and keyboard, with and without script. grids: (words, rows, cols).
    """
    count = min(len(labels), MAX_WORDS)
    start = int(np.argmax(share[:count]))
    radios, stage, thumbs = [], [], []
    for i in range(count):
        title, part = f"Where {labels[i]!r} looked in the {kind}", percent(share[i])
        map_svg, checked = lit_picture(f"{name}-p", grids[i], title), " checked" if i == start else ""
        says = f"\u201c{labels[i]}\u201d gives the {kind} {part} of its attention; brighter patches get more."
        radios.append(
            f'<input type="radio" name="{name}" id="{name}-{i}" aria-label="{escape(title)}"{checked}>'
        )
        stage.append(f"<figure>{map_svg}<figcaption>{escape(says)}</figcaption></figure>")
        thumbs.append(f'<label for="{name}-{i}">{map_svg}{escape(labels[i])}<small>{part}</small></label>')
    symbol = (
        f'<svg class="defs" aria-hidden="true"><symbol id="{name}-p" viewBox="0 0 100 100">'
        f'<image href="{uri}" width="100" height="100" preserveAspectRatio="none"/></symbol></svg>'
    )
    left = f'<p class="note">The first {count} of {len(labels)} words.</p>' if count < len(labels) else ""
    return (
        f'{symbol}<div class="lens" role="radiogroup" aria-label="Words over the {escape(kind)}">'
        f"{''.join(radios)}"
        f'<div class="stage">{"".join(stage)}</div><div class="thumbs">{"".join(thumbs)}</div></div>{left}'
    )


def lit_sound(loudness: np.ndarray, weights: np.ndarray, title: str) -> str:
    """A waveform whose parts are the fuller in colour the more they weigh.

    loudness: (bars,) 0..1; weights: (bars,), any scale.
    """
    step = WAVE[0] / len(loudness)
    hues = 0.12 + 0.88 * weights / (float(np.max(weights)) or 1.0)
    parts = []
    for i, (loud, hue) in enumerate(zip(loudness, hues, strict=True)):
        tall = max(2.0, loud * (WAVE[1] - 4))
        place = f'x="{i * step + 0.6:.2f}" y="{(WAVE[1] - tall) / 2:.2f}"'
        size = f'width="{step - 1.2:.2f}" height="{tall:.2f}" rx="1"'
        parts.append(f'<rect class="hot" {place} {size} fill-opacity="{hue:.3f}"/>')
    return svg(*WAVE, title, "".join(parts), kind="chart small", most=760)


def seconds_axis(seconds: float) -> str:
    """The seconds under a column of waveforms."""
    unit = next((u for u in (0.25, 0.5, 1, 2, 5, 10, 30, 60) if seconds / u <= 6), 120)
    parts = []
    for tick in np.arange(0, seconds + 1e-9, unit):
        side = "" if tick == 0 else "end" if tick > seconds - unit * 0.3 else "middle"
        x = tick / max(seconds, 1e-9) * WAVE[0]
        parts.append(f'<text class="soft {side}" x="{x:.1f}" y="18">{tick:g} s</text>')
    return svg(WAVE[0], 24, f"0 to {seconds:.2f} seconds", "".join(parts), kind="chart small", most=760)


def over_time(weights: np.ndarray, time: np.ndarray, seconds: float, bars: int) -> np.ndarray:
    """Weights of tokens at their times, (Q, K), as they fall on `bars` parts of a sound. (Q, bars)"""
    centres = (np.arange(bars) + 0.5) / bars * max(seconds, 1e-9)
    nearest = np.abs(centres[:, None] - time[None, :]).argmin(1)
    return weights[:, nearest]
