"""Batches from worker processes: the same as without, whoever is killed on the way."""

import csv
import functools
import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from motet.data.augment import AugmentConfig
from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.loader import Loader, LoaderConfig
from motet.data.paths import resolve_media
from motet.data.processor import make_processor
from motet.data.table import open_table
from motet.data.workers import Parcel, Pool
from motet.errors import DataError, MotetError
from motet.types import ModalitySpec, Piece, Sample
from tests.data.test_loader import same

SPECS = [ModalitySpec("photo", "image", "vectors", 12), ModalitySpec("sound", "audio", "vectors", 160)]


class Rows:
    """Slow enough that a worker can be killed at its work."""

    fingerprint = "rows"

    def __init__(self, count=120, seconds=0.0):
        self.count, self.seconds = count, seconds

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        time.sleep(self.seconds)
        values = np.random.default_rng(i).random((4, 12), np.float32)
        photo = Piece(values, np.zeros(4, np.float32), labels=("a", "b", "c", "d"))
        n = 5 + i % 7
        sound = Piece(np.ones((n, 160), np.float32), np.arange(n, dtype=np.float32))
        return Sample(str(i), {"photo": photo, "sound": sound}, {"y": i % 3}, group=str(i // 2))


def loader(rows=None, workers=2, kind="process", **config):
    config = LoaderConfig(**{"batch_size": 8, **config}, workers=workers, kind=kind)
    return Loader(
        rows or Rows(),
        SPECS,
        {"y": "classes"},
        config,
        seed=3,
        shuffle=True,
        modality_dropout=0.5,
        spec_augment=True,
        augment=AugmentConfig(),
        labels=True,
    )


def killed(pid):
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def test_processes_give_what_this_process_would_and_survive_kills():
    """Killed at work in the second epoch: nothing lost, nothing repeated."""
    whole = [list(loader(workers=0).batches(epoch)) for epoch in range(2)]
    one = loader(Rows(seconds=0.002))
    for epoch, start in ((0, 0), (1, 4)):
        got = []
        for batch in one.batches(epoch, start):
            got.append(batch)
            if epoch == 0 and len(got) == 1:
                pids = {worker.process.pid for worker in one._pool.workers}
            if epoch == 1 and len(got) in (2, 5):
                killed(one._pool.workers[len(got) % 2].process.pid)
        assert len(got) == len(whole[epoch]) - start
        for a, b in zip(got, whole[epoch][start:], strict=True):
            assert same(a, b) and torch.equal(a.targets["y"], b.targets["y"]) and a.labels == b.labels
            assert torch.equal(a.values["photo"], b.values["photo"])
    assert len(list(one.batches(2))) == len(whole[0])  # one that died with nothing left to do is noticed here
    assert not pids & {worker.process.pid for worker in one._pool.workers}  # both were replaced
    one.close()
    assert not one._pool.workers


def test_a_death_is_noticed_within_five_seconds():
    pool = Pool(time.sleep, 1)
    results = pool.results([0.0, 600.0, 0.0], str)
    next(results)
    worker = pool.workers[0]
    first = worker.process
    begin = killed(first.pid)
    done = {}
    pool._gather(done, str)
    assert time.monotonic() - begin < 5 and worker.process.pid != first.pid and 1 in worker.held
    pool.close()


def stamped(seconds):
    """Who worked when, and what does not fit into a pipe."""
    begin = time.time()
    time.sleep(seconds)
    return Parcel((os.getpid(), begin), [np.zeros(2**22, np.uint8)])


def test_workers_share_evenly_and_work_on_while_nobody_reads():
    pool = Pool(stamped, 2)
    list(pool.results([0.0] * 4, str))  # both have started
    counts = Counter(parcel.rest[0] for parcel in pool.results([0.4] * 6, str))
    assert sorted(counts.values()) == [3, 3]
    results = pool.results([0.1] * 6, str)
    found = [next(results)]
    time.sleep(1)
    read_on = time.time()
    found += list(results)
    begins = sorted(parcel.rest[1] for parcel in found)
    assert begins[3] < read_on  # the second task of each, whose first had not been read
    assert all(len(parcel.arrays[0]) == 2**22 for parcel in found)
    pool.close()


def test_a_broken_row_is_said_here_and_a_task_that_kills_its_worker_named():
    pool = Pool(functools.partial(resolve_media, root=Path(), where="here"), 1)
    with pytest.raises(DataError, match="here: '/a' is an absolute path") as error:
        list(pool.results(["/a"], str))
    assert error.value.rule == "refused path"
    pool.close()
    pool = Pool(os._exit, 1)
    with pytest.raises(MotetError, match=r"died 3 times at task 7 .*exit code 7"):
        list(pool.results([7], lambda task: f"task {task}"))
    pool.close()


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "image", "label"])
        for i in range(40):
            Image.fromarray(rng.integers(0, 256, (20, 20, 3), np.uint8)).save(tmp_path / f"{i}.png")
            writer.writerow([f"some words {i}", f"{i}.png", "yes" if i % 3 else "no"])
    return tmp_path


def test_a_table_goes_to_the_workers(folder):
    table = open_table(folder / "table.csv")
    columns = infer_columns(table, label="label")
    processors = {
        "text": make_processor("text", "text", None, None, lambda: table.column("text")),
        "image": make_processor("image", "image"),
    }

    def batches(count, kind="process", memory=2**30):
        data = Dataset(table, columns, processors, range(len(table)), memory_bytes=memory)
        data.prepare()
        config = LoaderConfig(batch_size=16, tokens=1200, workers=count, kind=kind)
        specs = [p.spec for p in processors.values()]
        one = Loader(data, specs, data.targets, config, seed=1, shuffle=True)
        found = list(one.batches(0))
        one.close()
        return found

    here = batches(0)
    assert sum(len(b.ids) for b in here) == 40 and max(b.layout.tokens for b in here) <= 1200
    assert all(map(same, batches(1, memory=0), here)) and all(map(same, batches(2, "thread"), here))
