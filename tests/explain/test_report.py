import base64
import dataclasses
import hashlib
import json
import re
import wave
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motet.errors import StorageError
from motet.explain import draw, media
from motet.explain.demo_report import DemoReport, Found, Query, demo_report
from motet.explain.item import Explained, Media, explain_sample
from motet.explain.report import Explanation, explain_html
from motet.explain.said import BELIEVE, sentences, shown_as
from motet.explain.style import Section, page
from motet.explain.units import units
from motet.types import TokenBatch
from tests.explain.test_capture import COUNTS, make_batch, make_model

VOID = {"meta", "input", "img", "br", "hr", "link", "path", "rect", "image", "use"}
EVIL = '<script>alert("x")</script> & "quotes"'


class Checker(HTMLParser):
    """Every tag is closed in order; keeps what the assertions ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> inside {self.open[-3:]}"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(
        folder / "a.png"
    )
    tone = (np.sin(np.arange(8000) / 9) * np.linspace(0, 9000, 8000)).astype("<i2")
    with wave.open(str(folder / "a.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16000)
        sound.writeframes(tone.tobytes())
    return folder / "a.png", folder / "a.wav"


@pytest.fixture(scope="module")
def item(files: tuple[Path, Path]) -> Explained:
    batch = make_batch(COUNTS[:1])
    batch = dataclasses.replace(batch, labels={"text": (EVIL, "sun", "set")})
    shown = {
        "text": Media(text=EVIL),
        "picture": Media(file=files[0]),
        "speech": Media(file=files[1], note="said"),
    }
    return explain_sample(make_model(), batch, shown, title="A sun set", truth="good")


def demo(item: Explained, files: tuple[Path, Path]) -> DemoReport:
    pair = {
        "n": 9,
        "gallery": 9,
        "R@1": 0.1,
        "R@5": 0.2,
        "R@10": 0.5,
        "chance_R@10": 0.05,
        "median_rank": 4.0,
    }
    scores = {"accuracy": 0.7, "macro_f1": 0.6, "weighted_f1": 0.65}
    subsets = [{"modalities": names, "n": 9, "macro_f1": 0.4} for names in (["text", "speech"], ["text"])]
    mood = {
        "kind": "classes", "n": 9, "classes": ["bad", "so", "good"], "subsets": subsets,
        "full": {**scores, "confusion": [[2, 0, 1], [0, 1, 1], [0, 1, 3]]},
        "baseline": {"label": "good", "accuracy": 0.4, "macro_f1": 0.2, "weighted_f1": 0.3},
        "helps": [{"sentence": "speech adds nothing here"}],
    }  # fmt: skip
    price = {
        "kind": "number", "n": 9, "full": {"mae": 1.0, "rmse": 2.0, "pearson": None},
        "baseline": {"mae": 3.0}, "subsets": [{"modalities": ["text"], "n": 9, "mae": 1.5}], "helps": [],
    }  # fmt: skip
    return DemoReport(
        title="Signs",
        about=EVIL,
        parts={"train": 80, "test": 9},
        modalities=[{"name": "text", "pretrained": "minilm"}, {"name": "speech", "note": "synthesised"}],
        parameters={"text": 1200, "speech": 900, "shared": 50},
        seconds={"train": 12.0, "evaluate": 1.5},
        history=[
            {"kind": "epoch", "epoch": e, "step": 5 * e + 5, "best_step": 10}
            | {"train": {"loss": 3 - e / 2}, "val": {"loss": 4 - e / 2}}
            for e in range(4)
        ],
        metrics={
            "retrieval": [
                {"query": "text", "answer": "speech"} | pair,
                {"query": "speech", "answer": "text", "n": 0},
            ],
            "tasks": {"mood": mood, "price": price, "unlabelled": {"kind": "classes", "n": 0}},
        },
        queries=[
            Query("sun", (Found(files[0], "a sun", True, 0.9), Found(files[0], EVIL, False, 0.1)), rank=1),
            Query("set", (Found(files[0], "a set", False, 0.5),), sound=files[1]),
        ],
        items=[item],
        gallery=9,
        commands=["motet search x"],
    )  # fmt: skip


def pages(item: Explained, files: tuple[Path, Path]) -> list[str]:
    return [explain_html(item), demo_report(demo(item, files))]


def test_pages_are_whole_safe_and_need_no_network(item: Explained, files: tuple[Path, Path]) -> None:
    for html in pages(item, files):
        checked = Checker(html)
        scripts = re.findall(r"<script>(.*?)</script>", html, re.S)  # what runs; numbers have a type
        digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
        policy = checked.all("meta")[1]["content"] or ""
        assert len(scripts) == 1 and f"script-src 'sha256-{digest}'" in policy
        assert policy.startswith("default-src 'none'")
        assert not re.search(r"https?://|//fonts|@import|url\(", html)
        for attrs in (*checked.all("img"), *checked.all("audio"), *checked.all("image")):
            assert (attrs.get("src") or attrs.get("href") or "").startswith("data:")
        assert "synthesised speech" in html or "said" in html
        assert any(EVIL in text for text in checked.texts)


def test_every_picture_has_a_name_and_every_reference_a_target(
    item: Explained, files: tuple[Path, Path]
) -> None:
    for html in pages(item, files):
        checked = Checker(html)
        found = re.findall(r"<svg[^>]*>(?:<title>)?", html)
        drawn = [match for match in found if "aria-hidden" not in match]
        assert drawn and all('role="img"' in svg and svg.endswith("<title>") for svg in drawn)
        assert all(attrs.get("alt") for attrs in checked.all("img"))
        ids = [attrs["id"] for _, attrs in checked.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        targets = [attrs["href"] for name, attrs in checked.tags if name in ("a", "use")]
        assert all(attrs.get("aria-label") for _, attrs in checked.tags if attrs.get("role") == "option")
        assert targets and {str(target)[1:] for target in targets} <= set(ids)


def test_the_panel_carries_the_attention_between_what_can_be_pointed_at(item: Explained) -> None:
    html = explain_html(item)
    said = json.loads(re.search(r'<script type="application/json">(.*?)</script>', html, re.S)[1])
    units = item.units
    count = len(units.labels)
    assert sorted(map(int, re.findall(r'data-u="(\d+)"', html))) == list(range(count))
    scaled = np.frombuffer(base64.b64decode(said["weights"]), np.uint8).reshape(count, count)
    back = scaled / 255 * np.array(said["peaks"])[:, said["of"]]
    assert np.abs(back - units.weights).max() < 0.004
    assert units.weights.sum(1) == pytest.approx(np.ones(count))
    assert units.answer.sum() == pytest.approx(1)
    assert said["answer"] == pytest.approx(units.answer, abs=1e-5)
    captured, layers = item.captured, units.layers
    whole = sum(captured.weights(i, captured.tokens_of(0)).mean(1).double() for i in layers) / len(layers)
    assert np.abs(units.weights - whole.numpy()).max() < 1e-6  # here every token is a unit of its own


def test_the_first_sentences_say_the_answer_and_whether_to_believe_it(item: Explained) -> None:
    first, second, third = sentences(item)
    best = max(item.predictions["mood"]["scores"].items(), key=lambda score: score[1])[0]
    assert first.startswith(f"The model says \u201c{best}\u201d") and "\u201cgood\u201d" in first
    shares = item.importance.by_modality()
    most = max(shares, key=lambda name: shares[name])
    assert shown_as(item, most) in second and draw.percent(shares[most]) in second
    assert item.deletion is not None and third == BELIEVE[item.deletion.verdict]


def test_explanation_saves_and_gives_its_numbers(item: Explained, tmp_path: Path) -> None:
    explanation = Explanation(item)
    saved = explanation.save(tmp_path / "deep" / "report.html")
    assert Checker(saved.read_text("utf-8")).all("h2")
    numbers = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    assert sum(numbers["predictions"]["mood"]["scores"].values()) == pytest.approx(1.0)
    assert numbers["modality_matrix"]["modalities"] == ["text", "picture", "speech"]
    assert len(numbers["deletion"]["score"]) == len(numbers["deletion"]["removed"])
    assert explanation._repr_html_().startswith("<iframe")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        explanation.save(tmp_path / "file" / "report.html")


def test_what_is_not_there_is_left_out(item: Explained) -> None:
    batch = make_batch(({"text": 2},))
    alone = explain_sample(
        make_model(), TokenBatch(batch.layout, batch.values, {}, batch.group, batch.ids), {}
    )
    html = explain_html(alone)
    Checker(html)
    assert "Who listened to whom" not in html and "Patches of the picture" not in html
    assert "Missing: picture, speech." in html and "It had only text to go by" in html
    assert "Patches of the picture" in explain_html(item) and "Seconds of the sound" in explain_html(item)


def test_pieces_of_a_word_are_one_word(item: Explained) -> None:
    layout = item.captured.layout
    layout.time[2] = layout.time[1]  # "sun" and "set" become pieces of one word
    found = units(item.captured, item.importance, item.kinds)
    layout.time[2] = 0.2
    assert [found.labels[u] for u in found.of("text")] == [EVIL, "sunset"]
    assert found.answer[1] == pytest.approx(item.units.answer[1:3].sum())
    assert found.weights[1, 2:] == pytest.approx(item.units.weights[1:3, 3:].mean(0))
    assert found.weights[5, 1] == pytest.approx(item.units.weights[6, 1:3].sum())


def test_the_demo_page_says_what_was_measured(item: Explained, files: tuple[Path, Path]) -> None:
    html = demo_report(demo(item, files))
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", html)
    assert titles == [
        "What was trained", "Learning", "Finding things", "Searches", "Mood", "Price", "Missing modalities",
        "Where it looked", "Try next",
    ]  # fmt: skip
    assert html.count('<li class="right">') == 1
    assert "synthesised speech</p><audio" in html  # also where an item is explained
    assert '<th scope="row">4</th><td class="n">2.500</td><td class="n">1.500</td>' in html
    assert "Speech is synthesised." in html and "speech \u2192 text" not in html
    empty = DemoReport("Empty", "", {}, [], {}, {}, [], {}, [], [])
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", demo_report(empty)) == ["What was trained"]


def test_heat_map_hues_follow_the_numbers() -> None:
    svg = draw.heat_map(np.array([[0.2, 0.8], [0.4, 0.4]]), ["a", "b"], ["c", "d"], title="t")
    hues = [float(hue) for hue in re.findall(r'fill-opacity="([\d.]+)"', svg)]
    assert hues == [0.25, 1.0, 0.5, 0.5]
    assert svg.count('class="middle on"') == 1


def test_patches_stay_bright_where_they_weigh() -> None:
    svg = media.lit_picture("data:,", np.array([[0.0, 1.0], [0.5, 0.25]]), "t")
    assert [float(s) for s in re.findall(r'fill-opacity="([\d.]+)"', svg)] == [0.74, 0.0, 0.37, 0.555]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1.3, 5.6), (0.001, 0.0042), (2, 2), (-3, 40)])
def test_ticks_are_round_few_and_cover_the_range(low: float, high: float) -> None:
    ticks = draw.nice_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and len(ticks) <= 8
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0] if len(ticks) > 1 else 0)


def test_a_page_of_one_section_has_no_navigation() -> None:
    assert "<nav" not in page("t", [Section("one", "<p>x</p>")])


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        ({"price": {"label": 3.14159, "scores": {}}}, "The model says 3.14 for price"),
        (
            {"tags": {"label": ["sea", "sun"], "scores": {"sea": 0.9, "sun": 0.6}}},
            "says \u201csea\u201d, \u201csun\u201d",
        ),
        ({"tags": {"label": [], "scores": {"sea": 0.1}}}, "none of the labels"),
        ({}, "gives no label"),
    ],
)
def test_every_kind_of_answer_can_be_said(item: Explained, predictions: dict, said: str) -> None:
    other = dataclasses.replace(item, predictions=predictions)
    assert said in sentences(other)[0]
    Checker(explain_html(other))
