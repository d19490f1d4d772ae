"""The curve of a timeline as a picture: lines over seconds, by Pillow alone."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from motet.explain.draw import Line, nice_ticks

SIZE = (960, 480)
LEFT, RIGHT, TOP, BOTTOM = 80, 150, 64, 64  # pixels round the lines
COLOURS = ("#1b4a92", "#5d6573", "#b4560a")
INK, SOFT, GRID = "#1c2027", "#5d6573", "#e5e2dc"


def draw_curve(lines: Sequence[Line], *, title: str, x_name: str, y_name: str) -> Image.Image:
    """At most three lines, each with its name at its end; a line of one point is a dot."""
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y]
    across, down = nice_ticks(min(xs), max(xs)), nice_ticks(min(ys), max(ys))
    first, last, low, high = min(xs), max(xs), down[0], down[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        wide, tall = SIZE[0] - LEFT - RIGHT, SIZE[1] - TOP - BOTTOM
        return (
            LEFT + (x - first) / ((last - first) or 1) * wide,
            SIZE[1] - BOTTOM - (y - low) / ((high - low) or 1) * tall,
        )

    picture = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(picture)
    small, large = ImageFont.load_default(15), ImageFont.load_default(20)
    draw.text((LEFT, 14), title, INK, large)
    draw.text((LEFT - 12, TOP - 34), y_name, SOFT, small, anchor="ra")
    draw.text((SIZE[0] - RIGHT, SIZE[1] - 26), x_name, SOFT, small, anchor="ra")
    for tick in down:
        y = at(first, tick)[1]
        draw.line([(LEFT, y), (SIZE[0] - RIGHT, y)], GRID, 1)
        draw.text((LEFT - 12, y), f"{tick:g}", SOFT, small, anchor="rm")
    for tick in across:
        if first <= tick <= last:
            draw.text((at(tick, low)[0], SIZE[1] - BOTTOM + 8), f"{tick:g}", SOFT, small, anchor="ma")
    for line, colour in zip(lines, COLOURS, strict=False):
        points = [at(x, y) for x, y in zip(line.x, line.y, strict=True)]
        draw.line(points, colour, 3, joint="curve")
        for x, y in points:
            draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=colour)
        draw.text((points[-1][0] + 12, points[-1][1]), line.name, colour, small, anchor="lm")
    return picture
