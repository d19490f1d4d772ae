"""kill -9 in the middle of training: the next run goes on from a whole checkpoint and ends the same.

MOTET_KILLS=200 for the long run. `benchmarks/kill.py` does it to `motet fit`, with workers and all signals.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from motet.checkpoint import load_folder
from motet.train.loop import TrainConfig, train
from motet.train.run import RunFolder
from tests.train.training_fakes import FakeLoader, make

CONFIG = TrainConfig(epochs=30, log_steps=1, checkpoint_steps=2, metric="loss")
KILLS = int(os.environ.get("MOTET_KILLS", "3"))
ROOT = Path(__file__).parents[2]


def run_to_the_end(path: Path) -> None:
    model, objective = make()
    run = RunFolder(path, {"seed": 0}, resume=path.exists())
    train(model, objective, FakeLoader(), FakeLoader(seed=7, steps=1), CONFIG, run=run)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_runs_end_bit_equal(tmp_path: Path) -> None:
    """Runs are killed again and again; one that ends all the same is compared, and the next begins."""
    run_to_the_end(tmp_path / "whole")
    draw = random.Random(0)
    killed, runs = 0, 0
    while killed < KILLS:
        cut, runs = tmp_path / f"cut-{runs}", runs + 1
        while killed < KILLS and not finishes(cut, draw.random() * 0.4):
            killed += 1
        run_to_the_end(cut)
        whole, other = (load_folder(path / "checkpoints/last") for path in (tmp_path / "whole", cut))
        assert whole.documents == other.documents
        assert all((value == other.tensors[name]).all() for name, value in whole.tensors.items())
        assert (cut / "metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
        assert runs <= KILLS + 3, "the child ends before it can be killed"


def finishes(path: Path, delay: float) -> bool:
    """Go on with the run in a child that is killed `delay` seconds after it logs; whether it ended before."""
    code = f"from tests.train.test_kill import *; run_to_the_end(Path({str(path)!r}))"
    log = path / "metrics.jsonl"
    before = log.stat().st_size if log.exists() else 0
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    give_up = time.monotonic() + 60
    while child.poll() is None and time.monotonic() < give_up:
        if log.exists() and log.stat().st_size != before:
            time.sleep(delay)  # somewhere in a step, a save or a validation
            break
        time.sleep(0.01)
    child.kill()
    ended = child.wait()
    assert ended in (0, -signal.SIGKILL)
    return ended == 0
