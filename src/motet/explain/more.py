"""Parts of a report for who looks closer: modalities, seconds, heads and patterns."""

from __future__ import annotations

from html import escape
from itertools import pairwise

import numpy as np

from motet.explain import draw
from motet.explain.item import Explained
from motet.explain.patterns import Pattern
from motet.explain.said import shown_as
from motet.explain.views import TemporalAttention, word_spans

CELL = 22.0
SMALL = 150.0  # the most that one head's matrix takes


def matrix_html(item: Explained) -> str:
    """Modality x modality, corrected, with the raw shares behind it; empty for a single modality."""
    matrix = item.matrix
    if len(matrix.modalities) < 2:
        return ""
    names = list(matrix.modalities)
    head = ["listens", *(f"to {name}" for name in names), *(f"{name}, raw" for name in names), "tokens"]
    rows: list[list[str | int | float]] = [
        [
            name,
            *map(float, matrix.whole_corrected[i]),
            *map(float, matrix.whole_raw[i]),
            int(matrix.tokens[i]),
        ]
        for i, name in enumerate(names)
    ]
    caption = (
        "Each row adds up to one: how a modality divides its attention, mean over heads and over the "
        "layers in which modalities meet. Corrected for how many tokens each has; the raw share stands "
        "in brackets."
    )
    by_head: list[list[str | int | float]] = [
        [f"layer {layer}, head {head}, {name}", *map(float, matrix.corrected[layer, head, i])]
        for layer in range(matrix.corrected.shape[0])
        for head in range(matrix.corrected.shape[1])
        for i, name in enumerate(names)
    ]
    each = "The same for every layer and head; rows listen, columns are listened to, in the order above."
    parts = (
        draw.figure(matrix_svg(item), caption, draw.table(head, rows)),
        draw.figure(matrices_svg(item), each, draw.table(["who listens", *names], by_head)),
    )
    return f'<div class="columns">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def matrix_svg(item: Explained) -> str:
    """Modality x modality over the whole model, corrected."""
    names = list(item.matrix.modalities)
    return draw.heat_map(
        item.matrix.whole_corrected, names, names, title="Attention of each modality to each modality",
        row_name="listens", col_name="to", most=2 / len(names), under=item.matrix.whole_raw,
    )  # fmt: skip


def matrices_svg(item: Explained) -> str:
    """Modality x modality for every layer (down) and head (across), corrected."""
    values = item.matrix.corrected
    layers, heads, count, _ = values.shape
    cell = min(SMALL / count, 620 / heads / (count + 0.6), 24)
    step, left, top = (count + 0.6) * cell, 62.0, 30.0
    parts = [f'<text class="soft end" x="{left - 10:g}" y="26">head</text>']
    for head in range(heads):
        x = left + head * step + count * cell / 2
        parts.append(f'<text class="middle" x="{x:.1f}" y="26">{head}</text>')
    for layer in range(layers):
        y = top + layer * step
        place = f'x="{left - 10:g}" y="{y + count * cell / 2 + 4:.1f}"'
        parts.append(f'<text class="end" {place}>layer {layer}</text>')
        for head in range(heads):
            parts += [
                _rect(
                    left + head * step + j * cell, y + i * cell, cell, cell, float(values[layer, head, i, j])
                )
                for i in range(count)
                for j in range(count)
            ]
    title = "Attention between modalities in every layer and head"
    return draw.svg(left + heads * step, top + layers * step, title, "".join(parts))


def seconds_html(item: Explained) -> str:
    """Each pair of lasting modalities, seconds against seconds, words written at their times."""
    parts = []
    for view in item.seconds:
        title = f"{shown_as(item, view.query)} listening to {shown_as(item, view.key)}"
        parts.append(f"<div><h3>{escape(title)}</h3>{_seconds(item, view)}</div>")
    return f'<div class="columns">{"".join(parts)}</div>' if parts else ""


def _seconds(item: Explained, view: TemporalAttention) -> str:
    rows: list[list[str | int | float]] = [
        [f"{view.query_edges[i]:.2f} s", f"{view.key_edges[int(w.argmax())]:.2f} s", float(w.max())]
        for i, w in enumerate(view.weights)
        if w.any()
    ]
    numbers = draw.table([f"{view.query}, from", f"listens most to {view.key} at", "share"], rows)
    caption = (
        f"Time of {view.query} runs down, of {view.key} across. Each row adds up to one; the fuller the "
        "colour, the more is heard."
    )
    return draw.figure(seconds_svg(item, view), caption, numbers)


def seconds_svg(item: Explained, view: TemporalAttention) -> str:
    """Seconds of one modality (down) against seconds of another (across)."""
    bins, left, top = len(view.weights), 118.0, 78.0
    side, most = CELL * bins, float(view.weights.max()) or 1.0
    parts = [
        _rect(left + j * CELL, top + i * CELL, CELL, CELL, view.weights[i, j] / most)
        for i in range(bins)
        for j in range(bins)
    ]
    for i, name in _marks(item, view.query, view.query_edges):
        y = top + (i + 0.7) * CELL
        parts.append(f'<text class="end" x="{left - 8:g}" y="{y:g}">{escape(name)}</text>')
    for j, name in _marks(item, view.key, view.key_edges):
        x, y = left + (j + 0.6) * CELL, top - 8
        parts.append(f'<text x="{x:g}" y="{y:g}" transform="rotate(-50 {x:g} {y:g})">{escape(name)}</text>')
    title = f"Seconds of {view.query} (down) against seconds of {view.key} (across)"
    return draw.svg(left + side + 40, top + side + 4, title, "".join(parts), most=620)


def _marks(item: Explained, modality: str, edges: np.ndarray) -> list[tuple[int, str]]:
    """Which bin carries which name: the words of a text, else every fourth bin's second."""
    bins, width = len(edges) - 1, float(edges[1] - edges[0])
    if item.kinds[modality] != "text":
        return [(i, f"{edges[i]:.2g} s") for i in range(0, bins, 4)]
    found: dict[int, str] = {}
    tokens = item.captured.tokens_of(0, modality)
    times = item.captured.layout.time[tokens].cpu().numpy()
    for span in word_spans(times):
        word = "".join(item.captured.label(int(t)) for t in tokens[span])
        found.setdefault(min(bins - 1, int(times[span][0] / width)), word[:14])
    return list(found.items())


HEADS = {
    "cross": ("Listens to other modalities", "0: its own modality only, 1: others only."),
    "entropy": ("Spread of attention", "0: one token, 1: all that it may see, alike."),
    "distance": ("Distance", "Mean seconds between who listens and who is heard."),
}


def heads_html(item: Explained) -> str:
    """What each head does, layer by layer, and who may look at whom."""
    columns = [str(h) for h in range(item.heads.own.shape[1])]
    parts = []
    for name, svg in heads_svgs(item).items():
        title, note = HEADS[name]
        rows: list[list[str | int | float]] = [
            [f"layer {i}", *map(float, line)] for i, line in enumerate(getattr(item.heads, name))
        ]
        parts.append(
            f"<div><h3>{title}</h3>{draw.figure(svg, note, draw.table(['layer', *columns], rows))}</div>"
        )
    ordered = ", ".join(item.matrix.modalities)
    rows = [[", ".join(map(str, p.layers)), float(p.density)] for p in item.patterns]
    numbers = draw.table(["layers", "share of all pairs"], rows)
    for pattern in item.patterns:
        names = ", ".join(map(str, pattern.layers))
        said = f"Layers {names}: {draw.percent(pattern.density)} of all pairs. Tokens in the order {ordered}."
        figure = draw.figure(pattern_svg(pattern), said, numbers)
        parts.append(f"<div><h3>Who may look at whom</h3>{figure}</div>")
    return f'<div class="columns">{"".join(parts)}</div>'


def heads_svgs(item: Explained) -> dict[str, str]:
    """Each statistic of the heads, layers down, heads across."""
    layers, columns = [f"layer {i}" for i in range(len(item.heads.own))], range(item.heads.own.shape[1])
    most = {"cross": 1.0, "entropy": 1.0, "distance": 0.0}
    return {
        name: draw.heat_map(
            getattr(item.heads, name), layers, [str(h) for h in columns], title=HEADS[name][0],
            col_name="head", most=most[name], cell=(56, 36),
        )
        for name in HEADS
    }  # fmt: skip


def pattern_svg(pattern: Pattern) -> str:
    """Who may look (down) at whom (across)."""
    cells = len(pattern.share)
    side = 240 / cells
    parts = ['<rect class="base" width="240" height="240"/>']
    for i, line in enumerate(pattern.share):
        edges = [*np.flatnonzero(np.diff(line, prepend=np.nan)).tolist(), cells]
        for a, b in pairwise(edges):
            if line[a] > 0:
                place = (
                    f'x="{a * side:.2f}" y="{i * side:.2f}" width="{(b - a) * side:.2f}" height="{side:.2f}"'
                )
                parts.append(f'<rect class="hot" {place} fill-opacity="{line[a]:.3f}"/>')
    title = f"Layers {', '.join(map(str, pattern.layers))}: density {pattern.density:.3f}"
    return draw.svg(240, 240, title, "".join(parts))


def _rect(x: float, y: float, wide: float, high: float, hue: float) -> str:
    place = f'x="{x + 0.5:.2f}" y="{y + 0.5:.2f}" width="{wide - 1:.2f}" height="{high - 1:.2f}"'
    return f'<rect class="base" {place}/><rect class="hot" {place} fill-opacity="{hue:.3f}"/>'
