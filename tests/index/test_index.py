"""The index over a stand-in for a model: a text's vector is drawn from its words."""

import hashlib
import io
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from motet.errors import ConfigError, DataError, MismatchError
from motet.index import Added, Index
from motet.index.page import search_page
from motet.predictor.cells import Broken
from motet.predictor.inputs import Entry
from motet.tasks.scores import Scores
from motet.types import Hit

WIDTH = 16


def vector_of(text: str) -> np.ndarray:
    total = np.zeros(WIDTH, np.float32)
    for word in text.split():
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4])
        total += np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return total / np.linalg.norm(total)


class WordModel:
    """Stands in for a Predictor; the text "broken" cannot be read. Keeps count of what it encodes."""

    def __init__(self, folder: Path, fingerprint: str = "a" * 64) -> None:
        self.folder, self.fingerprint, self.width, self.encoded = folder, fingerprint, WIDTH, 0
        self.scores = Scores()
        self.asked: list[list[str]] = []

    def entries(self, rows: Sequence[Mapping[str, Any]], *, root: Any = None) -> list[Entry]:
        made = []
        for i, row in enumerate(rows):
            cells = {m: row[m] for m in ("title", "caption") if row.get(m)}
            fields = {k: v for k, v in row.items() if k != "id"}
            made.append(Entry(f"rows, line {i}", cells, Path(), row.get("id"), fields, line=i))
        return made

    def keys(self, entry: Entry) -> dict[str, str]:
        return dict(entry.cells)

    def encode_entries(self, entries: Sequence[Entry]) -> list[dict[str, np.ndarray] | Broken]:
        self.encoded += len(entries)
        return [
            Broken("title", DataError("cannot be read.", rule="damaged"))
            if entry.cells.get("title") == "broken"
            else {m: vector_of(cell) for m, cell in entry.cells.items()}
            for entry in entries
        ]

    def heard(self, input: Any) -> tuple[str, ...]:
        return ("title",)

    def encode_query(self, queries: Sequence[str]) -> np.ndarray:
        self.asked.append(list(queries))
        return np.stack([vector_of(query) for query in queries])


GOODS = [
    {"id": "d1", "title": "red dress", "price": 40, "colour": "red"},
    {"id": "d2", "title": "blue dress", "price": 70, "colour": "blue"},
    {"id": "s1", "title": "red shoes", "caption": "for dancing", "price": 30, "colour": "red"},
    {"id": "h1", "caption": "straw hat", "price": 10, "colour": None},
]


@pytest.fixture
def model(tmp_path: Path) -> WordModel:
    return WordModel(tmp_path / "model")


@pytest.fixture
def index(tmp_path: Path, model: WordModel) -> Index:
    made = Index.create(tmp_path / "shop.index", model)  # type: ignore[arg-type]
    assert made.add(GOODS) == Added(added=4)
    return made


def ids(hits: list[Any]) -> list[str]:
    return [hit.id for hit in hits]


def test_the_row_with_the_words_comes_first_with_its_fields(index: Index) -> None:
    hit = index.search("blue dress", top=1)[0]
    assert (hit.id, hit.modality, hit.score) == ("d2", "title", pytest.approx(1, abs=1e-6))
    assert hit.fields == {"title": "blue dress", "price": 70, "colour": "blue"}


def test_a_modality_may_be_chosen(index: Index) -> None:
    hits = index.search("red shoes", top=9, modality="caption")
    assert set(ids(hits)) == {"s1", "h1"} and {h.modality for h in hits} == {"caption"}
    assert len(index.search("red shoes", top=9)) == 4  # every row once, by its best vector


def test_filters_hold(index: Index) -> None:
    assert ids(index.search("dress", top=9, where="price < 50 and colour = 'red'")) in (
        ["d1", "s1"],
        ["s1", "d1"],
    )
    assert ids(index.search("dress", where="colour is null")) == ["h1"]


def test_more_like_this_leaves_the_row_itself_out(index: Index) -> None:
    assert ids(index.search(like="d1", top=2, modality="title"))[0] in ("d2", "s1")
    assert "d1" not in ids(index.search(like="d1", top=9))


def test_parts_are_summed(index: Index) -> None:
    assert ids(index.search(["straw hat", "for dancing"], top=2)) in (["h1", "s1"], ["s1", "h1"])
    assert ids(index.search("blue", like="d1", top=1)) == ["d2"]
    total = vector_of("red") + vector_of("blue dress")
    hits = index.search(["red", "blue dress"], top=4)
    assert hits == index.search(total, top=4)
    assert hits[0].score == pytest.approx(
        max(total @ vector_of(t) for t in ("red dress", "blue dress")) / np.linalg.norm(total)
    )


def test_pages_follow_each_other(index: Index) -> None:
    whole = index.search("dress", top=4)
    assert [*index.search("dress", top=2), *index.search("dress", top=2, offset=2)] == whole
    assert index.search("dress", top=2, offset=4) == []
    others = [hit for hit in index.search(like="d1", top=3)]
    assert index.search(like="d1", top=1, offset=1) == others[1:2]


def test_only_the_best_row_of_a_group_counts(index: Index) -> None:
    index.add([{"id": f"r{i}", "title": f"red dress {i}", "colour": "red"} for i in range(40)])
    hits = index.search("red dress", top=3, distinct="colour")
    assert [hit.fields["colour"] for hit in hits].count("red") == 1
    assert hits[0].id == "d1" and set(ids(hits)) == {"d1", "d2", "h1"}
    with pytest.raises(ConfigError, match=r"distinct 'size'.*colour"):
        index.search("red", distinct="size")


def test_a_page_shows_what_was_found_and_needs_no_network(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a.png")
    fields = {"picture": str(tmp_path / "a.png"), "name": "<b>dress</b>", "gone": "/nowhere/x.png"}
    html = search_page(
        "a <dress>", [Hit("1", 0.5, "picture", fields), Hit("2", 0.25, "name", {"name": None})]
    )
    assert html.count('<li class="find"') == 2 and html.count("data:image/webp") == 1
    assert "&lt;b&gt;dress" in html and "<b>dress" not in html and "/nowhere/x.png" in html
    assert "http" not in html.replace("http-equiv", "")
    assert "Nothing was found" in search_page("x", [])
    gone = search_page("x", [Hit("1", 0.5, "name", {"picture": "/nowhere/x.png"})], thumbnails={"1": b"kept"})
    assert "data:image/webp;base64,a2VwdA==" in gone


def test_a_vector_is_a_query(index: Index) -> None:
    assert ids(index.search(7 * vector_of("straw hat"), top=1)) == ["h1"]


def test_many_queries_are_encoded_together_and_answered_as_one_by_one(index: Index, model: WordModel) -> None:
    index.add([{"id": f"r{i}", "title": f"red dress {i}", "colour": "red"} for i in range(40)])
    queries = ["red dress", ["straw hat", "red"], 3 * vector_of("blue dress"), "red shoes"]
    for more in ({}, {"modality": "title", "offset": 1}, {"where": "price < 50"}, {"distinct": "colour"}):
        one_by_one = [index.search(query, top=3, **more) for query in queries]
        model.asked.clear()
        many = index.search_many(queries, top=3, **more)
        assert model.asked == [["red dress", "straw hat", "red", "red shoes"]]
        assert [ids(hits) for hits in many] == [ids(hits) for hits in one_by_one]
        assert [h.score for hits in many for h in hits] == pytest.approx(
            [h.score for hits in one_by_one for h in hits], abs=1e-6
        )
    assert index.search_many([]) == []
    with pytest.raises(ConfigError, match="query 1 is empty"):
        index.search_many(["red", None])


def test_adding_again_encodes_nothing_and_changes_nothing(index: Index, model: WordModel) -> None:
    before = model.encoded
    assert index.add(GOODS) == Added(unchanged=4)
    assert model.encoded == before and index.count() == 4


def test_changed_rows_are_replaced(index: Index, model: WordModel) -> None:
    before = model.encoded
    changed = [GOODS[0] | {"title": "green dress"}, GOODS[1] | {"price": 65}, *GOODS[2:]]
    assert index.add(changed) == Added(replaced=2, unchanged=2)
    assert model.encoded == before + 2 and index.count() == 4
    assert ids(index.search("green dress", top=1)) == ["d1"]
    assert index.search(like="d1", top=9, where="price = 65")[0].id == "d2"


def test_rows_without_ids_are_known_by_their_content(index: Index) -> None:
    rows = [{"title": "old map"}, {"title": "new map"}, {"title": "old map"}]
    assert index.add(rows) == Added(added=2, unchanged=1)
    assert index.add(rows[:1]) == Added(unchanged=1)
    assert index.count() == 6


def test_pictures_can_be_shown_without_their_files(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (800, 400), "green").save("hat.png")
    index.add([{"id": "p", "title": "hat.png"}, {"id": "g", "title": "gone.png"}])
    Path("hat.png").unlink()
    found = index.thumbnails(["d1", "p", "g"])
    assert found.keys() == {"p"}
    small = Image.open(io.BytesIO(found["p"]))
    assert small.size == (160, 80) and np.allclose(small.convert("RGB").getpixel((9, 9)), (0, 128, 0), atol=6)


def test_what_is_encoded_is_written_while_the_next_batch_is(
    tmp_path: Path, model: WordModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index.create(tmp_path / "i", model)  # type: ignore[arg-type]
    began, encode, write = threading.Event(), model.encode_entries, index._write
    waited = []

    def slow(*rows: Any) -> int:
        began.set()
        time.sleep(0.05)
        return write(*rows)

    def encoded(entries: Sequence[Entry]) -> list[Any]:
        waited.append(model.encoded and began.wait(5))
        return encode(entries)

    monkeypatch.setattr(index, "_write", slow)
    monkeypatch.setattr(model, "encode_entries", encoded)
    rows = [{"id": str(i), "title": f"thing {i}"} for i in range(4)]
    with pytest.raises(DataError, match="ids must differ"):
        index.add([*rows, rows[0]], batch=2)
    assert waited == [0, True] and index.count() == 4  # all that was encoded is there


def test_deleted_rows_do_not_come_back(index: Index, model: WordModel) -> None:
    assert index.delete(["d1", "nobody"]) == 1
    again = Index.open(index.path, model)  # type: ignore[arg-type]
    for i in (index, again):
        assert i.count() == 3 and "d1" not in ids(i.search("red dress", top=9))
    assert index.add(GOODS) == Added(added=1, unchanged=3)


def test_batches_are_committed_one_by_one(tmp_path: Path, model: WordModel) -> None:
    index = Index.create(tmp_path / "i", model)  # type: ignore[arg-type]
    seen = []
    rows = [{"id": str(i), "title": f"thing {i}"} for i in range(25)]
    index.add(rows, batch=10, progress=lambda done, total, what: seen.append((done, index.count())))
    assert seen == [(10, 10), (20, 20), (25, 25)]


def test_equal_ids_are_refused_and_both_rows_named(index: Index) -> None:
    with pytest.raises(DataError, match=r"line 1: the id 'x' is that of rows, line 0 too"):
        index.add([{"id": "x", "title": "a"}, {"id": "x", "title": "b"}])


def test_broken_and_empty_rows_are_counted_and_named(tmp_path: Path, model: WordModel) -> None:
    index = Index.create(tmp_path / "i", model)  # type: ignore[arg-type]
    rows = [{"id": str(i), "title": f"thing {i}"} for i in range(200)]
    rows[7]["title"], rows[9]["title"] = "broken", ""
    assert index.add(rows) == Added(added=198, empty=1, broken=1)
    named = [json.loads(line) for line in (index.path / "quarantine.jsonl").read_text().splitlines()]
    assert [(row["line"], row["column"], row["rule"]) for row in named] == [(7, "title", "damaged")]
    with pytest.raises(DataError, match="2 of 4 rows"):
        index.add([{"id": f"b{i}", "title": "broken"} for i in range(2)] + rows[:2])


def test_another_model_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="another model") as caught:
        Index.open(index.path, WordModel(tmp_path / "other", "b" * 64))  # type: ignore[arg-type]
    assert caught.value.exit_code == 4


def test_a_model_that_has_moved_is_asked_for(index: Index) -> None:
    with pytest.raises(ConfigError, match="--model"):
        Index.open(index.path).search("red")


def test_wrong_use_is_named(index: Index, tmp_path: Path, model: WordModel) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        Index.open(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="not an index"):
        Index.open(tmp_path)
    with pytest.raises(ConfigError, match="not empty"):
        Index.create(index.path, model)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="store 'lance'"):
        Index.create(tmp_path / "new", model, store="lance")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="holds caption, title"):
        index.search("red", modality="sound")
    with pytest.raises(
        ConfigError, match=r"no row has a field 'weight'. There are: caption, colour, price, title"
    ):
        index.search("red", where="weight < 3")
    with pytest.raises(ConfigError, match="no row has the id 'd9'"):
        index.search(like="d9")
    with pytest.raises(ConfigError, match="top=0"):
        index.search("red", top=0)
    with pytest.raises(ConfigError, match="finite"):
        index.search(np.full(WIDTH, np.nan, np.float32))
    with pytest.raises(ConfigError, match="give a query"):
        index.search()


def test_a_page_says_what_the_scores_mean() -> None:
    sure = search_page("x", [Hit("1", 0.5, "a", {}, match=0.931, above=0.9987)])
    assert "match 93%" in sure and "Match: the probability" in sure and "Above:" not in sure
    alone = search_page("x", [Hit("1", 0.5, "a", {}, above=0.9999)], first=11)
    assert "above &gt;99.9%" in alone
    assert "11. 1" in alone and "Places 11 to 11" in alone and "Match:" not in alone
