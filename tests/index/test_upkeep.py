"""Small files are merged and the index is built in the background; searches go on and find everything."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motet.errors import StorageError
from motet.index import Index, lance, lance_tuning, parse_filter, upkeep
from motet.index.entries import EntryStore, field_key
from motet.index.store import Row
from tests.index.test_index import WordModel

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("lancedb"), reason="needs the extra index")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    monkeypatch.setattr("motet.index.lance.TEND_AFTER", 4)
    monkeypatch.setattr("motet.index.lance.INDEX_FROM", 300)
    monkeypatch.setattr("motet.index.lance.FEW", 10)
    return Index.create(tmp_path / "i", WordModel(tmp_path / "model"), "lancedb")  # type: ignore[arg-type]


def things(first: int, last: int) -> list[dict[str, Any]]:
    return [{"id": str(i), "title": f"thing {i}"} for i in range(first, last)]


def table(index: Index) -> Any:
    import lancedb

    return lancedb.connect(index.path / index._pointer.table).open_table("rows")


def test_small_files_are_merged_in_the_background(index: Index) -> None:
    index.add(things(0, 30), batch=5)
    index._upkeep.wait()
    assert table(index).stats()["fragment_stats"]["num_fragments"] < 4
    assert index.count() == 30


def test_an_index_is_built_and_takes_in_new_rows(index: Index) -> None:
    index.add(things(0, 400), batch=200)
    index._upkeep.wait()
    assert table(index).index_stats("vector_idx").num_unindexed_rows == 0
    index.add(things(400, 410))  # few: they are scanned
    assert not index._store.stale()
    assert index.search("thing 405", top=1)[0].id == "405"
    index.add(things(410, 500))
    index._upkeep.wait()
    assert table(index).index_stats("vector_idx").num_unindexed_rows == 0
    for i in (0, 250, 405, 499):
        assert index.search(f"thing {i}", top=1)[0].id == str(i)
    assert index.search("thing 3", top=1, where="title = 'thing 7'")[0].id == "7"


def test_under_a_filter_as_much_is_seen_as_without(index: Index) -> None:
    index.add([thing | {"number": i} for i, thing in enumerate(things(0, 400))])
    index.flush()
    database = index._store.database  # type: ignore[attr-defined]

    async def lists(where: str | None) -> int | None:
        sql = await database._sql(*([parse_filter(where).test] if where else []))
        how = await database._how(sql)
        return how and how.probes

    whole = lance._run(lists(None))
    assert whole and lance._run(lists("number < 100")) == 4 * whole
    assert lance._run(lists("number < 10")) is None  # so few are all compared
    for where in ("number < 100", "number < 10"):
        assert index.search("thing 7", top=1, where=where)[0].id == "7"


def test_as_much_is_searched_as_the_rows_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors without any clusters: the neighbours of each lie in most lists."""
    monkeypatch.setattr("motet.index.lance.INDEX_FROM", 1000)
    monkeypatch.setattr("motet.index.lance_tuning.PROBES", 1)
    vectors = np.random.default_rng(0).normal(size=(4000, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = EntryStore(lance.LanceDatabase(tmp_path, 32))
    store.write([Row(str(i), "d", {}, {"text": vector}) for i, vector in enumerate(vectors[:3900])])
    store.flush()
    again = EntryStore(lance.LanceDatabase(tmp_path, 32))
    how = lance._run(lance_tuning.tuning_of(again.database._table))  # type: ignore[attr-defined]
    assert how.probes > 5 and how.refine >= 4
    right = 0
    for query in vectors[3900:]:
        truth = {str(i) for i in np.argsort(-(vectors[:3900] @ query))[:10]}
        right += len(truth & {hit.id for hit in again.search(query, 10)})
    assert right >= 0.98 * 1000


def test_fields_by_which_one_filters_are_indexed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motet.index.lance.INDEX_FROM", 300)
    store = EntryStore(lance.LanceDatabase(tmp_path, 8))
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    fields = [
        {"price": i / 2, "colour": "red" if i % 3 else "blue", "new": i % 2 == 0, "said": f"{i} words " * 20}
        for i in range(400)
    ]
    store.write([Row(str(i), "d", fields[i], {"text": vector}) for i, vector in enumerate(vectors)])
    store.flush()
    table = store.database._table  # type: ignore[attr-defined]
    indexed = {name for index in lance._run(table.list_indices()) for name in index.columns}
    kept = {said: {kind for kind in "tnb" if kind + field_key(said) in indexed} for said in fields[0]}
    assert kept == {"price": {"n"}, "colour": {"t"}, "new": {"b", "n"}, "said": set()}
    found = store.search(vectors[0], 400, where=parse_filter("colour = 'blue' and new = true"))
    assert {hit.id for hit in found} == {str(i) for i in range(0, 400, 6)}


def test_a_table_of_an_earlier_layout_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("motet.index.lance.ENTRY", ["key", "id", "digest", "modality", "first", "fields"])
        lance.LanceDatabase(tmp_path, 4)
    for k in range(2):  # opened again each time
        store = EntryStore(lance.LanceDatabase(tmp_path, 4))
        store.write([Row(f"r{k}", "d", {"a": f"line\nof {k}"}, {"text": np.eye(4, dtype=np.float32)[k]})])
    hit = store.search(np.eye(4, dtype=np.float32)[1], 1)[0]
    assert (hit.id, hit.modality, hit.fields) == ("r1", "text", {"a": "line\nof 1"})
    assert store.get("r0") is not None and "hit" not in lance._run(store.database._table.schema()).names  # type: ignore[attr-defined]


def test_readers_do_not_wait_for_it(index: Index) -> None:
    index.add(things(0, 200))
    with upkeep.lock(index.path):  # as while it is under way
        index._upkeep.start()
        assert index.search("thing 7", top=1)[0].id == "7"
        assert index.count() == 200 and index.get("7") is not None
    index.flush()


def test_what_goes_wrong_in_the_background_is_said_by_the_next_flush(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise StorageError("no space")

    index.add(things(0, 20))
    monkeypatch.setattr(upkeep, "open_store", full)
    index._upkeep.start()
    with pytest.raises(StorageError, match="no space"):
        index.flush()
    index.flush()
    assert np.isclose(index.search("thing 3", top=1)[0].score, 1)
