"""One suite of behaviour over all stores: each must do what the exact one does."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motet.errors import ConfigError
from motet.index.address import ModelRef, create_store, drop_store, new_pointer, open_store
from motet.index.exact import ExactStore
from motet.index.filter import parse_filter
from motet.index.store import Row, Store
from motet.types import Hit

WIDTH = 8
NEEDS = {
    "exact": (),
    "lancedb": ("lancedb",),
    "file": ("lancedb",),
    "qdrant": ("qdrant_client",),
    "milvus": ("pymilvus", "milvus_lite"),
}


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)


FIELDS: list[dict[str, Any]] = [
    {"price": 40, "colour": "red", "new": True},
    {"price": 12.5, "colour": "blue", "odd name'\"": 'it\'s "so"'},
    {"price": "30", "colour": None, "note": "x"},
    {"colour": "red; drop table rows --", "new": False, "tags": ["a", "b"]},
    {"price": float("nan"), "colour": "12"},
    {},
]


def row(i: int, *, seed: int | None = None, modalities: tuple[str, ...] = ("text", "image")) -> Row:
    seed = i if seed is None else seed
    vectors = {m: unit(1000 * k + seed) for k, m in enumerate(modalities)}
    fields = {"number": i} | FIELDS[i % len(FIELDS)]
    return Row(f"r'{i}\"", f"digest{seed}", fields, vectors, bytes([i]) * (i % 3))


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("milvus")
    command = [sys.executable, "-m", "milvus_lite", "server", "--data-dir", str(folder), "--port", str(port)]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"milvus://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture(params=sorted(NEEDS))
def address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store to test; Qdrant is its own client's in-process server, Milvus a server on this machine, and
    `file://` an address that LanceDB opens as it does those of object stores."""
    missing = [name for name in NEEDS[request.param] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{request.param}: {', '.join(missing)} is not installed (extras index, scale)")
    if request.param == "milvus":
        return str(request.getfixturevalue("milvus"))
    if request.param == "file":
        return f"file://{request.getfixturevalue('tmp_path') / 'bucket'}"
    if request.param == "qdrant":
        from qdrant_client import QdrantClient

        client = QdrantClient(":memory:")
        monkeypatch.setattr("motet.index.qdrant.connect", lambda address: client)
        return "qdrant://memory:6333"
    return str(request.param)


class Opened:
    """A store, and the same opened again."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder, self.pointer = folder, new_pointer(address, ModelRef("f" * 64, WIDTH))
        self.first = create_store(folder, self.pointer)

    def again(self) -> Store:
        return open_store(self.folder, self.pointer)


@pytest.fixture
def opened(tmp_path: Path, address: str) -> Iterator[Opened]:
    made = Opened(tmp_path, address)
    yield made
    drop_store(made.folder, made.pointer, made.first)


@pytest.fixture
def oracle(tmp_path: Path) -> ExactStore:
    return ExactStore.create(tmp_path / "oracle", WIDTH)


def same(found: list[Hit], expected: list[Hit]) -> None:
    assert [h.id for h in found] == [h.id for h in expected]
    assert [h.modality for h in found] == [h.modality for h in expected]
    assert np.allclose([h.score for h in found], [h.score for h in expected], atol=1e-5)


def test_it_finds_what_the_exact_store_finds(opened: Opened, oracle: ExactStore) -> None:
    rows = [row(i, modalities=("text", "image") if i % 3 else ("text",)) for i in range(60)]
    for store in (opened.first, oracle):
        store.write(rows[:40])
        store.write(rows[40:])
    for store in (opened.first, opened.again()):
        assert len(store) == 60 and store.modalities() == {"text", "image"}
        same(store.search(unit(9999), 10), oracle.search(unit(9999), 10))
        same(store.search(unit(9), 7, modality="image"), oracle.search(unit(9), 7, modality="image"))
        assert {h.id for h in store.search(unit(1), 1000)} == {r.id for r in rows}


def test_many_queries_are_answered_as_one_by_one(opened: Opened) -> None:
    opened.first.write([row(i, modalities=("text", "image") if i % 3 else ("text",)) for i in range(40)])
    queries = np.stack([unit(5000 + i) for i in range(37)])
    for modality, where in ((None, None), ("image", None), (None, parse_filter("number < 12"))):
        many = opened.first.search_many(queries, 5, modality=modality, where=where)
        assert len(many) == len(queries)
        for query, found in zip(queries, many, strict=True):
            same(found, opened.first.search(query, 5, modality=modality, where=where))


FILTERS = [
    "price < 35",
    "not price < 35",
    "price = 30",
    "price != 12.5",
    "colour = 'red'",
    "colour != 'red'",
    "colour = 'red; drop table rows --'",
    "colour in ('red', 'blue', '12')",
    "colour not in ('red', 'blue')",
    "colour = '12' or price >= 40",
    "colour is null",
    "colour is not null and not (price > 20 or colour = '12')",
    "tags is null",
    "new = true",
    "new != true",
    "note = 'x' and price = 30",
    "number >= 3 and number < 9",
    '"odd name\'" is null',
    "colour = 'nothing of this kind'",
]


@pytest.mark.parametrize("text", FILTERS)
def test_filters_mean_the_same_everywhere(opened: Opened, oracle: ExactStore, text: str) -> None:
    rows = [row(i) for i in range(12)]
    for store in (opened.first, oracle):
        store.write(rows)
    where = parse_filter(text)
    found = {h.id for h in opened.first.search(unit(3), 100, where=where)}
    assert found == {h.id for h in oracle.search(unit(3), 100, where=where)}
    assert found == {r.id for r in rows if where(r.fields)}


def test_text_is_ordered_or_the_store_says_that_it_cannot(opened: Opened) -> None:
    opened.first.write([row(i) for i in range(6)])
    try:
        found = opened.first.search(unit(1), 10, where=parse_filter("colour < 'c'"))
    except ConfigError as error:
        assert "orders numbers only" in str(error)
    else:
        assert {h.fields["colour"] for h in found} == {"blue", "12"}


def test_rows_are_replaced_and_deleted_for_good(opened: Opened) -> None:
    store = opened.first
    assert store.write([row(i) for i in range(10)]) == 0
    assert store.write([row(3, seed=77, modalities=("image",))]) == 1
    assert store.write(delete=[row(4).id, row(5).id, "unknown"]) == 2
    for s in (store, opened.again()):
        assert len(s) == 8
        assert s.digests([row(3).id, row(4).id, row(6).id]) == {row(3).id: "digest77", row(6).id: "digest6"}
        ids = [h.id for h in s.search(unit(4), 100)]
        assert len(ids) == len(set(ids)) == 8 and row(4).id not in ids
        assert row(3).id not in {h.id for h in s.search(unit(3), 100, modality="text")}
    assert store.write([row(4)]) == 0
    assert len(opened.again()) == 9


def test_rows_come_back_as_they_were_given(opened: Opened) -> None:
    rows = {r.id: r for r in (row(0), row(1, modalities=("image",)), row(3))}
    opened.first.write(list(rows.values()))
    back = {r.id: r for r in opened.first.rows()}
    assert back.keys() == rows.keys()
    for id, given in rows.items():
        got = opened.first.get(id)
        assert got is not None and opened.first.get("nobody") is None
        for r in (got, back[id]):
            assert (r.digest, r.fields, r.thumbnail) == (given.digest, given.fields, given.thumbnail)
            assert r.vectors.keys() == given.vectors.keys()
            assert all(np.allclose(r.vectors[m], given.vectors[m], atol=1e-6) for m in given.vectors)


def test_thumbnails_are_kept_beside_the_rows(opened: Opened) -> None:
    opened.first.write([row(i) for i in range(7)])
    opened.first.write([row(4, seed=77, modalities=("image",))], delete=[row(2).id])
    for store in (opened.first, opened.again()):
        found = store.thumbnails([row(i).id for i in range(9)])
        assert found == {row(i).id: row(i).thumbnail for i in (1, 4, 5)}


def test_fields_that_come_later_are_known(opened: Opened) -> None:
    store = opened.first
    assert len(store) == 0 and store.search(unit(1), 5) == []
    store.write([Row("a", "d", {"price": 1}, {"text": unit(1)})])
    assert store.has_field("price") and not store.has_field("size")
    store.write([Row("b", "d", {"size": 7}, {"text": unit(2)})])
    assert store.has_field("size") and store.fields() == {"price", "size"}
    assert [h.id for h in store.search(unit(1), 5, where=parse_filter("size = 7"))] == ["b"]
    assert [h.id for h in store.search(unit(1), 5, where=parse_filter("size is null"))] == ["a"]


def test_another_handle_sees_each_write(opened: Opened) -> None:
    other = opened.again()
    opened.first.write([row(1)])
    other.refresh()
    assert [h.id for h in other.search(unit(1), 5)] == [row(1).id]
    other.write([row(2)])
    opened.first.refresh()
    assert len(opened.first) == 2
    opened.first.flush()
    assert len(other) == 2


@pytest.mark.parametrize(
    "store",
    [
        "lance",
        "milvus://",
        "qdrant://a b",
        "http://x",
        "milvus://h:1/x",
        "exact://x",
        "s3://",
        "file:",
        "s3://key:secret@bucket/x",
        "s3://bucket/x?endpoint=y",
    ],
)
def test_an_unknown_store_is_refused(store: str) -> None:
    with pytest.raises(ConfigError, match="There are: exact, lancedb"):
        new_pointer(store, ModelRef("f", 8))


@pytest.mark.parametrize(
    ("store", "package", "extra"),
    [
        ("lancedb", "lancedb", "index"),
        ("milvus://h:1", "pymilvus", "scale"),
        ("qdrant://h", "qdrant_client", "scale"),
    ],
)
def test_what_is_not_installed_is_named(
    store: str, package: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"motet\[{extra}\]"):
        create_store(tmp_path, new_pointer(store, ModelRef("f", 8)))
