"""Late interaction: the formula, and a search that re-ranks by it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

import motet
from motet.errors import ConfigError
from motet.index.asking import reranked
from motet.predictor import Predictor
from motet.predictor.inputs import entry_of
from motet.predictor.late import late_scores, max_sim, token_vectors
from motet.types import Hit

WORDS = ("red", "green", "blue", "dog", "cat", "hat", "old", "new")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """Two columns that say the same of a row in other words."""
    folder = tmp_path_factory.mktemp("late")
    draw = np.random.default_rng(0)
    with (folder / "pairs.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "note", "told", "number"])
        for i in range(120):
            some = draw.choice(WORDS, size=3, replace=False)
            rows.writerow([f"r{i}", " ".join(some), " ".join(f"x{word}" for word in some), i])
    settings = ("train.epochs=8", "model.width=32", "model.embedding=16", "columns.number=ignore")
    settings += ("columns.note=text", "columns.told=text")
    return motet.fit(
        folder / "pairs.csv", out=folder / "run", settings=settings, preset="scratch", seed=8, device="cpu"
    )


def test_max_sim_is_the_mean_of_each_tokens_nearest() -> None:
    draw = np.random.default_rng(0)
    q, d = draw.normal(size=(4, 6)), draw.normal(size=(7, 6))
    naive = np.mean([max(float(a @ b) for b in d) for a in q])
    assert max_sim(q, d) == pytest.approx(naive)
    assert max_sim(q, q) >= max_sim(q, q[:2])


def test_token_vectors_are_of_unit_length_and_do_not_depend_on_the_batch(model: Predictor) -> None:
    entries = [entry_of({"note": text}, model.processors) for text in ("red dog", "old cat hat", "blue")]
    entries.append(entry_of({"note": " "}, model.processors))
    found = token_vectors(model, entries)
    alone = token_vectors(model, entries[1:2])[0]
    assert isinstance(found[1], dict) and isinstance(alone, dict) and found[3] == {}
    assert np.allclose(np.linalg.norm(found[1]["note"], axis=1), 1, atol=1e-5)
    assert np.allclose(found[1]["note"], alone["note"], atol=1e-5)
    assert len(found[1]["note"]) > len(found[2]["note"])  # type: ignore[index]


def test_a_search_puts_the_nearest_in_order_by_tokens(model: Predictor, tmp_path: Path) -> None:
    index = motet.Index.create(tmp_path / "p.index", model)
    index.add(model.folder.parent / "pairs.csv")
    plain = index.search("red dog hat", top=8, modality="note")
    again = index.search("red dog hat", top=8, modality="note", rerank=8)
    assert {hit.id for hit in plain} == {hit.id for hit in again}
    assert all(hit.late is None for hit in plain) and all(hit.late is not None for hit in again)
    order = [hit.score + (hit.late or 0) for hit in again]
    assert order == sorted(order, reverse=True)
    assert again[0].late == pytest.approx(
        late_scores(model, ["red dog hat"], [(again[0].fields, "note")])[0], abs=1e-5
    )
    page = index.search("red dog hat", top=3, offset=4, modality="note", rerank=8)
    assert [hit.id for hit in page] == [hit.id for hit in again[4:7]]
    rest = index.search("red dog hat", top=8, modality="note", rerank=3)
    assert [hit.late is None for hit in rest] == [False] * 3 + [True] * 5
    assert index.search(like="r5", top=4, rerank=4)[0].late is not None


def test_rows_that_are_gone_come_last_and_vectors_cannot_be_asked(model: Predictor, tmp_path: Path) -> None:
    rows = [({"note": "red"}, "note"), ({"other": "red"}, "note"), ({"note": "blue"}, "told")]
    scores = late_scores(model, ["red"], rows)
    assert scores[0] is not None and scores[1:] == [None, None]
    index = motet.Index.create(tmp_path / "p.index", model)
    index.add(model.folder.parent / "pairs.csv")
    with pytest.raises(ConfigError, match="none of these rows can be read again"):
        reranked([Hit("a", 0.5, "note", {"first": "red"})], ["red"], None, model)
    with pytest.raises(ConfigError, match="a vector has no tokens"):
        index.search(np.ones(16, np.float32), rerank=5)
    with pytest.raises(ConfigError, match="rerank=-1"):
        index.search("red", rerank=-1)


def test_a_hit_says_how_likely_it_is_a_match(model: Predictor, tmp_path: Path) -> None:
    index = motet.Index.create(tmp_path / "p.index", model)
    index.add(model.folder.parent / "pairs.csv")
    assert {frozenset((p.first, p.second)) for p in model.scores.pairs} >= {frozenset(("note", "told"))}
    hits = index.search({"told": "xred xdog xhat"}, top=20, modality="note")
    pair = model.scores.of("told", "note")
    assert pair is not None
    assert [hit.above for hit in hits] == [pair.above(hit.score) for hit in hits]
    assert [hit.match for hit in hits] == [pair.match(hit.score) for hit in hits]
    shares = [hit.above or 0.0 for hit in hits]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.75
    summed = index.search(["red", "dog"], top=1)[0]
    assert summed.match is None and summed.above is None
    vector = index.search(model.encode("red dog"), top=1)[0]
    assert vector.above is None
