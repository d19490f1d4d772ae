"""What is seen of a run: its page, its timing, trackers, and the list of runs."""

from __future__ import annotations

import io
import json
import re
import sys
import types
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from motet.errors import ConfigError, Interrupted
from motet.train.charts import Curve, chart
from motet.train.loop import TrainConfig, train
from motet.train.page import run_page
from motet.train.run import Reporter, RunFolder, read_lines
from motet.train.runs import length, runs_in, what_differs
from motet.train.track import make_tracker, scalars
from tests.train.training_fakes import FakeLoader, make

CONFIG = TrainConfig(epochs=3, lr=3e-3, log_steps=2, checkpoint_seconds=0, metric="loss")
VOID = {"meta", "link", "br", "path", "input", "img"}


def run_once(path: Path, *, stop_at: int = -1, resume: bool = False, config: TrainConfig = CONFIG) -> None:
    model, objective = make()
    identity = {"seed": 0, "config": {"train": {"metric": config.metric, "lr": config.lr}}}
    run = RunFolder(path, identity, resume=resume)
    loader = FakeLoader(poisoned=frozenset({1}))
    train(
        model, objective, loader, FakeLoader(seed=7, steps=2), config, run=run,
        stop=lambda step: step == stop_at,
    )  # fmt: skip


class Checker(HTMLParser):
    """Every tag is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag in VOID | {"rect", "circle"}

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> inside {self.open[-3:]}"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RUNS/a as it is, RUNS/b with another rate and stopped."""
    folder = tmp_path_factory.mktemp("runs")
    run_once(folder / "a")
    with pytest.raises(Interrupted):
        run_once(folder / "b", stop_at=6, config=replace(CONFIG, lr=1e-3))
    return folder


def test_the_page_shows_every_curve_and_is_whole(runs: Path) -> None:
    html = (runs / "a/run.html").read_text("utf-8")
    Checker(html)
    assert html.startswith("<!doctype html>") and "default-src 'none'" in html
    assert not re.search(r"https?://|@import|url\(", html)
    for title in (
        "Loss, mean of an epoch", "Parts of the loss, unweighted", "Norm of the gradient", "Learning rate",
        "Samples a second", "Memory, MiB", "Macro-F1", "Directions that embeddings use",
    ):  # fmt: skip
        assert f">{title}</h3>" in html, title
    for name in ("text", "sound", "shared", "mood", "contrastive"):
        assert f"</span>{name}<span" in html, name
    assert "Batches left out" in html and "1-0" in html and "not finite" in html


def test_the_page_of_a_run_without_a_step_is_whole(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", {"seed": 0, "config": {"data": {"root": "<b>"}}})
    html = run_page(tmp_path / "run")
    Checker(html)
    assert "&lt;b&gt;" in html and "<b>" not in html


def test_a_page_that_cannot_be_written_does_not_hide_the_end(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_once(tmp_path / "run", stop_at=2)
    (tmp_path / "run/run.html").unlink()
    (tmp_path / "run/run.html").mkdir()
    with pytest.raises(Interrupted):
        run_once(tmp_path / "run", stop_at=4, resume=True)


def test_timing_goes_on_where_the_run_does(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_once(tmp_path / "run", stop_at=5)
    with open(tmp_path / "run/timing.jsonl", "a") as file:  # as after kill -9
        file.write('{"step": 6, "seconds": 99, "samples": 1, "tokens": 1, "memory": 1}\n{"st')
    run_once(tmp_path / "run", resume=True)
    steps = [row["step"] for row in read_lines(tmp_path / "run/timing.jsonl")]
    assert steps == [row["step"] for row in read_lines(runs / "a/timing.jsonl")] == [4, 6, 8, 10, 12]
    seconds = [row["seconds"] for row in read_lines(tmp_path / "run/timing.jsonl")]
    assert seconds == sorted(seconds) and seconds[-1] < 90


def test_the_bar_says_losses_rates_speed_memory_and_the_time_left(tmp_path: Path) -> None:
    model, objective = make()
    reporter, shown = Reporter(), io.StringIO()
    reporter.live, reporter.console = True, Console(file=shown, force_terminal=True, width=400)
    run = RunFolder(tmp_path / "run", {"seed": 0, "config": {"train": {"metric": "loss"}}})
    train(model, objective, FakeLoader(), None, CONFIG, run=run, reporter=reporter)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())
    assert re.search(
        r"train .*12/12 +loss \d+\.\d{3}  contrastive \d+\.\d{3}  mood \d+\.\d{3}  lr \d\.\de-\d\d  "
        r"\d+ samples/s  \d+ tokens/s  \d+ MiB +\d+:\d\d:\d\d",
        text,
    ), text[-600:]


def test_runs_are_listed_with_what_differs(runs: Path) -> None:
    a, b = runs_in(runs)
    assert (a.path.name, b.path.name) == ("a", "b")
    assert (a.status, a.epochs, a.steps, a.skipped) == ("stopped", 3, 12, 1)
    assert b.epochs == 1 and b.steps == 6
    history = [row["val"]["loss"] for row in read_lines(runs / "a/metrics.jsonl") if row["kind"] == "epoch"]
    assert a.best == min(history) and a.metric == "loss"
    assert what_differs([a, b]) == {"config.train.lr": [3e-3, 1e-3]}
    assert runs_in(runs / "a") == [a]
    with pytest.raises(ConfigError, match="no run in it"):
        runs_in(runs / "a/checkpoints")
    assert [length(s) for s in (42, 210, 7560)] == ["42 s", "3.5 min", "2.1 h"]


def test_a_log_chart_leaves_out_what_it_cannot_draw() -> None:
    html = chart(
        [Curve("a", [1, 2, 3, 4], [0.01, 0.0, float("nan"), 100.0]), Curve("one", [1], [1])],
        title="t",
        log=True,
    )
    Checker(html)
    assert html.count('class="line"') == 1 and ">0.01<" in html and ">100<" in html
    assert chart([Curve("one", [1], [1])], title="t") == ""


def test_scalars_have_names_of_their_own() -> None:
    step = {"kind": "step", "step": 3, "epoch": 0, "loss": 1.5, "lr": {"text": 0.1}, "gradient": {"text": 2}}
    assert scalars(step) == {"train/loss": 1.5, "lr/text": 0.1, "gradient/text": 2.0}
    epoch = {"kind": "epoch", "step": 3, "epoch": 0, "train": {"loss": 1.0}, "val": {"R@10": 0.5, "x": None}}
    assert scalars(epoch) == {"train of epoch/loss": 1.0, "val/R@10": 0.5}


class Fake(types.ModuleType):
    """A tracker's package that writes down what it is told."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []
        self.info = types.SimpleNamespace(run_id="r1")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def called(*args: Any, **more: Any) -> Fake:
            self.calls.append((name, (args, more)))
            return self

        return called


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_trackers_get_every_line_and_go_on(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    config = replace(CONFIG, track=name)  # type: ignore[arg-type]
    with pytest.raises(Interrupted):
        run_once(tmp_path / "run", stop_at=6, config=config)
    run_once(tmp_path / "run", resume=True, config=config)
    logged = [call for kind, call in fake.calls if kind in ("log", "log_metrics")]
    rows = [row for row in read_lines(tmp_path / "run/metrics.jsonl")]
    assert [more["step"] for _, more in logged] == [row["step"] for row in rows]
    assert any("train/loss" in args[0] for args, _ in logged)
    begun = [call for kind, call in fake.calls if kind in ("init", "start_run")]
    assert len(begun) == 2
    if name == "mlflow":
        assert begun[1][1] == {"run_id": "r1"}
    else:
        assert begun[0][1] == begun[1][1] and begun[0][1]["resume"] == "allow"
    assert [kind for kind, _ in fake.calls][-1] in ("finish", "end_run")


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb.*pip install 'motet\[wandb\]'"):
        make_tracker("wandb", tmp_path, {})


def test_metrics_are_json(runs: Path) -> None:
    for line in (runs / "a/metrics.jsonl").read_text().splitlines():
        json.loads(line)
