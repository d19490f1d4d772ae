"""Pages opened in a browser: clicked, without an error, and with on them what the data say."""

import re
from pathlib import Path

import numpy as np
import pytest

from motet.explain.demo_report import demo_report
from motet.explain.item import Explained
from motet.explain.report import explain_html
from tests.explain.browser import Browser, browser, needs_browser
from tests.explain.test_report import demo, files, item

__all__ = ["files", "item"]  # fixtures
pytestmark = needs_browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def report(item: Explained, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(explain_html(item), "utf-8")
    return path


def lit(tab: Browser) -> list[float]:
    """How full each unit's colour is, in their order."""
    return tab.run(
        "[...document.querySelectorAll('[data-u]')].sort((a, b) => a.dataset.u - b.dataset.u)"
        ".map(e => +e.style.getPropertyValue('--w'))"
    )


def relative(item: Explained, values: np.ndarray) -> np.ndarray:
    """Each unit's value beside the largest of its modality."""
    out = values.astype(float)
    for name in item.matrix.modalities:
        here = item.units.of(name)
        out[here] /= out[here].max() or 1.0
    return out


def test_the_page_holds_what_the_data_say(item: Explained, report: Path, tab: Browser) -> None:
    tab.open(report)
    assert tab.run("[...document.querySelectorAll('h2')].map(e => e.textContent)") == [
        "Where it looked", "The answer", "Whether to believe it", "Who listened to whom",
        *(["Seconds against seconds"] if item.seconds else []), "Heads and layers",
    ]  # fmt: skip
    assert tab.run("document.querySelectorAll('[data-u]').length") == len(item.units.labels)
    figures = 2 + 2 + len(item.seconds) + 3 + len(item.patterns)
    assert tab.run("document.querySelectorAll('figure').length") == figures
    assert tab.run("[...document.querySelectorAll('figure')].every(e => e.querySelector('details table'))")
    assert tab.run("document.querySelectorAll('.plate [data-u]').length") == len(item.units.of("picture"))
    assert tab.run("document.querySelector('audio').src.startsWith('data:audio/mpeg')")
    assert lit(tab) == pytest.approx(relative(item, item.units.answer), abs=2e-3)
    assert not tab.problems


def test_a_click_on_a_word_lights_what_it_listens_to_and_the_reverse(
    item: Explained, report: Path, tab: Browser
) -> None:
    tab.open(report)
    word = int(item.units.of("text")[1])
    tab.move(f'[data-u="{word}"]', click=True)
    assert lit(tab) == pytest.approx(relative(item, item.units.weights[word]), abs=0.01)
    said = tab.run("document.querySelector('[role=status]').textContent")
    assert said.startswith("\u201csun\u201d listens to")
    patches = item.units.of("picture")
    best = patches[item.units.weights[word, patches].argmax()]
    assert item.units.labels[best] in said
    assert tab.run(f"document.querySelector('[data-u=\"{word}\"]').getAttribute('aria-selected')") == "true"
    tab.move(".modes label:nth-of-type(2) input", click=True)
    assert lit(tab) == pytest.approx(relative(item, item.units.weights[:, word]), abs=0.02)
    tab.move(".says button", click=True)
    assert lit(tab) == pytest.approx(relative(item, item.units.answer), abs=2e-3)
    assert not tab.problems


def test_pointing_shows_and_leaving_takes_back(item: Explained, report: Path, tab: Browser) -> None:
    tab.open(report)
    patch = int(item.units.of("picture")[2])
    tab.move(f'[data-u="{patch}"]')
    assert lit(tab) == pytest.approx(relative(item, item.units.weights[patch]), abs=0.01)
    tab.move("h1")
    assert lit(tab) == pytest.approx(relative(item, item.units.answer), abs=2e-3)


def test_all_is_reached_by_keyboard(item: Explained, report: Path, tab: Browser) -> None:
    tab.open(report)
    first, second = (int(u) for u in item.units.of("text")[:2])
    tab.run("document.querySelector('.modes input').focus()")
    tab.press("Tab")
    assert tab.run("document.activeElement.dataset.u") == str(first)
    tab.press("ArrowRight")
    assert tab.run("document.activeElement.dataset.u") == str(second)
    assert lit(tab) == pytest.approx(relative(item, item.units.weights[second]), abs=0.01)
    assert tab.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("Tab")
    tab.press("Tab")  # past "Back to the answer" or straight on
    assert tab.run("document.activeElement.closest('.look') !== null")
    tab.press("Escape")
    assert lit(tab) == pytest.approx(relative(item, item.units.answer), abs=2e-3)


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_phone_nothing_goes_sideways_and_texts_can_be_read(
    item: Explained, files: tuple[Path, Path], report: Path, tab: Browser, tmp_path: Path, dark: bool
) -> None:
    run = tmp_path / "demo.html"
    run.write_text(demo_report(demo(item, files)), "utf-8")
    for path in (report, run):
        tab.open(path, width=390, height=800, dark=dark)
        assert tab.run("document.documentElement.scrollWidth") == 390
        contrast = tab.run(CONTRAST)
        assert min(contrast) > 4.5, contrast
        assert not tab.problems


def test_what_is_chosen_survives_without_script(item: Explained, report: Path) -> None:
    """The page as it is written already shows what reached the answer."""
    html = report.read_text("utf-8")
    found = {int(u): float(w) for u, w in re.findall(r'data-u="(\d+)"[^>]*?--w:([\d.]+)', html)}
    hues = relative(item, item.units.answer)
    assert [found[u] for u in range(len(hues))] == pytest.approx(hues, abs=2e-3)


CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)] };
  const light = colour => rgb(colour).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const page = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('h1, h2, h3, p, td, th, figcaption, summary, a')].map(e => {
    const ink = light(getComputedStyle(e).color);
    return (Math.max(ink, page) + .05) / (Math.min(ink, page) + .05);
  });
})()
"""
