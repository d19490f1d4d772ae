"""Parts of a report for who looks closer: seconds, heads, patterns, and a result held beside a query."""

from __future__ import annotations

from html import escape
from itertools import pairwise

import numpy as np

from motet.explain import draw
from motet.explain import media as show
from motet.explain.item import Explained, Media
from motet.explain.patterns import Pattern
from motet.explain.views import TemporalAttention, on_grid, word_spans

CELL = 22.0


def seconds_html(item: Explained) -> str:
    """Each pair of lasting modalities, seconds against seconds, words written at their times."""
    return "".join(
        f"<h3>{escape(view.query)} listening to {escape(view.key)}</h3>{_seconds(item, view)}"
        for view in item.seconds
    )


def _seconds(item: Explained, view: TemporalAttention) -> str:
    bins = len(view.weights)
    left, top = 130.0, 84.0
    side = CELL * bins
    parts = [
        _rect(left + j * CELL, top + i * CELL, view.weights[i, j] / (float(view.weights.max()) or 1.0))
        for i in range(bins)
        for j in range(bins)
    ]
    for i, name in _marks(item, view.query, view.query_edges):
        parts.append(
            f'<text class="end" x="{left - 8:g}" y="{top + (i + 0.7) * CELL:g}">{escape(name)}</text>'
        )
    for j, name in _marks(item, view.key, view.key_edges):
        x, y = left + (j + 0.6) * CELL, top - 8
        parts.append(f'<text x="{x:g}" y="{y:g}" transform="rotate(-50 {x:g} {y:g})">{escape(name)}</text>')
    title = f"Seconds of {view.query} (down) against seconds of {view.key} (across)"
    picture = draw.svg(left + side + 40, top + side + 4, title, "".join(parts), most=620)
    rows: list[list[str | int | float]] = [
        [f"{view.query_edges[i]:.2f} s", f"{view.key_edges[int(w.argmax())]:.2f} s", float(w.max())]
        for i, w in enumerate(view.weights)
        if w.any()
    ]
    numbers = draw.table([f"{view.query}, from", f"listens most to {view.key} at", "share"], rows)
    return draw.figure(picture, "Each row adds up to one; the fuller the colour, the more is heard.", numbers)


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


def heads_html(item: Explained) -> str:
    """What each head does, layer by layer, and who may look at whom."""
    heads = item.heads
    layers = [f"layer {i}" for i in range(len(heads.own))]
    columns = [str(h) for h in range(heads.own.shape[1])]
    charts = [
        ("Listens to other modalities", heads.cross, 1.0, "0: its own modality only, 1: others only."),
        ("Spread of attention", heads.entropy, 1.0, "0: one token, 1: all that it may see, alike."),
        ("Distance", heads.distance, 0.0, "Mean seconds between who listens and who is heard."),
    ]
    parts = [
        f"<div><h3>{name}</h3>"
        + draw.figure(
            draw.heat_map(values, layers, columns, title=name, col_name="head", most=most, cell=(56, 36)),
            note,
            draw.table(
                ["layer", *columns],
                [[layer, *map(float, v)] for layer, v in zip(layers, values, strict=True)],
            ),
        )
        + "</div>"
        for name, values, most, note in charts
    ]
    parts += [f"<div><h3>Who may look at whom</h3>{_pattern(item, p)}</div>" for p in item.patterns]
    return f'<div class="columns">{"".join(parts)}</div>'


def _pattern(item: Explained, pattern: Pattern) -> str:
    cells = len(pattern.share)
    side = 240 / cells
    parts = []
    for i, line in enumerate(pattern.share):
        edges = [*np.flatnonzero(np.diff(line, prepend=np.nan)).tolist(), cells]
        for a, b in pairwise(edges):
            if line[a] > 0:
                place = (
                    f'x="{a * side:.2f}" y="{i * side:.2f}" width="{(b - a) * side:.2f}" height="{side:.2f}"'
                )
                parts.append(f'<rect class="hot" {place} fill-opacity="{line[a]:.3f}"/>')
    frame = '<rect class="base" width="240" height="240"/>'
    names = ", ".join(map(str, pattern.layers))
    title = f"Layers {names}: density {pattern.density:.3f}"
    ordered = ", ".join(item.matrix.modalities)
    caption = f"Layers {names}: {draw.percent(pattern.density)} of all pairs. Tokens in the order {ordered}."
    return draw.figure(draw.svg(240, 240, title, frame + "".join(parts)), caption)


def meeting_html(item: Explained) -> str:
    """Which tokens of the query met which of the result."""
    found = item.meeting
    if found is None:
        return ""
    best = np.argsort(-np.abs(found.query), kind="stable")[:12]
    other = np.argsort(-np.abs(found.result), kind="stable")[:12]
    best, other = np.sort(best), np.sort(other)
    together = found.together[np.ix_(best, other)]
    rows = [found.query_labels[i][:16] for i in best]
    cols = [found.result_labels[j] for j in other]
    picture = draw.heat_map(
        np.maximum(together, 0), rows, [str(j + 1) for j in range(len(cols))], digits=3,
        title="Which tokens met", row_name="query", col_name="result, numbered as below", cell=(58, 34),
    )  # fmt: skip
    met: list[list[str | int | float]] = [
        [f"{j + 1}: {found.result_modality[k]}, {found.result_labels[k]}", float(found.result[k])]
        for j, k in enumerate(other)
    ]
    asked: list[list[str | int | float]] = [
        [f"{found.query_modality[i]}, {found.query_labels[i]}", float(found.query[i])] for i in best
    ]
    caption = (
        f"Cosine {found.cosine:.3f}. A cell is how much of it the two tokens bring only together "
        "(leaving out either, and both; negative ones are drawn as zero)."
    )
    lost = "the cosine loses without it"
    tables = [
        draw.table([f"token of the {who}", lost], lines) for who, lines in (("query", asked), ("result", met))
    ]
    columns = "".join(f"<div>{table}</div>" for table in tables)
    return _result(item) + draw.figure(picture, caption) + f'<div class="columns">{columns}</div>'


def _result(item: Explained) -> str:
    """The result itself; its picture with the patches lit that the cosine hangs on."""
    parts = []
    found = item.meeting
    assert found is not None
    for name, media in item.against.items():
        here = np.array(found.result_modality) == name
        if media.text:
            parts.append(f'<p class="text">{escape(media.text)}</p>')
        elif media.file is not None and item.kinds[name] == "audio":
            parts.append(show.player(media.file, media.note or name))
        elif media.file is not None and item.kinds[name] == "image":
            parts.append(_lit(media, found.result[here], found.result_row[here], found.result_col[here]))
    return f'<div class="pair">{"".join(parts)}</div>'


def _lit(media: Media, loss: np.ndarray, row: np.ndarray, col: np.ndarray) -> str:
    assert media.file is not None
    uri = show.picture_uri(media.file)
    plain = f'<img class="thumb" src="{uri}" alt="The result">'
    if not len(loss):
        return plain
    symbol = (
        '<svg class="defs" aria-hidden="true"><symbol id="result-p" viewBox="0 0 100 100">'
        f'<image href="{uri}" width="100" height="100" preserveAspectRatio="none"/></symbol></svg>'
    )
    grid = on_grid(np.maximum(loss, 0), row, col)
    lit = show.lit_picture("result-p", grid, "The patches of the result that the cosine hangs on")
    return f'{plain}{symbol}<div class="thumb">{lit}</div>'


def _rect(x: float, y: float, hue: float) -> str:
    place = f'x="{x + 0.5:g}" y="{y + 0.5:g}" width="{CELL - 1:g}" height="{CELL - 1:g}"'
    return f'<rect class="base" {place}/><rect class="hot" {place} fill-opacity="{hue:.3f}"/>'
