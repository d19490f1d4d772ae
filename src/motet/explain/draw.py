"""Charts as SVG or HTML strings, without any dependency.

One hue from pale to full carries a quantity (safe for colour-blind eyes, and in grey print); the
colours come from the page's style sheet, so that they fit light and dark. Every picture has a
title for screen readers and its numbers in a table behind it. Arguments are text, never HTML,
unless the name says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

FULL = 0.6  # from this share of the full hue on, text in a cell turns to the light colour


@dataclass(frozen=True)
class Line:
    """One line of a chart: x and y of equal length, and the name written at its end."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def table(head: Sequence[str], rows: Sequence[Sequence[str | int | float]], *, first: bool = True) -> str:
    """Plain numbers and texts; with `first`, the first cell of a row is its heading."""

    def cell(value: str | int | float, column: int) -> str:
        if first and column == 0:
            return f'<th scope="row">{text_of(value)}</th>'
        return f"<td>{text_of(value)}</td>" if isinstance(value, str) else number(text_of(value))

    kinds = ["" if isinstance(value, str) else "n" for value in (rows[0] if rows else head)]
    top = "".join(
        f'<th scope="col" class="{kind}">{escape(name)}</th>' for name, kind in zip(head, kinds, strict=True)
    )
    lines = "".join(f"<tr>{''.join(cell(v, i) for i, v in enumerate(line))}</tr>" for line in rows)
    return scroll(f"<thead><tr>{top}</tr></thead><tbody>{lines}</tbody>", "The numbers")


def text_of(value: str | int | float) -> str:
    """A cell's text, escaped: three decimals for numbers below ten, separators for large ones."""
    if isinstance(value, float):
        return (
            f"{value:.3f}" if abs(value) < 10 else f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
        )
    return f"{value:,}" if isinstance(value, int) else escape(str(value))


def scroll(inner_html: str, name: str) -> str:
    """A table that scrolls sideways by itself on a narrow page, also by keyboard."""
    frame = f'class="scroll" tabindex="0" role="region" aria-label="{escape(name)}"'
    return f"<div {frame}><table>{inner_html}</table></div>"


def figure(picture_html: str, caption: str, numbers_html: str = "") -> str:
    """A picture with a caption and the numbers behind it."""
    behind = f"<details><summary>The numbers</summary>{numbers_html}</details>" if numbers_html else ""
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{picture_html}{note}{behind}</figure>"


def svg(
    width: float, height: float, title: str, body: str, *, most: float | None = None, kind: str = "chart"
) -> str:
    """`most`: the widest it is shown, in pixels (default: its own width)."""
    return (
        f'<svg class="{kind}" role="img" viewBox="0 0 {width:g} {height:g}" '
        f'style="max-width:{most or width:g}px">'
        f"<title>{escape(title)}</title>{body}</svg>"
    )


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    cols: Sequence[str],
    *,
    title: str,
    row_name: str = "",
    col_name: str = "",
    digits: int = 2,
    most: float = 0.0,
    under: np.ndarray | None = None,
    cell: tuple[float, float] = (92, 56),
) -> str:
    """Numbers in cells whose hue grows with them. values: (rows, cols), not negative.

    The largest value has the full hue, or `most`, where that is larger. under: (rows, cols), written
    small below each number.
    """
    wide, high = cell
    left = min(180, 18 + 7.6 * max(map(len, rows), default=0))
    top = 46 if col_name else 26
    most = max(most, float(np.max(values))) or 1.0
    parts = [
        f'<text class="soft middle" x="{left + wide * len(cols) / 2:g}" y="14">{escape(col_name)}</text>'
    ]
    for j, name in enumerate(cols):
        parts.append(
            f'<text class="middle" x="{left + (j + 0.5) * wide:g}" y="{top - 10}">{escape(name)}</text>'
        )
    for i, name in enumerate(rows):
        y = top + i * high
        parts.append(f'<text class="end" x="{left - 12:g}" y="{y + high / 2 + 5:g}">{escape(name)}</text>')
        for j in range(len(cols)):
            value = float(values[i, j])
            small = "" if under is None else f"({under[i, j]:.{digits}f})"
            parts.append(_cell(left + j * wide, y, wide, high, value / most, f"{value:.{digits}f}", small))
    if row_name:
        parts.append(f'<text class="soft end" x="{left - 12:g}" y="{top - 10}">{escape(row_name)}</text>')
    return svg(left + wide * len(cols), top + high * len(rows), title, "".join(parts))


def confusion(counts: np.ndarray, classes: Sequence[str], *, title: str) -> str:
    """True classes down, predicted ones across; hue by share of the row, counts in the cells."""
    wide, high, top = 96.0, 56.0, 46.0
    left = min(180, 18 + 7.6 * max(map(len, classes)))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    parts = [
        f'<text class="soft middle" x="{left + wide * len(classes) / 2:g}" y="14">predicted</text>',
        f'<text class="soft end" x="{left - 12:g}" y="{top - 10}">true</text>',
    ]
    for i, name in enumerate(classes):
        y = top + i * high
        parts.append(
            f'<text class="middle" x="{left + (i + 0.5) * wide:g}" y="{top - 10}">{escape(name)}</text>'
        )
        parts.append(f'<text class="end" x="{left - 12:g}" y="{y + high / 2 + 5:g}">{escape(name)}</text>')
        for j in range(len(classes)):
            parts.append(_cell(left + j * wide, y, wide, high, float(shares[i, j]), str(int(counts[i, j]))))
    return svg(left + wide * len(classes), top + high * len(classes), title, "".join(parts))


def _cell(x: float, y: float, wide: float, high: float, hue: float, text: str, under: str = "") -> str:
    place = f'x="{x + 1.5:g}" y="{y + 1.5:g}" width="{wide - 3:g}" height="{high - 3:g}" rx="4"'
    kind = "middle on" if hue >= FULL else "middle"
    centre, line = x + wide / 2, y + high / 2 + 5
    texts = [(line - 9, text), (line + 9, under)] if under else [(line, text)]
    written = "".join(f'<text class="{kind}" x="{centre:g}" y="{at:g}">{said}</text>' for at, said in texts)
    return f'<rect class="base" {place}/><rect class="hot" {place} fill-opacity="{hue:.3f}"/>{written}'


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_name: str,
    y_name: str,
    mark: tuple[float, str] | None = None,
    zero: bool = False,
    band: tuple[Sequence[float], Sequence[float], Sequence[float]] | None = None,
) -> str:
    """Lines with their names at their ends. `mark`: an x and what it is; `band`: x, low, high."""
    width, height, left, right, top, bottom = 560.0, 290.0, 46.0, 100.0, 34.0, 44.0
    xs = [float(x) for line in lines for x in line.x]
    ys = [float(y) for line in lines for y in line.y] + ([*band[1], *band[2]] if band else [])
    low, high = (0.0 if zero else min(ys)), max(ys)
    ticks = nice_ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = min(xs), max(xs)

    def at_x(x: float) -> float:
        return left + (x - first) / ((last - first) or 1) * (width - left - right)

    def at_y(y: float) -> float:
        return height - bottom - (y - low) / ((high - low) or 1) * (height - top - bottom)

    parts = [f'<text class="soft" x="0" y="14">{escape(y_name)}</text>']
    for tick in ticks:
        y = at_y(tick)
        parts.append(f'<path class="grid" d="M{left:g} {y:.1f}H{width - right:g}"/>')
        parts.append(f'<text class="soft end" x="{left - 10:g}" y="{y + 4.5:.1f}">{tick:g}</text>')
    for tick in nice_ticks(first, last):
        if first <= tick <= last:
            parts.append(f'<text class="soft middle" x="{at_x(tick):.1f}" y="{height - 22}">{tick:g}</text>')
    parts.append(f'<text class="soft end" x="{width - right:g}" y="{height - 3}">{escape(x_name)}</text>')
    if band:
        there = [f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in zip(band[0], band[2], strict=True)]
        back = [f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in zip(band[0], band[1], strict=True)][::-1]
        parts.append(f'<path class="band" d="M{"L".join(there + back)}Z"/>')
    if mark is not None:
        x = at_x(mark[0])
        side = "end" if x > (width - right + left) / 2 else ""
        parts.append(f'<path class="grid" d="M{x:.1f} {top:g}V{height - bottom:g}" stroke-dasharray="3 3"/>')
        parts.append(f'<text class="soft {side}" x="{x:.1f}" y="{top - 6:g}">{escape(mark[1])}</text>')
    ends = _apart([at_y(line.y[-1]) for line in lines], 18)
    for i, line in enumerate(lines):
        points = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in zip(line.x, line.y, strict=True))
        parts.append(f'<path class="line s{i}" d="M{points}"/>')
        parts.append(
            f'<text class="f{i}" x="{at_x(line.x[-1]) + 8:.1f}" y="{ends[i] + 4.5:.1f}">'
            f"{escape(line.name)}</text>"
        )
    return svg(width, height, title, "".join(parts), most=680, kind="chart wide")


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """Places moved down as little as needed so that no two are nearer than `gap`."""
    out = list(places)
    order = sorted(range(len(out)), key=lambda i: out[i])
    for before, after in pairwise(order):
        out[after] = max(out[after], out[before] + gap)
    return out


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers from below `low` to above `high`."""
    span = (high - low) or abs(high) or 1.0
    raw = span / max(1, count - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = unit * next(m for m in (1, 2, 2.5, 5, 10) if m * unit >= raw * 0.999)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(start, stop + 1)]


def bar(value: float, *, reference: float | None = None, colour: str = "") -> str:
    """One horizontal bar of 0..1 as HTML, with a tick at `reference`; the number belongs beside it."""
    style = f"--v:{min(1.0, max(0.0, value)):.4f}" + (f";--c:{colour}" if colour else "")
    if reference is None:
        return f'<span class="bar" aria-hidden="true" style="{style}"></span>'
    return f'<span class="bar ref" aria-hidden="true" style="{style};--r:{min(1.0, reference):.4f}"></span>'


def row(name_html: str, *cells_html: str, kind: str = "") -> str:
    """One row of a table, from its heading and from cells as `number` and `bar_cell` make them."""
    return f'<tr class="{kind}"><th scope="row">{name_html}</th>{"".join(cells_html)}</tr>'


def number(text: str, *, extra: bool = False) -> str:
    """A cell with a number; `extra`: left out on narrow pages."""
    return f'<td class="n{" extra" if extra else ""}">{escape(text)}</td>'


def bar_cell(value: float, *, reference: float | None = None, colour: str = "", extra: bool = False) -> str:
    """A cell with a bar; `extra`: left out on narrow pages, where its number must do."""
    return (
        f'<td class="wide{" extra" if extra else ""}">{bar(value, reference=reference, colour=colour)}</td>'
    )


def rows_table(name: str, head: Sequence[str], rows: Sequence[str], *, caption: bool = False) -> str:
    """A table of ready rows.

    In `head`, ">name" is over numbers, "+name" over numbers that narrow pages leave out, "" over bars.
    """

    def heading(text: str) -> str:
        kind = {"": "extra", ">": "n", "+": "n extra"}.get(text[:1], "")
        return f'<th scope="col" class="{kind}">{escape(text.lstrip(">+"))}</th>'

    top = f"<thead><tr>{''.join(map(heading, head))}</tr></thead>" if head else ""
    title = f"<caption>{escape(name)}</caption>" if caption else ""
    return scroll(f"{title}{top}<tbody>{''.join(rows)}</tbody>", name)


def bars(rows: Sequence[tuple[str, float, str]], *, caption: str, colours: Sequence[str] = ()) -> str:
    """Name, value of 0..1 as a horizontal bar, and the value as text, line by line."""
    hues = [*colours, *[""] * (len(rows) - len(colours))]
    lines = [
        row(escape(name), bar_cell(value, colour=hue), number(text))
        for (name, value, text), hue in zip(rows, hues, strict=True)
    ]
    return rows_table(caption, (), lines, caption=True)


def percent(share: float) -> str:
    """A share as text, with one decimal below a tenth."""
    return (f"{share:.1%}" if 0 < share < 0.0995 else f"{share:.0%}").replace("%", "\u202f%")
