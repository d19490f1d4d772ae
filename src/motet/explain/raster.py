"""The pictures of a report as files: SVG that stands alone, and PNG drawn from it with Pillow.

Only what our own charts are made of is drawn: rect, text, path of straight lines, image. Colours are
the light ones of the page's style sheet.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

from PIL import Image, ImageColor, ImageDraw, ImageFont

from motet.errors import StorageError

SCALE, FINER = 2, 2  # pixels of a file for one of the page; drawn finer, then reduced
SIZE = 13.0  # of text
MARGIN = 12.0
FILLS = {"soft": "soft", "base": "cell", "hot": "accent", "on": "on-accent", "f0": "accent", "f1": "soft"}
FILLS |= {"f2": "m1", "band": "soft"} | {f"m{i}": f"m{i}" for i in range(6)}
STROKES = {"grid": "line", "s0": "accent", "s1": "soft", "s2": "m1"}
SHADE = "#0b1017"
FONTS = ("DejaVuSans.ttf", "Arial.ttf", "Arial Unicode.ttf", "NotoSans-Regular.ttf")


def save_pictures(folder: str | Path, pictures: Mapping[str, str]) -> list[Path]:
    """Write each picture as NAME.svg and NAME.png.

    Raises:
        StorageError: the folder cannot be written.
    """
    folder, written = Path(folder), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, svg in pictures.items():
            plain = folder / f"{name}.svg"
            plain.write_text(alone(svg), "utf-8")
            png(svg).save(plain.with_suffix(".png"), optimize=True)
            written += [plain, plain.with_suffix(".png")]
    except OSError as error:
        raise StorageError(
            f"{folder}: pictures cannot be written: {error.strerror}. Choose another --png."
        ) from None
    return written


def _sheet() -> str:
    return (files("motet.explain") / "page.css").read_text("utf-8")


def colours() -> dict[str, str]:
    """The light colours of the style sheet, by name."""
    root = _sheet().split("{", 1)[1].split("}", 1)[0]
    return {name: f"#{value}" for name, value in re.findall(r"--([\w-]+):#(\w+)", root)}


def alone(svg: str) -> str:
    """A chart of a page as a document of its own: with its style, and on white."""
    hues = colours()
    rules = re.findall(r"^(?:svg\.chart|\.chart|\.s0)[^\n]*", _sheet(), re.M)
    style = re.sub(r"var\(--([\w-]+)\)", lambda found: hues.get(found[1], "#000"), "\n".join(rules))
    style += f"\nsvg {{ background:#fff; font-family:system-ui,sans-serif }} .shade {{ fill:{SHADE} }}"
    style += "".join(f" .chart .m{i} {{ fill:{hues[f'm{i}']} }}" for i in range(6))
    _, _, width, height = _box(svg)
    around = f"{-MARGIN:g} {-MARGIN:g} {width + 2 * MARGIN:g} {height + 2 * MARGIN:g}"
    size = f'width="{width + 2 * MARGIN:g}" height="{height + 2 * MARGIN:g}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
    svg = re.sub(r'viewBox="[^"]*"', f'viewBox="{around}"', svg, count=1)
    return re.sub(r"(<svg[^>]*>)", rf"\1<style>{style}</style>", svg.replace("<svg ", head, 1), count=1)


def _box(svg: str) -> tuple[float, ...]:
    found = re.search(r'viewBox="([^"]*)"', svg)
    assert found, "a chart has a viewBox"
    return tuple(map(float, found[1].split()))


def png(svg: str) -> Image.Image:
    """A chart of a page as an RGB picture on white."""
    _, _, width, height = _box(svg)
    canvas = _Canvas(width + 2 * MARGIN, height + 2 * MARGIN)
    for element in ElementTree.fromstring(svg.replace("\u202f", " ")).iter():
        match element.tag:
            case "rect":
                canvas.rect(element)
            case "path":
                canvas.path(element)
            case "text":
                canvas.text(element)
            case "image":
                canvas.image(element)
    return canvas.finished()


class _Canvas:
    def __init__(self, width: float, height: float) -> None:
        self.scale = SCALE * FINER
        size = (round(width * self.scale), round(height * self.scale))
        self.picture = Image.new("RGB", size, "white")
        self.pen = ImageDraw.Draw(self.picture, "RGBA")
        self.hues = colours()
        self.font = _font(SIZE * self.scale)

    def at(self, *places: float) -> list[float]:
        return [(place + MARGIN) * self.scale for place in places]

    def fill(self, element: ElementTree.Element, *, opacity: float = 1.0) -> tuple[int, int, int, int]:
        """The colour of what is filled: the last class that says one, ink without."""
        hue = self.hues["ink"]
        for kind in element.get("class", "").split():
            hue = SHADE if kind == "shade" else self.hues[FILLS[kind]] if kind in FILLS else hue
        red, green, blue = ImageColor.getrgb(hue)[:3]
        return red, green, blue, round(255 * float(element.get("fill-opacity", opacity)))

    def rect(self, element: ElementTree.Element) -> None:
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        left, top, right, bottom = self.at(
            x, y, x + float(element.get("width", 0)), y + float(element.get("height", 0))
        )
        box = (left, top, max(left, right - 1), max(top, bottom - 1))
        self.pen.rounded_rectangle(box, float(element.get("rx", 0)) * self.scale, self.fill(element))

    def path(self, element: ElementTree.Element) -> None:
        kinds, points = element.get("class", "").split(), _points(element.get("d", ""))
        spots = [tuple(self.at(x, y)) for x, y in points]
        stroke = next((STROKES[kind] for kind in kinds if kind in STROKES), None)
        if stroke is None:
            self.pen.polygon(spots, self.fill(element, opacity=0.14 if "band" in kinds else 1.0))
            return
        dashes = (2.0, 4.0) if "s1" in kinds else None
        if element.get("stroke-dasharray"):
            dashes = (3.0, 3.0)
        width = (1.0 if "grid" in kinds else 2.0) * self.scale
        for line in _dashed(spots, dashes, self.scale) if dashes else [spots]:
            self.pen.line(line, self.hues[stroke], round(width), joint="curve")

    def text(self, element: ElementTree.Element) -> None:
        kinds, said = element.get("class", "").split(), element.text or ""
        anchor = "ms" if "middle" in kinds else "rs" if "end" in kinds else "ls"
        x, y = self.at(float(element.get("x", 0)), float(element.get("y", 0)))
        turned = re.search(r"rotate\((-?[\d.]+)", element.get("transform", ""))
        if not turned:
            self.pen.text((x, y), said, self.fill(element), self.font, anchor=anchor)
            return
        reach = round(self.font.getlength(said)) + 8
        label = Image.new("L", (2 * reach, 2 * reach), 0)
        ImageDraw.Draw(label).text((reach, reach), said, 255, self.font, anchor=anchor)
        label = label.rotate(-float(turned[1]), Image.Resampling.BICUBIC)
        self.picture.paste(self.fill(element)[:3], (round(x) - reach, round(y) - reach), label)

    def image(self, element: ElementTree.Element) -> None:
        data = base64.b64decode(element.get("href", "").split(",", 1)[1])
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        wide, high = float(element.get("width", 0)), float(element.get("height", 0))
        size = (max(1, round(wide * self.scale)), max(1, round(high * self.scale)))
        with Image.open(io.BytesIO(data)) as opened:
            part = opened.convert("RGB").resize(size)
        left, top = self.at(x, y)
        self.picture.paste(part, (round(left), round(top)))

    def finished(self) -> Image.Image:
        wide, high = self.picture.size
        return self.picture.resize((wide // FINER, high // FINER), Image.Resampling.LANCZOS)


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """A font of the system with many scripts, else the one inside Pillow."""
    for name in FONTS:
        with suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _points(path: str) -> list[tuple[float, float]]:
    """The corners of a path of straight lines."""
    points: list[tuple[float, float]] = []
    for command, said in re.findall(r"([MLHVZ])([^MLHVZ]*)", path):
        numbers = [float(n) for n in re.findall(r"-?[\d.]+(?:e-?\d+)?", said)]
        match command:
            case "M" | "L":
                points.append((numbers[0], numbers[1]))
            case "H":
                points.append((numbers[0], points[-1][1]))
            case "V":
                points.append((points[-1][0], numbers[0]))
    return points


def _dashed(
    points: list[tuple[float, ...]], dashes: tuple[float, float], scale: float
) -> list[list[tuple[float, ...]]]:
    """A line in pieces: on for the first length, off for the second."""
    out: list[list[tuple[float, ...]]] = []
    walked = 0.0
    on, period = dashes[0] * scale, sum(dashes) * scale
    for (x, y), (x2, y2) in pairwise(points):
        length = ((x2 - x) ** 2 + (y2 - y) ** 2) ** 0.5
        at = 0.0
        while at < length:
            phase = (walked + at) % period
            step = min((on if phase < on else period) - phase + 1e-6, length - at)
            if phase < on:
                a, b = at / length, (at + step) / length
                out.append([(x + (x2 - x) * a, y + (y2 - y) * a), (x + (x2 - x) * b, y + (y2 - y) * b)])
            at += step
        walked += length
    return out
