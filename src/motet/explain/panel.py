"""One panel in which everything answers everything: choose a word, and see what it listened to.

Without script, or before anything is chosen, it shows what reached the answer. The script needs the
numbers that stand beside it as JSON, and the units in the order of `Units`.
"""

from __future__ import annotations

import base64
import itertools
import json
from html import escape

import numpy as np

from motet.explain import draw
from motet.explain import media as show
from motet.explain.item import Explained, Media
from motet.explain.said import shown_as
from motet.explain.units import Units

_names = itertools.count()
ROWS = 400  # of the table behind it


def panel_html(item: Explained) -> str:
    """The words, pictures, sounds and clips of one input, linked, with the numbers behind them."""
    units, name = item.units, f"look{next(_names)}"
    order = sorted(item.matrix.modalities, key=lambda m: _RANK[item.kinds[m]])
    lanes = "".join(_lane(item, m) for m in order)
    missing = [m for m in item.kinds if m not in item.matrix.modalities]
    absent = f'<p class="note">Missing: {escape(", ".join(missing))}.</p>' if missing else ""
    modes = "".join(
        f'<label><input type="radio" name="{name}" value="{way}"{" checked" if way == "to" else ""}> '
        f"{words}</label>"
        for way, words in (("to", "what it listens to"), ("from", "what listens to it"))
    )
    help = (
        "Point at, tap, or reach by Tab and arrow keys any word, patch, second or frame, and see "
        '<span class="modes" role="radiogroup" aria-label="Which way to look">'
        f"{modes}</span>"
    )
    says = f"Lit now: what reached the answer ({escape(item.importance.method)})."
    scale = (
        '<p class="scale note" aria-hidden="true"><span class="ramp"></span>'
        "little to much, each kind of input scaled to its own strongest</p>"
    )
    return (
        f'<div class="look" id="{name}"><p class="ask">{help}</p>'
        f'<p class="says"><span role="status">{says}</span> '
        '<button type="button" hidden>Back to the answer</button></p>'
        f'{lanes}{scale}{absent}<script type="application/json">{_numbers(item)}</script>'
        f"<details><summary>The numbers</summary>{_table(units, item)}</details></div>"
    )


_RANK = {"text": 0, "image": 1, "video": 2, "audio": 3, "features": 4}


def _lane(item: Explained, name: str) -> str:
    """One modality: its heading, its media and its units."""
    kind, media, here = item.kinds[name], item.media.get(name, Media()), item.units.of(name)
    weights = item.units.answer[here]
    share = float(weights.sum())
    hues = weights / (float(weights.max()) or 1.0)
    title = shown_as(item, name)
    bar = f'<span class="bar" aria-hidden="true" style="--v:{share:.4f}"></span>'
    body = {"text": _words, "image": _picture, "video": _film, "audio": _sound, "features": _steps}[kind]
    return (
        f'<div class="lane {kind}" role="group" aria-label="{escape(title)}" data-m="{escape(name)}">'
        f'<h3>{escape(title)} <small class="share">{draw.percent(share)} of the answer</small>{bar}</h3>'
        f"{body(item, media, here, hues)}</div>"
    )


def _unit(
    item: Explained, u: int, hue: float, tag: str, first: bool, *, style: str = "", text: str = ""
) -> str:
    """One thing to choose. Of a group only one is reached by Tab; arrows go on from there."""
    units = item.units
    kind = "on" if hue >= draw.FULL else ""
    return (
        f'<{tag} role="option" aria-selected="false" class="{kind}" data-u="{u}" '
        f'data-t="{units.start[u]:.3f}" tabindex="{0 if first else -1}" style="--w:{hue:.3f}{style}" '
        f'aria-label="{escape(units.labels[u])}">{escape(text)}</{tag}>'
    )


def _box(inner: str, label: str, *, kind: str = "cells", style: str = "") -> str:
    return f'<div class="{kind}" role="listbox" aria-label="{escape(label)}" style="{style}">{inner}</div>'


def _words(item: Explained, media: Media, here: np.ndarray, hues: np.ndarray) -> str:
    spans = " ".join(
        _unit(item, u, hue, "span", i == 0, text=item.units.labels[u].strip() or "\u2423")
        for i, (u, hue) in enumerate(zip(here, hues, strict=True))
    )
    return _box(spans, "Words", kind="words long" if len(here) > 40 else "words")


def _picture(item: Explained, media: Media, here: np.ndarray, hues: np.ndarray) -> str:
    img = ""
    if media.file is not None:
        img = f'<img src="{show.picture_uri(media.file, side=480)}" alt="{escape(item.title)}">'
    return f'<div class="plate">{img}{_grid(item, here, hues, "Patches of the picture")}</div>'


def _grid(item: Explained, here: np.ndarray, hues: np.ndarray, label: str, *, first: bool = True) -> str:
    row, col = item.units.row[here], item.units.col[here]
    cells = "".join(
        _unit(item, u, hue, "i", first and i == 0, style=f";grid-area:{r + 1}/{c + 1}")
        for i, (u, hue, r, c) in enumerate(zip(here, hues, row, col, strict=True))
    )
    return _box(cells, label, style=f"--rows:{row.max() + 1};--cols:{col.max() + 1}")


def _film(item: Explained, media: Media, here: np.ndarray, hues: np.ndarray) -> str:
    """The frames that the model saw, with a curve of their sums under them."""
    units = item.units
    moments = np.unique(units.start[here])
    pictures = show.frames(media.file, moments) if media.file is not None else [""] * len(moments)
    frames, sums = [], []
    for i, (moment, uri) in enumerate(zip(moments, pictures, strict=True)):
        at = units.start[here] == moment
        sums.append(float(units.answer[here][at].sum()))
        img = f'<img src="{uri}" alt="Frame at {moment:.2f} s">' if uri else ""
        grid = _grid(item, here[at], hues[at], f"Frame at {moment:.2f} s", first=i == 0)
        frames.append(
            f'<div class="frame" data-t="{moment:.3f}">{img}{grid}<small>{moment:.1f} s</small></div>'
        )
    path = curve(np.array(sums))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Frames in time">'
        f'<div class="film" style="--n:{len(frames)}">{"".join(frames)}'
        f'<svg class="curve" aria-hidden="true" viewBox="0 0 {len(frames)} 1" preserveAspectRatio="none">'
        f'<path d="{path}"/></svg><b class="cursor"></b></div></div>'
    )


def curve(values: np.ndarray) -> str:
    """An area over 0..n, one point above the middle of each of n equal parts, as high as 1."""
    heights = 1 - 0.94 * values / (float(values.max()) or 1.0)
    points = "L".join(f"{i + 0.5:g} {h:.3f}" for i, h in enumerate(heights))
    return f"M0 1L0 {heights[0]:.3f}L{points}L{len(values)} {heights[-1]:.3f}L{len(values)} 1Z"


def _sound(item: Explained, media: Media, here: np.ndarray, hues: np.ndarray) -> str:
    """A spectrogram with its seconds lit, and the sound itself."""
    seconds = float(item.units.end[here].max())
    wave = show.wave_of(media.file, seconds) if media.file is not None else None
    if wave is None:
        return _timeline(item, here, hues, "Seconds of the sound", "", seconds)
    image = f'<img src="{show.spectrogram_uri(wave)}" alt="Spectrogram, low notes at the bottom">'
    strip = _timeline(item, here, hues, "Seconds of the sound", image, len(wave) / show.RATE)
    return strip + show.player(show.sound_uri(wave), media.note or name_of(media))


def name_of(media: Media) -> str:
    return "The sound" if media.file is None else media.file.name


def _steps(item: Explained, media: Media, here: np.ndarray, hues: np.ndarray) -> str:
    return _timeline(item, here, hues, "Steps of the features", "", float(item.units.end[here].max()))


def _timeline(
    item: Explained, here: np.ndarray, hues: np.ndarray, label: str, image: str, seconds: float
) -> str:
    cells = "".join(
        _unit(item, u, hue, "i", i == 0, style=f";flex-grow:{int(item.units.tokens[u])}")
        for i, (u, hue) in enumerate(zip(here, hues, strict=True))
    )
    axis = show.seconds_axis(seconds) if seconds > 0 else ""
    return (
        f'<div class="strip" data-seconds="{seconds:.3f}">{image}'
        f'{_box(cells, label, kind="cells row")}<b class="cursor"></b></div>{axis}'
    )


def _numbers(item: Explained) -> str:
    """The attention between units, for the script: bytes, in each row relative to each modality's largest."""
    units = item.units
    names = list(item.matrix.modalities)
    peaks = np.stack([units.weights[:, units.of(name)].max(1) for name in names], 1)
    which = np.array([names.index(m) for m in units.modality])
    scaled = np.rint(255 * units.weights / np.maximum(peaks[:, which], 1e-12)).astype(np.uint8)
    said = {
        "names": [shown_as(item, name) for name in names],
        "of": which.tolist(),
        "answer": [round(float(v), 5) for v in units.answer],
        "peaks": [[float(f"{p:.3g}") for p in row] for row in peaks],
        "says": f"Lit now: what reached the answer ({item.importance.method}).",
        "weights": base64.b64encode(scaled.tobytes()).decode(),
    }
    return json.dumps(said, separators=(",", ":")).replace("<", "\\u003c")


def _table(units: Units, item: Explained) -> str:
    names = list(item.matrix.modalities)
    head = ["token", "of", "of the answer"]
    head += [words for name in names for words in (f"to {name}", f"{name}, most at")]
    order = np.argsort(-units.answer, kind="stable")[:ROWS]
    rows: list[list[str | int | float]] = []
    shares = {name: units.share(name) for name in names}
    for u in sorted(order.tolist()):
        row: list[str | int | float] = [units.labels[u], units.modality[u], float(units.answer[u])]
        for name in names:
            there = units.of(name)
            best = there[units.weights[u, there].argmax()]
            row += [float(shares[name][u]), units.labels[best]]
        rows.append(row)
    cut = (
        f'<p class="note">The {ROWS} that weigh most of {len(units.labels)}.</p>'
        if len(order) < len(units.labels)
        else ""
    )
    return draw.table(head, rows) + cut
