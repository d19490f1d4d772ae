"""Every view as a file: SVG that stands alone, and the PNG drawn from it."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from motet.errors import StorageError
from motet.explain import draw
from motet.explain.item import Explained
from motet.explain.pictures import pictures, words_svg
from motet.explain.raster import MARGIN, SCALE, colours, png
from motet.explain.report import Explanation
from tests.explain.test_report import files, item

__all__ = ["files", "item"]  # fixtures


def test_every_view_is_written_as_svg_and_png(item: Explained, tmp_path: Path) -> None:
    written = Explanation(item).save_pictures(tmp_path / "views")
    names = {path.stem for path in written}
    assert {"answer-text", "answer-picture", "answer-speech", "words-picture", "importance", "answer-mood",
            "modalities", "modalities-heads", "deletion", "insertion", "heads-cross", "heads-entropy",
            "heads-distance"} <= names  # fmt: skip
    assert {path.suffix for path in written} == {".svg", ".png"} and len(written) == 2 * len(names)
    for path in written:
        if path.suffix == ".svg":
            text = path.read_text("utf-8")
            assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
            assert "var(" not in text and not re.search(r'(?:href|src)="(?!data:)', text)
        else:
            with Image.open(path) as picture:
                assert min(picture.size) > 40 and len(picture.getcolors(1 << 20)) > 3


def test_a_folder_that_cannot_be_written_is_said(item: Explained, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--png"):
        Explanation(item).save_pictures(tmp_path / "file" / "views")


def test_pixels_have_the_hues_of_the_numbers() -> None:
    svg = draw.heat_map(np.array([[0.0, 1.0]]), ["a"], ["b", "c"], title="t", cell=(60, 60))
    picture = png(svg)
    width, height = (float(n) for n in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    assert picture.size == (round((width + 2 * MARGIN) * SCALE), round((height + 2 * MARGIN) * SCALE))
    x = [float(n) for n in re.findall(r'class="hot" x="([\d.]+)"', svg)]
    y = float(re.search(r'class="hot" x="[\d.]+" y="([\d.]+)"', svg)[1])
    spot = [picture.getpixel((int((a + MARGIN + 6) * SCALE), int((y + MARGIN + 8) * SCALE))) for a in x]
    hues = colours()
    assert [f"#{bytes(rgb).hex()}" for rgb in spot] == [hues["cell"], hues["accent"]]


def test_names_of_pictures_cannot_leave_the_folder(item: Explained) -> None:
    assert all(re.fullmatch(r"[\w-]+", name) for name in pictures(item))


def test_long_texts_break_into_lines() -> None:
    svg = words_svg(["word"] * 60, np.arange(60.0), "t")
    assert len(set(re.findall(r'<text[^>]* y="([\d.]+)"', svg))) > 3
    assert max(float(x) for x in re.findall(r'<rect class="hot" x="([\d.]+)"', svg)) < 720


def test_the_scale_of_colours_falls_evenly_in_lightness() -> None:
    """One hue from pale to full: what is darker is more, also to colour-blind eyes and in grey print."""
    hues = colours()
    pale, full = (np.frombuffer(bytes.fromhex(hues[name][1:]), np.uint8) / 255 for name in ("cell", "accent"))
    mixed = pale + (full - pale) * np.linspace(0, 1, 21)[:, None]
    linear = np.where(mixed <= 0.04045, mixed / 12.92, ((mixed + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16
    steps = -np.diff(lightness)
    assert steps.min() > 0.7 * steps.mean() and steps.max() < 1.3 * steps.mean()
    assert lightness[0] - lightness[-1] > 50
