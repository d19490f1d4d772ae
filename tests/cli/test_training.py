"""fit --dry-run, fit --tune, runs: on the command line, on a tiny table of features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from motet.cli.app import app
from motet.errors import ConfigError

SMALL = (
    "model.width=16",
    "model.heads=2",
    "model.depth=1",
    "model.embedding=8",
    "train.epochs=2",
    "data.cache=false",
)


def motet(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "things.csv"
    draw = np.random.default_rng(0)
    rows = ["features,mood"]
    for i in range(60):
        vector = draw.normal(size=3) + 2 * (i % 2)
        rows.append(f'"{json.dumps([round(float(v), 3) for v in vector])}",{"good" if i % 2 else "bad"}')
    path.write_text("\n".join(rows))
    return path


def fit(table: Path, *more: str) -> str:
    said = [part for setting in SMALL for part in ("--set", setting)]
    return motet("fit", str(table), "--label", "mood", "--preset", "scratch", *said, *more)


def test_a_dry_run_says_what_would_be_trained_and_leaves_nothing(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = json.loads(fit(table, "--dry-run", "--json"))
    assert sum(found["rows"][part] for part in ("train", "val", "test")) == 60
    assert found["modalities"][0]["name"] == "features" and found["modalities"][0]["numbers a token"] == 3
    assert sum(found["parameters"].values()) == found["trained"] > 0 and found["steps"] == 4
    text = fit(table, "--dry-run")
    assert "features" in text and f"{found['trained']:,}" in text
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="one of them at a time"):
        fit(table, "--dry-run", "--tune", "3")


def test_runs_are_listed_and_compared(table: Path, tmp_path: Path) -> None:
    fit(table, "--out", str(tmp_path / "runs/a"))
    fit(table, "--out", str(tmp_path / "runs/b"), "--set", "train.lr=1e-3", "--seed", "1")
    lines = [json.loads(line) for line in motet("runs", str(tmp_path / "runs"), "--json").splitlines()]
    assert [Path(line["run"]).name for line in lines] == ["a", "b"]
    assert all(line["status"] == "done" and line["epochs"] == 2 and line["seconds"] > 0 for line in lines)
    assert lines[0]["differs"] == {"config.train.lr": 2e-3, "seed": 0}
    assert lines[1]["differs"] == {"config.train.lr": 1e-3, "seed": 1}
    for line in lines:
        metrics = json.loads((Path(line["run"]) / "metrics.json").read_text())
        assert line["test"]["mood.macro_f1"] == metrics["tasks"]["mood"]["full"]["macro_f1"]
        page = (Path(line["run"]) / "run.html").read_text()
        assert "On rows that it never saw" in page and "Done: 2 epochs" in page
    text = motet("runs", str(tmp_path / "runs"))
    assert "config.train.lr" in text and "0.002" in text and "0.001" in text
