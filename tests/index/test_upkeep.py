"""Small files are merged and the index is built in the background; searches go on and find everything."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motet.errors import StorageError
from motet.index import Index, lance, parse_filter, upkeep
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
        return await database._how(sql)

    whole = lance._run(lists(None))
    assert whole and lance._run(lists("number < 100")) == 4 * whole
    assert lance._run(lists("number < 10")) is None  # so few are all compared
    for where in ("number < 100", "number < 10"):
        assert index.search("thing 7", top=1, where=where)[0].id == "7"


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
