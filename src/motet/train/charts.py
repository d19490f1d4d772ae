"""Curves over steps as SVG, several lines a chart, with a legend that wraps on a narrow page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from motet.explain.draw import figure, nice_ticks, svg, table

HUES = 6  # --m0 to --m5 of the style sheet
POINTS = 240  # of a line; more cannot be told apart
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560.0, 250.0, 54.0, 10.0, 12.0, 40.0


@dataclass(frozen=True)
class Curve:
    """x and y of equal length, x rising. `faint`: dashed, as what is only beside the point."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False


def chart(
    curves: Sequence[Curve],
    *,
    title: str,
    x_name: str = "step",
    note: str = "",
    log: bool = False,
    zero: bool = False,
    mark: float | None = None,
    first_hue: int = 0,
) -> str:
    """A figure with its title, legend, picture and numbers; "" without a curve of at least two points.

    `log`: a logarithmic scale. `mark`: a dashed line at this x. Numbers that are not finite are left out.
    """
    kept = [_finite(curve, positive=log) for curve in curves]
    kept = [curve for curve in kept if len(curve.x) > 1]
    if not kept:
        return ""
    low, high = min(min(c.y) for c in kept), max(max(c.y) for c in kept)
    if low == high and not log:  # a line in the middle, not on the edge
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    ticks = _decades(low, high) if log else nice_ticks(min(0.0, low) if zero else low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    first, last = min(c.x[0] for c in kept), max(c.x[-1] for c in kept)

    def at_x(x: float) -> float:
        return LEFT + (x - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        share = (
            math.log(y / low) / math.log(high / low) if log and high > low else (y - low) / (high - low or 1)
        )
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(at_y(tick), _short(tick)) for tick in ticks]
    for tick in nice_ticks(first, last):
        if first <= tick <= last:
            parts.append(
                f'<text class="soft middle" x="{at_x(tick):.1f}" y="{HEIGHT - 20:g}">{_short(tick)}</text>'
            )
    parts.append(f'<text class="soft end" x="{WIDTH - RIGHT:g}" y="{HEIGHT - 3:g}">{escape(x_name)}</text>')
    if mark is not None and first <= mark <= last:
        place = f"M{at_x(mark):.1f} {TOP:g}V{HEIGHT - BOTTOM:g}"
        parts.append(f'<path class="grid" style="stroke:var(--soft)" stroke-dasharray="3 3" d="{place}"/>')
    hues = [f"var(--m{(first_hue + i) % HUES})" for i in range(len(kept))]
    for curve, hue in zip(kept, hues, strict=True):
        parts.append(_path(curve, hue, at_x, at_y))
    legend = "".join(
        f'<span class="modes"><span class="dot" style="--c:{hue}"></span>{escape(curve.name)}'
        f'<span class="note"> {_short(curve.y[-1])}</span></span> '
        for curve, hue in zip(kept, hues, strict=True)
    )
    drawn = f'<h3 style="margin-top:0">{escape(title)}</h3><div>{legend}</div>' + svg(
        WIDTH, HEIGHT, title, "".join(parts), most=680
    )
    return figure(drawn, note, _numbers(kept, x_name))


def series(
    rows: Sequence[Mapping[str, object]], x: str, pick: Callable[[Mapping], Mapping]
) -> dict[str, Curve]:
    """A curve for every number that `pick(row)` has in any row, over the rows' `x`."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in pick(row).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                xs, ys = found.setdefault(name, ([], []))
                xs.append(float(row[x]))  # type: ignore[arg-type]
                ys.append(float(value))
    return {name: Curve(name, xs, ys) for name, (xs, ys) in found.items()}


def _finite(curve: Curve, *, positive: bool) -> Curve:
    """Without what cannot be drawn, in at most POINTS means of neighbours."""
    pairs = [
        (x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y) and (y > 0 or not positive)
    ]
    size = max(1, math.ceil(len(pairs) / POINTS))
    parts = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    xs = [part[-1][0] for part in parts]
    ys = [sum(y for _, y in part) / len(part) for part in parts]
    return Curve(curve.name, xs, ys, curve.faint)


def _path(curve: Curve, hue: str, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> str:
    points = "L".join(f"{at_x(x):.1f} {at_y(y):.1f}" for x, y in zip(curve.x, curve.y, strict=True))
    dashes = ' stroke-dasharray="2 4"' if curve.faint else ""
    return f'<path class="line" style="stroke:{hue}"{dashes} d="M{points}"/>'


def _grid(y: float, text: str) -> str:
    line = f'<path class="grid" d="M{LEFT:g} {y:.1f}H{WIDTH - RIGHT:g}"/>'
    return f'{line}<text class="soft end" x="{LEFT - 8:g}" y="{y + 4.5:.1f}">{text}</text>'


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten around low..high, at most about six."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high) + 1e-9)
    last = max(last, first + 1)
    step = max(1, (last - first) // 5)
    return [10.0**i for i in range(first, last + step, step)]


def _short(value: float) -> str:
    """A number in few signs."""
    if value == 0 or 0.001 <= abs(value) < 100_000:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _numbers(curves: Sequence[Curve], x_name: str) -> str:
    """Twelve rows at most, spread evenly."""
    longest = max(curves, key=lambda c: len(c.x))
    count = len(longest.x)
    chosen = sorted({round(i * (count - 1) / 11) for i in range(12)}) if count > 12 else list(range(count))
    rows = []
    for i in chosen:
        x = longest.x[i]
        cells = [dict(zip(c.x, c.y, strict=True)).get(x) for c in curves]
        rows.append([_short(x), *("" if y is None else _short(y) for y in cells)])
    return table([x_name, *(c.name for c in curves)], rows)
