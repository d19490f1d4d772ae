"""Indexes under kill -9, several writers and a full disk. MOTET_KILLS=200 for the long run."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import resource
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from motet.errors import MismatchError, StorageError
from motet.index import Index, lance
from motet.index.address import unfinished
from tests.index.test_index import WordModel

KILLS = int(os.environ.get("MOTET_KILLS", "12"))
BATCH = 5
SERVER = multiprocessing.get_context("forkserver")  # children start from a process that has loaded torch
SERVER.set_forkserver_preload(["motet.index.index", "tests.index.test_index"])


def _write(path: Path, first: int, last: int, limit: int, said: Connection) -> None:
    index = Index.open(path, WordModel(path.parent / "model"))  # type: ignore[arg-type]
    said.send(first)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    rows = [{"id": str(i), "title": f"thing {i}", "price": i} for i in range(first, last)]
    try:
        index.add(rows, batch=BATCH, progress=lambda done, total, what: said.send(first + done))
    except StorageError as error:
        said.send(str(error))
        sys.exit(error.exit_code)


def _tend(path: Path, first: int, last: int, limit: int, said: Connection) -> None:
    """Add a little, merge all files and build the search index anew, again and again."""

    async def never(self: lance.LanceDatabase) -> bool:
        return False

    lance.INDEX_FROM = 100
    lance.LanceDatabase._indexed = never  # type: ignore[method-assign]
    index = Index.open(path, WordModel(path.parent / "model"))  # type: ignore[arg-type]
    said.send(first)
    for start in range(first, last, BATCH):
        index.add([{"id": str(i), "title": f"thing {i}", "price": i} for i in range(start, start + BATCH)])
        said.send(start + BATCH)
        index.flush()


class Writer:
    """A process that adds rows, and what it has acknowledged."""

    def __init__(self, path: Path, first: int, last: int, limit: int = 0, work: Any = _write) -> None:
        self.first = first
        self.pipe, theirs = SERVER.Pipe(duplex=False)
        self.process = SERVER.Process(target=work, args=(path, first, last, limit, theirs))
        self.process.start()
        theirs.close()

    def said(self) -> list[Any]:
        """All that it said, once it has ended."""
        lines = []
        with suppress(EOFError, OSError):
            while True:
                lines.append(self.pipe.recv())
        self.process.join()
        return lines


@pytest.fixture(params=["exact", "lancedb"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Index:
    if request.param != "exact" and importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed (extra index)")
    return Index.create(tmp_path / "shop.index", WordModel(tmp_path / "model"), request.param)  # type: ignore[arg-type]


def ids_in(index: Index) -> list[str]:
    """What a fresh look at it finds, by search and by reading all rows."""
    again = Index.open(index.path, WordModel(index.path.parent / "model"))  # type: ignore[arg-type]
    ids = sorted(hit.id for hit in again.search("thing", top=10**5))
    assert ids == sorted(row.id for row in again._store.rows())
    assert len(ids) == again.count()
    return ids


def test_what_was_acknowledged_survives_kill_9(index: Index) -> None:
    rng = np.random.default_rng(0)
    for round in range((KILLS + 3) // 4):  # four writers at once, each killed in the middle of its work
        start = BATCH * 1000 * round
        writers = [Writer(index.path, 10**7 * lane + start, 10**7 * lane + start + 5000) for lane in range(4)]
        for writer in writers:
            assert writer.pipe.recv() == writer.first
        last = {}
        for writer in writers:
            time.sleep(float(rng.uniform(0, 0.15)))
            writer.process.kill()
            last[writer.first] = max([writer.first, *writer.said()])
        ids = ids_in(index)
        assert len(set(ids)) == len(ids)
        for first, acknowledged in last.items():
            found = sorted(i for i in map(int, ids) if first <= i < first + 5000)
            assert acknowledged - first <= len(found) <= acknowledged - first + BATCH
            assert found == list(range(first, first + len(found)))
    rows = [{"id": str(i), "title": f"thing {i}", "price": i} for i in range(20)]
    added = index.add(rows)
    assert added.added + added.unchanged == 20 and added.replaced == 0


def test_kill_9_in_the_midst_of_merging_and_building(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    index = Index.create(tmp_path / "shop.index", WordModel(tmp_path / "model"), "lancedb")  # type: ignore[arg-type]
    index.add([{"id": str(i), "title": f"thing {i}", "price": i} for i in range(400)])
    rng = np.random.default_rng(1)
    last = 400
    for _ in range((KILLS + 1) // 2):
        writer = Writer(index.path, last, last + 10_000, work=_tend)
        assert writer.pipe.recv() == last
        time.sleep(float(rng.uniform(0, 1.0)))
        writer.process.kill()
        acknowledged = max([last, *writer.said()])
        ids = sorted(map(int, ids_in(index)))
        assert acknowledged <= len(ids) <= acknowledged + BATCH
        assert ids == list(range(len(ids)))
        last = len(ids)
    index.flush()
    assert index.search("thing 7", top=1)[0].id == "7"


def test_sixteen_writers_and_a_merging_lose_nothing(index: Index) -> None:
    writers = [Writer(index.path, 10 * i, 10 * i + 10) for i in range(16)]
    while any(writer.process.is_alive() for writer in writers):
        index.flush()
        assert len({hit.id for hit in index.search("thing", top=1000)}) <= 160
    for writer in writers:
        said = writer.said()
        assert writer.process.exitcode == 0, said
    assert sorted(map(int, ids_in(index))) == list(range(160))


def test_a_full_disk_is_said_and_nothing_is_lost(index: Index) -> None:
    rows = [{"id": str(i), "title": f"thing {i}", "price": i} for i in range(10)]
    index.add(rows)
    writer = Writer(index.path, 0, 2000, limit=6000 if index.store == "exact" else 3000)
    said = writer.said()
    assert writer.process.exitcode == 5, said
    assert "cannot write the index" in said[-1]
    ids = ids_in(index)
    assert set(map(str, range(10))) <= set(ids)
    assert index.add([{"id": "after", "title": "thing"}]).added == 1


def test_an_index_goes_over_to_another_model_while_it_is_read(index: Index, tmp_path: Path) -> None:
    rows = [{"id": str(i), "title": f"thing {i}", "price": i} for i in range(600)]
    index.add(rows)
    reader = Index.open(index.path, WordModel(tmp_path / "model"))  # type: ignore[arg-type]
    seen: list[int] = []

    def look(done: int, total: int, what: str) -> None:
        seen.append(len(reader.search("thing 7", top=1)))
        if len(seen) == 1:  # rows that others change meanwhile are not lost
            reader.add([{"id": "late", "title": "late thing"}, rows[3] | {"title": "changed"}])
            reader.delete("5")

    other = WordModel(tmp_path / "other", "b" * 64)
    assert index.reembed(other, progress=look) == 600  # type: ignore[arg-type]
    assert seen and set(seen) == {1}
    with pytest.raises(MismatchError, match="another model"):
        reader.search("thing 7")
    again = Index.open(index.path, other)  # type: ignore[arg-type]
    assert {row.id for row in again._store.rows()} == {str(i) for i in range(600) if i != 5} | {"late"}
    assert again.search("changed", top=1)[0].id == "3"
    assert len(list(index.path.glob("motet_*"))) == 1
    unchanged = [row for row in rows if row["id"] not in ("3", "5")]
    assert again.add(unchanged).unchanged == 598


def test_what_an_interrupted_create_leaves_is_no_obstacle(index: Index, tmp_path: Path) -> None:
    (index.path / "index.json").unlink()
    assert unfinished(index.path)
    again = Index.create(index.path, WordModel(tmp_path / "model"), index.store)  # type: ignore[arg-type]
    assert again.count() == 0
