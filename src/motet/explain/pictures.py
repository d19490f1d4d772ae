"""Every view of one input as a picture: SVG by name, what `--png` writes and a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from motet.explain import draw, met, more
from motet.explain import media as show
from motet.explain.believe import deletion_svg, insertion_svg
from motet.explain.item import Explained, Media
from motet.explain.said import shown_as

WIDE = 720.0
LETTER = 7.6  # mean width of a letter at the size of a chart's text
EACH = 24  # words over a picture


def pictures(item: Explained) -> dict[str, str]:
    """name -> SVG. Names are of letters, digits, - and _ only, made from views and modalities."""
    found: dict[str, str] = {}
    for name in item.matrix.modalities:
        found |= {f"{view}-{name}": svg for view, svg in _of(item, name).items()}
    shares = [(shown_as(item, name), share) for name, share in item.importance.by_modality().items()]
    found["importance"] = bars_svg(shares, "What reached the answer, by modality")
    for task, said in item.predictions.items():
        if said["scores"]:
            ranked = sorted(said["scores"].items(), key=lambda score: -score[1])
            found[f"answer-{task}"] = bars_svg(ranked, f"Scores of {task}")
    if len(item.matrix.modalities) > 1:
        found["modalities"] = more.matrix_svg(item)
        found["modalities-heads"] = more.matrices_svg(item)
    if item.deletion is not None:
        found |= {"deletion": deletion_svg(item), "insertion": insertion_svg(item)}
    found |= {f"seconds-{view.query}-{view.key}": more.seconds_svg(item, view) for view in item.seconds}
    found |= {f"heads-{name}": svg for name, svg in more.heads_svgs(item).items()}
    found |= {f"pattern-{p.layers[0]}": more.pattern_svg(p) for p in item.patterns}
    if item.meeting is not None:
        found["query-and-result"] = met.meeting_svg(item.meeting)
    return {"".join(c if c.isalnum() or c in "-_" else "_" for c in name): svg for name, svg in found.items()}


def _of(item: Explained, name: str) -> dict[str, str]:
    """The views of one modality: what of it reached the answer, and what each word looked at."""
    here = item.units.of(name)
    labels, weights = [item.units.labels[u] for u in here], item.units.answer[here]
    title = f"What of {shown_as(item, name)} reached the answer"
    media = item.media.get(name, Media())
    match item.kinds[name]:
        case "text":
            return {"answer": words_svg(labels, weights, title)}
        case "image" if media.file is not None:
            uri = show.picture_uri(media.file)
            lit = show.lit_picture(uri, _grid(item, here, weights), title)
            words = _each_word(item, here, uri)
            return {"answer": lit} | ({"words": words} if words else {})
        case "video" if media.file is not None:
            return {"answer": film_svg(item, media, here, title)}
        case "audio" if media.file is not None:
            return {"answer": sound_svg(item, media, here, title)}
        case _:
            return {"answer": bars_svg(list(zip(labels, weights.tolist(), strict=True)), title)}


def _grid(item: Explained, here: np.ndarray, values: np.ndarray) -> np.ndarray:
    row, col = item.units.row[here], item.units.col[here]
    grid = np.zeros((row.max() + 1, col.max() + 1))
    grid[row, col] = values
    return grid


def _each_word(item: Explained, here: np.ndarray, uri: str) -> str:
    """The picture once for every word, with the patches lit that it listened to; empty without words."""
    texts = [name for name in item.matrix.modalities if item.kinds[name] == "text"]
    words: list[int] = item.units.of(texts[0])[:EACH].tolist() if texts else []
    parts: list[str] = []
    side = 130.0
    for i, word in enumerate(words):
        grid = _grid(item, here, item.units.weights[word, here])
        x, y = i % 5 * (side + 14), i // 5 * (side + 34)
        parts.append(f'<image href="{uri}" x="{x:g}" y="{y:g}" width="{side:g}" height="{side:g}"/>')
        parts.append(_shades(grid, x, y, side, side))
        label = escape(item.units.labels[word].strip()[:16])
        parts.append(f'<text class="middle" x="{x + side / 2:g}" y="{y + side + 18:g}">{label}</text>')
    wide, high = min(len(words), 5) * (side + 14) - 14, -(-len(words) // 5) * (side + 34)
    return draw.svg(wide, high, "Where each word looked", "".join(parts)) if parts else ""


def _shades(grid: np.ndarray, x: float, y: float, wide: float, high: float, *, most: float = 0.0) -> str:
    """Patches darkened the more the less they weigh; not at all from `most` (or the largest) on."""
    shade = 0.74 * (1 - grid / (most or float(grid.max()) or 1.0))
    w, h = wide / grid.shape[1], high / grid.shape[0]
    return "".join(
        f'<rect class="shade" x="{x + c * w:.2f}" y="{y + r * h:.2f}" width="{w:.2f}" height="{h:.2f}" '
        f'fill-opacity="{shade[r, c]:.3f}"/>'
        for r in range(grid.shape[0])
        for c in range(grid.shape[1])
    )


def words_svg(labels: Sequence[str], weights: np.ndarray, title: str) -> str:
    """Words in lines, the fuller in colour the more they weigh."""
    x, y, parts = 0.0, 0.0, []
    hues = weights / (float(np.max(weights)) or 1.0)
    for label, hue in zip(labels, hues, strict=True):
        said = label.strip()[:40]
        wide = LETTER * 1.05 * len(said) + 14
        if x and x + wide > WIDE:
            x, y = 0.0, y + 34
        kind = "middle on" if hue >= draw.FULL else "middle"
        place = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="27" rx="4"'
        parts.append(f'<rect class="base" {place}/><rect class="hot" {place} fill-opacity="{hue:.3f}"/>')
        parts.append(f'<text class="{kind}" x="{x + wide / 2:.1f}" y="{y + 18:.1f}">{escape(said)}</text>')
        x += wide + 6
    return draw.svg(WIDE, y + 27, title, "".join(parts))


def bars_svg(rows: Sequence[tuple[str, float]], title: str) -> str:
    """Name, bar of 0..1 and the number, line by line."""
    left = 20 + LETTER * max((len(name[:24]) for name, _ in rows), default=0)
    wide, parts = WIDE - left - 70, []
    for i, (name, value) in enumerate(rows):
        y = 30 * i
        parts.append(f'<text class="end" x="{left - 12:.1f}" y="{y + 17}">{escape(name[:24])}</text>')
        for kind, part in (("base", 1.0), ("hot", min(1.0, max(0.0, value)))):
            place = f'x="{left:.1f}" y="{y + 6}" width="{wide * part:.1f}" height="14" rx="2"'
            parts.append(f'<rect class="{kind}" {place}/>')
        parts.append(f'<text class="end" x="{WIDE:g}" y="{y + 17}">{draw.percent(value)}</text>')
    return draw.svg(WIDE, 30.0 * len(rows), title, "".join(parts))


def sound_svg(item: Explained, media: Media, here: np.ndarray, title: str) -> str:
    """A spectrogram with its seconds lit, and their weights under it."""
    assert media.file is not None
    start, end, weights = item.units.start[here], item.units.end[here], item.units.answer[here]
    wave = show.wave_of(media.file, float(end.max()))
    parts, hues = [], weights / (float(weights.max()) or 1.0)
    if wave is not None:
        parts.append(f'<image href="{show.spectrogram_uri(wave)}" width="{WIDE:g}" height="120"/>')
    for a, b, hue in zip(start, end, hues, strict=True):
        x, wide = a / end.max() * WIDE, (b - a) / end.max() * WIDE
        place = f'x="{x:.2f}" width="{wide:.2f}"'
        parts.append(
            f'<rect class="shade" {place} y="0" height="120" fill-opacity="{0.72 * (1 - hue):.3f}"/>'
        )
        parts.append(f'<rect class="hot" {place} y="{170 - 44 * hue:.2f}" height="{44 * hue:.2f}"/>')
    for at, label, side in show.ticks(float(end.max())):
        parts.append(f'<text class="soft {side}" x="{at * WIDE:.1f}" y="188">{label}</text>')
    return draw.svg(WIDE, 194, title, "".join(parts))


def film_svg(item: Explained, media: Media, here: np.ndarray, title: str) -> str:
    """The frames in a strip, their patches lit, with the curve of their sums under it."""
    assert media.file is not None
    units, parts, sums = item.units, [], []
    moments = np.unique(units.start[here])
    side = WIDE / max(8, len(moments))
    each = [here[units.start[here] == moment] for moment in moments]
    grids = [_grid(item, at, units.answer[at]) for at in each]
    most = max(float(grid.max()) for grid in grids)
    for i, (uri, grid) in enumerate(zip(show.frames(media.file, moments), grids, strict=True)):
        if uri:
            place = f'x="{i * side:.2f}" width="{side - 1:.2f}" height="{side - 1:.2f}"'
            parts.append(f'<image href="{uri}" {place}/>')
        parts.append(_shades(grid, i * side, 0, side - 1, side - 1, most=most))
        sums.append(float(grid.sum()))
        if i % 2 == 0:
            place = f'x="{(i + 0.5) * side:.1f}" y="{side + 76:.1f}"'
            parts.append(f'<text class="soft middle" {place}>{moments[i]:.1f} s</text>')
    heights = side + 60 - 52 * np.array(sums) / (max(sums) or 1.0)
    points = "L".join(f"{(i + 0.5) * side:.1f} {h:.1f}" for i, h in enumerate(heights))
    base, last = side + 60, (len(sums) - 0.5) * side
    parts.append(f'<path class="hot" d="M{side / 2:.1f} {base:.1f}L{points}L{last:.1f} {base:.1f}Z"/>')
    return draw.svg(WIDE, side + 82, title, "".join(parts))
