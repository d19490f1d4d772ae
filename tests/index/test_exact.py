import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from motet.errors import ConfigError, DataError, StorageError
from motet.index.exact import ExactStore
from motet.index.filter import parse_filter
from motet.index.store import Row

WIDTH = 8


def unit(seed: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)
    return vector / np.linalg.norm(vector)


def row(i: int, *, seed: int | None = None, modalities: tuple[str, ...] = ("text", "image")) -> Row:
    seed = i if seed is None else seed
    vectors = {m: unit(1000 * k + seed) for k, m in enumerate(modalities)}
    return Row(f"r{i}", f"digest{seed}", {"number": i, "even": i % 2 == 0}, vectors)


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


@pytest.fixture
def store(tmp_path: Path) -> ExactStore:
    return ExactStore.create(tmp_path / "shop.index", WIDTH)


def test_the_nearest_rows_are_those_of_a_double_precision_oracle(store: ExactStore) -> None:
    rows = [row(i, modalities=("text", "image") if i % 3 else ("text",)) for i in range(300)]
    for start in range(0, 300, 37):  # several segments
        store.write(rows[start : start + 37])
    query = unit(9999)
    truth = sorted(
        ((max(float(v.astype(np.float64) @ query) for v in r.vectors.values()), r.id) for r in rows),
        reverse=True,
    )
    hits = store.search(query, 10)
    assert [h.id for h in hits] == [id for _, id in truth[:10]]
    assert np.allclose([h.score for h in hits], [s for s, _ in truth[:10]], atol=1e-6)
    images = sorted(
        ((float(r.vectors["image"].astype(np.float64) @ query), r.id) for r in rows if "image" in r.vectors),
        reverse=True,
    )
    hits = store.search(query, 5, modality="image")
    assert [h.id for h in hits] == [id for _, id in images[:5]]
    assert {h.modality for h in hits} == {"image"}


def test_a_filter_is_applied_before_the_rows_are_counted(store: ExactStore) -> None:
    store.write([row(i) for i in range(50)])
    hits = store.search(unit(3), 20, where=parse_filter("even = true and number < 20"))
    assert sorted(h.fields["number"] for h in hits) == list(range(0, 20, 2))


def test_rows_are_replaced_and_deleted_for_good(store: ExactStore, tmp_path: Path) -> None:
    store.write([row(i) for i in range(10)])
    assert store.write([row(3, seed=77)]) == 1
    assert store.write(delete=["r4", "r5", "unknown"]) == 2
    again = ExactStore(store.folder)
    for s in (store, again):
        assert len(s) == 8
        assert s.digests(["r3", "r4"]) == {"r3": "digest77"}
        ids = [h.id for h in s.search(unit(4), 100)]
        assert len(ids) == len(set(ids)) == 8 and "r4" not in ids


def test_merging_keeps_few_segments_and_every_row(store: ExactStore) -> None:
    for i in range(120):
        store.write([row(i)])
    for i in range(0, 120, 3):
        store.write(delete=[f"r{i}"])
    left = {f"r{i}" for i in range(120) if i % 3}
    assert {h.id for h in ExactStore(store.folder).search(unit(0), 1000)} == left
    manifest = json.loads((store.folder / "rows.json").read_text())
    assert len(manifest["segments"]) <= 8
    named = {f"{s['name']}{suffix}" for s in manifest["segments"] for suffix in (".npy", ".jsonl")}
    assert files(store.folder) == named | {"rows.json", "lock"}


def test_one_process_sees_what_another_wrote(store: ExactStore) -> None:
    other = ExactStore(store.folder)
    store.write([row(1)])
    assert [h.id for h in other.search(unit(1), 5)] == ["r1"]
    other.write([row(2)])
    store.refresh()
    assert len(store) == 2


def test_the_vectors_lie_on_disk_as_they_were_given(store: ExactStore) -> None:
    store.write([row(1), row(2)])
    again = ExactStore(store.folder).get("r2")
    assert again is not None and list(again.vectors) == ["text", "image"]
    assert all((again.vectors[m] == row(2).vectors[m]).all() for m in again.vectors)


@pytest.mark.parametrize("suffix", [".npy", ".jsonl"])
def test_a_flipped_bit_is_noticed(store: ExactStore, suffix: str) -> None:
    store.write([row(i) for i in range(5)])
    path = next(p for p in store.folder.iterdir() if p.suffix == suffix)
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with pytest.raises(DataError, match="SHA-256 differs"):
        ExactStore(store.folder)


def test_a_missing_segment_is_named(store: ExactStore) -> None:
    store.write([row(1)])
    next(p for p in store.folder.iterdir() if p.suffix == ".npy").unlink()
    with pytest.raises(DataError, match=r"seg-\w+\.npy is missing"):
        ExactStore(store.folder)


def test_a_manifest_of_another_format_is_refused(store: ExactStore) -> None:
    manifest = json.loads((store.folder / "rows.json").read_text())
    (store.folder / "rows.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(DataError, match="format 2"):
        ExactStore(store.folder)


def test_nothing_is_created_over_other_files(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="not empty"):
        ExactStore.create(tmp_path, WIDTH)
    assert files(tmp_path) == {"mine.txt"}


def test_a_failed_write_changes_nothing(store: ExactStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write([row(i) for i in range(5)])

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    before = files(store.folder)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"No space.*whole"):
        store.write([row(9)])
    monkeypatch.undo()
    assert len(ExactStore(store.folder)) == 5
    assert files(store.folder) == before
    store.write([row(9)])
    assert len(ExactStore(store.folder)) == 6


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_exact import row
from motet.index.exact import ExactStore
store = ExactStore(Path(sys.argv[1]))
for i in range(int(sys.argv[3]), int(sys.argv[4])):
    store.write([row(5 * i + k) for k in range(5)])
    print(i, flush=True)
"""


def write_in_another_process(folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    arguments = [str(folder), str(Path(__file__).parent), str(first), str(last)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)


def test_what_was_acknowledged_survives_kill_9(store: ExactStore) -> None:
    rng = np.random.default_rng(0)
    for _ in range(4):
        first = len(store) // 5
        process = write_in_another_process(store.folder, first, 10**6)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0, 0.2)))
        process.send_signal(signal.SIGKILL)
        acknowledged = first + 1 + len([line for line in process.stdout if line.endswith("\n")])
        process.wait()
        store = ExactStore(store.folder)
        assert 5 * acknowledged <= len(store) <= 5 * (acknowledged + 1)
        ids = [h.id for h in store.search(unit(1), 10**6)]
        assert len(ids) == len(set(ids)) == len(store)


def test_several_writers_lose_nothing(store: ExactStore) -> None:
    writers = [write_in_another_process(store.folder, 10 * i, 10 * i + 10) for i in range(3)]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.read()
        assert writer.wait() == 0
    assert {h.id for h in store.search(unit(1), 1000)} == {f"r{i}" for i in range(150)}
