"""`torchrun -m motet fit`, as a person starts it: two processes, one run folder, the model of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from motet.checkpoint import load_folder
from motet.train.fit import fit
from motet.train.run import Reporter

SETTINGS = (
    *("model.width=16", "model.heads=2", "model.depth=1", "model.embedding=8", "train.epochs=2"),
    *("train.batch_size=16", "data.cache=false", "model.dropout=0", "model.head_dropout=0"),
    *("train.modality_dropout=0", "train.log_steps=1"),
)


def test_two_processes_leave_the_model_of_one(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = ["features,other_features,mood"]
    for i in range(60):
        one, two = (json.dumps([round(float(v), 3) for v in draw.normal(size=3) + 2 * (i % 2)]) for _ in "ab")
        rows.append(f'"{one}","{"" if i % 7 == 0 else two}",{"good" if i % 2 else "bad"}')
    (tmp_path / "things.csv").write_text("\n".join(rows))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "motet", "fit", str(tmp_path / "things.csv"), "--label", "mood", "--preset", "scratch"]
    command += ["--out", str(tmp_path / "two"), *(part for said in SETTINGS for part in ("--set", said))]
    quiet = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "two")]  # one of them speaks for both
    one = fit(
        tmp_path / "things.csv", label="mood", out=tmp_path / "one", settings=SETTINGS, preset="scratch",
        progress=Reporter(quiet=True),
    )  # fmt: skip
    expected, found = load_folder(one), load_folder(tmp_path / "two")
    for name, value in expected.tensors.items():
        assert float((found.tensors[name] - value).abs().max()) < 1e-4, name
    logs = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert len(logs[0]) == len(logs[1])
