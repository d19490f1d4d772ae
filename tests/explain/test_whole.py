"""Many rows explained together, against what is known of the model by construction."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from motet.errors import DataError
from motet.explain.report import WholeExplanation
from motet.explain.whole import Whole, explain_rows
from motet.types import TokenBatch
from tests.explain.browser import browser, needs_browser
from tests.explain.test_capture import make_batch, make_model
from tests.explain.test_report import Checker

CLASSES = ("bad", "so", "good")


def batches(count: int = 8):
    for seed in range(count):
        sample = {"text": 3, "picture": 6} | ({"speech": 4} if seed % 2 else {})
        yield make_batch((sample,), seed=seed), CLASSES[seed % 3]


@pytest.fixture(scope="module")
def whole() -> Whole:
    return explain_rows(make_model(), batches(), title="Eight rows", count=8, of=80)


def test_groups_hold_the_means_of_their_rows(whole: Whole) -> None:
    assert whole.modalities == ("text", "picture", "speech") and len(whole.rows) == 8
    every = whole.all
    assert (every.said, every.right, every.rows) == ("", None, 8)
    assert every.there == {"text": 8, "picture": 8, "speech": 4}
    for name in whole.modalities:
        shares = [row.used[name].share for row in whole.rows if name in row.used]
        mean = every.share[name]
        assert mean.mean == pytest.approx(np.mean(shares)) and mean.low <= mean.mean <= mean.high
    assert all(sum(used.share for used in row.used.values()) == pytest.approx(1) for row in whole.rows)
    right = [row for row in whole.rows if row.said == row.truth]
    counts = {(g.said, g.right): g.rows for g in whole.groups}
    assert counts.get(("", True), 0) == len(right) and counts.get(("", False), 0) == 8 - len(right)
    assert sum(n for (said, side), n in counts.items() if said and side is None) == 8


def test_what_is_lost_is_the_fall_of_the_answer_without_the_modality(whole: Whole) -> None:
    model, (batch, _) = make_model(), list(batches())[1]
    row = whole.rows[1]
    alone = make_batch(({"text": 3, "picture": 6},), seed=1)
    kept = {m: batch.values[m] for m in ("text", "picture")} | {"speech": batch.values["speech"][:0]}
    short = TokenBatch(alone.layout, kept, {}, alone.group, alone.ids)
    with torch.no_grad():
        before, after = (model(b).predictions["mood"].softmax(-1)[0] for b in (batch, short))
    said = CLASSES.index(row.said)
    assert row.used["speech"].lost == pytest.approx(float(before[said] - after[said]), abs=1e-5)
    assert row.used["speech"].changes == (int(after.argmax()) != said)


def test_page_numbers_and_pictures(whole: Whole, tmp_path: Path) -> None:
    shown = WholeExplanation(whole)
    checked = Checker(shown.html())
    assert len(checked.all("section")) == 5 and "The answers need" in shown.html()
    numbers = json.loads(json.dumps(shown.to_dict()))
    assert len(numbers["rows"]) == 8 and numbers["groups"][0]["rows"] == 8
    names = {path.stem for path in shown.save_pictures(tmp_path)}
    assert names == {"listens", "share-by-answer", "lost-by-answer", "deletion", "insertion"}


@needs_browser
def test_the_page_opens_on_a_phone_with_what_the_data_say(whole: Whole, tmp_path: Path) -> None:
    page = WholeExplanation(whole).save(tmp_path / "whole.html")
    with browser(tmp_path / "profile") as tab:
        tab.open(page, width=390, dark=True)
        assert tab.run("document.documentElement.scrollWidth") == 390
        assert tab.run("document.querySelectorAll('h2').length") == 5
        assert tab.run("document.querySelectorAll('figure').length") == 5
        cells = "[...document.querySelectorAll('svg.chart')][0].querySelectorAll('.hot').length"
        assert tab.run(cells) == len(whole.groups) * len(whole.modalities)
        rows = "[...document.querySelectorAll('details')].at(-1).querySelectorAll('tbody tr').length"
        assert tab.run(rows) == len(whole.rows)
        assert not tab.problems


def test_one_modality_loses_nothing_to_others_and_no_rows_are_said() -> None:
    only = explain_rows(make_model(), [(make_batch(({"text": 3},)), "")], title="t", count=1, of=1)
    assert only.rows[0].used["text"].lost is None and math.isnan(only.all.lost["text"].mean)
    assert only.rows[0].right is None and len(only.groups) == 2
    Checker(WholeExplanation(only).html())
    with pytest.raises(DataError, match="not one row"):
        explain_rows(make_model(), [], title="t", count=0, of=0)
