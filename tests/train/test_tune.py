"""--tune: trials on validation rows alone, the defaults among them, resumable, and the best at the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from motet.checkpoint import load_folder
from motet.errors import ConfigError, Interrupted, MismatchError
from motet.train.job import Job
from motet.train.run import Reporter
from motet.train.tune import SPACE, Dimension, fit_tuned

pytest.importorskip("optuna", reason="needs the extra 'tune'")

SMALL = (
    *("model.width=16", "model.heads=2", "model.depth=1", "model.embedding=8", "train.epochs=2"),
    *("train.batch_size=16", "data.cache=false"),
)
SEARCHED = (
    Dimension("train.lr", 1e-5, 1e-2, log=True),
    Dimension("model.fusion", choices=("late", "attention")),
)
QUIET = Reporter(quiet=True)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    draw = np.random.default_rng(0)
    rows = ["features,mood"]
    for i in range(60):
        vector = draw.normal(size=3) + 2 * (i % 2)
        rows.append(f'"{json.dumps([round(float(v), 3) for v in vector])}",{"good" if i % 2 else "bad"}')
    (tmp_path / "things.csv").write_text("\n".join(rows))
    return Job(tmp_path / "things.csv", "mood", settings=SMALL, preset="scratch")


def tune(job: Job, out: Path, trials: int = 3, **more: object) -> Path:
    return fit_tuned(job, trials, out, QUIET, space=SEARCHED, **more)  # type: ignore[arg-type]


def test_the_best_trial_is_trained_and_only_it_sees_the_test_rows(job: Job, tmp_path: Path) -> None:
    out = tune(job, tmp_path / "run")
    kept = json.loads((tmp_path / "run.tune/trials.json").read_text())["trials"]
    assert len(kept) == 3 and kept[0]["params"] == {} and all(t["value"] <= 1 for t in kept)
    assert all(set(t["params"]) == {"train.lr", "model.fusion"} for t in kept[1:])
    best = max(kept, key=lambda t: t["value"])["params"]
    config = json.loads((out / "run.json").read_text())["config"]
    assert config["train"]["lr"] == best.get("train.lr", 2e-3)
    assert config["model"]["fusion"] == best.get("model.fusion", "late")
    assert load_folder(out).documents["metrics.json"]["part"] == "test"
    assert not list((tmp_path / "run.tune").glob("*/metrics.json"))


def test_stopped_and_resumed_it_tries_the_same(job: Job, tmp_path: Path) -> None:
    tune(job, tmp_path / "whole")
    steps: list[int] = []
    with pytest.raises(Interrupted):
        tune(job, tmp_path / "cut", stop=lambda step: bool(steps.append(step)) or len(steps) == 8)
    with pytest.raises(ConfigError, match="already holds trials"):
        tune(job, tmp_path / "cut")
    with pytest.raises(MismatchError, match="other data or settings"):
        tune(
            Job(job.table, "mood", settings=(*SMALL, "train.epochs=1"), preset="scratch"),
            tmp_path / "cut",
            resume=True,
        )
    tune(job, tmp_path / "cut", resume=True)
    trials = [(tmp_path / f"{name}.tune/trials.json").read_text() for name in ("whole", "cut")]
    assert trials[0] == trials[1]
    one, two = (load_folder(tmp_path / name).tensors for name in ("whole", "cut"))
    assert all((value == two[name]).all() for name, value in one.items())


def test_what_is_set_is_not_searched(job: Job, tmp_path: Path) -> None:
    said = Job(job.table, "mood", settings=(*SMALL, "train.lr=1e-3"), preset="scratch")
    out = fit_tuned(said, 2, tmp_path / "run", QUIET, space=SEARCHED)
    kept = json.loads((tmp_path / "run.tune/trials.json").read_text())["trials"]
    assert set(kept[1]["params"]) == {"model.fusion"}
    assert json.loads((out / "run.json").read_text())["config"]["train"]["lr"] == 1e-3
    all_said = Job(job.table, "mood", settings=("train.lr=1e-3", "model.fusion=late"), preset="scratch")
    with pytest.raises(ConfigError, match="nothing is left to choose"):
        fit_tuned(all_said, 2, tmp_path / "b", QUIET, space=SEARCHED)
    with pytest.raises(ConfigError, match="at least two trials"):
        tune(job, tmp_path / "c", trials=1)
    assert len({d.key for d in SPACE}) == len(SPACE)
