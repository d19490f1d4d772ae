"""kill -9 in the middle of training: the next run goes on from a whole checkpoint and ends the same."""

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
ROOT = Path(__file__).parents[2]


def run_to_the_end(path: Path) -> None:
    model, objective = make()
    run = RunFolder(path, {"seed": 0}, resume=path.exists())
    train(model, objective, FakeLoader(), FakeLoader(seed=7, steps=1), CONFIG, run=run)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_killed_runs_end_bit_equal(tmp_path: Path) -> None:
    run_to_the_end(tmp_path / "whole")
    draw = random.Random(0)
    code = f"from tests.train.test_kill import *; run_to_the_end(Path({str(tmp_path / 'cut')!r}))"
    log = tmp_path / "cut/metrics.jsonl"
    killed = 0
    for _ in range(3):
        before = log.stat().st_size if log.exists() else 0
        child = subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        give_up = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < give_up:
            if log.exists() and log.stat().st_size != before:
                time.sleep(draw.random() * 0.4)  # somewhere in a step, a save or a validation
                child.kill()
                killed += 1
                break
            time.sleep(0.01)
        child.wait()
    assert killed >= 2
    run_to_the_end(tmp_path / "cut")
    whole, cut = (load_folder(tmp_path / name / "checkpoints/last") for name in ("whole", "cut"))
    assert whole.documents == cut.documents
    assert all((value == cut.tensors[name]).all() for name, value in whole.tensors.items())
    assert log.read_text() == (tmp_path / "whole/metrics.jsonl").read_text()
