"""The loop: exact resume, signals, bad batches, the best kept."""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from motet.checkpoint import load_folder
from motet.errors import ConfigError, DataError, Interrupted, MotetError
from motet.train.loop import Best, TrainConfig, train
from motet.train.run import RunFolder
from tests.train.training_fakes import FakeLoader, Said, make

CONFIG = TrainConfig(epochs=4, lr=3e-3, log_steps=3, ema=0.9, checkpoint_seconds=0, metric="loss")


def run_once(
    path: Path, *, resume: bool = False, stop_at: int = -1, config: TrainConfig = CONFIG, **more: object
) -> tuple[Best, dict[str, Tensor]]:
    model, objective = make()
    run = RunFolder(path, {"seed": 0}, resume=resume)
    best = train(
        model,
        objective,
        more.pop("loader", FakeLoader()),  # type: ignore[arg-type]
        FakeLoader(seed=7, steps=2),
        config,
        run=run,
        stop=lambda step: step == stop_at,
        **more,  # type: ignore[arg-type]
    )
    return best, model.state_dict()


def assert_equal_runs(a: Path, b: Path) -> None:
    one, two = load_folder(a / "checkpoints/last"), load_folder(b / "checkpoints/last")
    assert one.tensors.keys() == two.tensors.keys()
    for name, value in one.tensors.items():
        assert torch.equal(value, two.tensors[name]), name
    assert one.documents == two.documents
    assert (a / "metrics.jsonl").read_text() == (b / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Best, dict[str, Tensor]]:
    path = tmp_path_factory.mktemp("whole") / "run"
    best, weights = run_once(path)
    return path, best, weights


@pytest.mark.parametrize(
    "stops", [[4], [16], *(sorted(random.Random(i).sample(range(1, 17), 3)) for i in range(6))]
)
def test_stopped_and_resumed_ends_bit_equal(
    stops: list[int], whole: tuple[Path, Best, dict[str, Tensor]], tmp_path: Path
) -> None:
    for number, step in enumerate(stops):
        with pytest.raises(Interrupted, match="--resume"):
            run_once(tmp_path / "run", resume=number > 0, stop_at=step)
    torch.manual_seed(random.Random(str(stops)).randrange(1000))  # what came before must not matter
    best, weights = run_once(tmp_path / "run", resume=True)
    assert best == whole[1]
    assert all(torch.equal(value, weights[name]) for name, value in whole[2].items())
    assert_equal_runs(whole[0], tmp_path / "run")


def test_lines_logged_after_the_checkpoint_are_not_repeated(
    whole: tuple[Path, Best, dict[str, Tensor]], tmp_path: Path
) -> None:
    """As after kill -9: the log is ahead of the checkpoint and ends in half a line."""
    with pytest.raises(Interrupted):
        run_once(tmp_path / "run", stop_at=5)
    with open(tmp_path / "run/metrics.jsonl", "a") as file:
        file.write('{"kind": "step", "step": 6}\n{"kind": "st')
    run_once(tmp_path / "run", resume=True)
    assert_equal_runs(whole[0], tmp_path / "run")


def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    whole: tuple[Path, Best, dict[str, Tensor]], tmp_path: Path
) -> None:
    config = replace(CONFIG, checkpoint_steps=3)
    with pytest.raises(Interrupted):
        run_once(tmp_path / "run", stop_at=8, config=config)
    weights = tmp_path / "run/checkpoints/last/model.safetensors"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    said = Said()
    run_once(tmp_path / "run", resume=True, reporter=said)
    assert any("checkpoints/last/model" in line and "checkpoints/previous" in line for line in said.lines)
    assert_equal_runs(whole[0], tmp_path / "run")

    for path in (tmp_path / "run/checkpoints").glob("*/model.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no checkpoint is whole"):
        run_once(tmp_path / "run", resume=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_the_handler_comes_back(number: signal.Signals, tmp_path: Path) -> None:
    before = signal.getsignal(number)

    class Terminating(FakeLoader):
        def batches(self, epoch: int, start: int = 0):  # type: ignore[no-untyped-def]
            for position, batch in enumerate(super().batches(epoch, start)):
                if position == 2:
                    os.kill(os.getpid(), number)
                yield batch

    with pytest.raises(Interrupted) as caught:
        run_once(tmp_path / "run", loader=Terminating())
    assert caught.value.exit_code == 75
    assert load_folder(tmp_path / "run/checkpoints/last").documents["state.json"]["step"] == 3
    assert signal.getsignal(number) is before


def test_poisoned_batches_are_skipped_and_named(tmp_path: Path) -> None:
    _, weights = run_once(tmp_path / "run", loader=FakeLoader(poisoned=frozenset({2, 9})))
    assert all(value.isfinite().all() for value in weights.values())
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    skipped = [row for row in rows if row["kind"] == "skipped"]
    assert [row["step"] for row in skipped] == [3, 10]
    assert skipped[0]["ids"][0] == "2-0"


def test_too_many_bad_batches_in_a_row_stop(tmp_path: Path) -> None:
    loader = FakeLoader(poisoned=frozenset(range(3, 16)))
    with pytest.raises(MotetError, match=r"5 batches in a row.*train\.lr"):
        run_once(tmp_path / "run", loader=loader, config=replace(CONFIG, bad_steps=5))


def test_time_limit_ends_with_the_best_so_far(tmp_path: Path) -> None:
    best, _ = run_once(tmp_path / "run", time_limit=0.0)
    assert (best.step, best.why) == (1, "time limit reached")
    assert best.value is not None


def test_patience_ends_early_and_the_best_is_kept(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=60, lr=0.05, patience=2, ema=0.0, clip=0.0, weight_decay=0.0)
    best, _ = run_once(tmp_path / "run", config=config)
    assert "no better loss" in best.why
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    val = {row["step"]: row["val"]["loss"] for row in rows if row["kind"] == "epoch"}
    assert best.value == min(val.values()) == val[best.step]
    assert len(val) == best.epochs < 60


def test_learns_and_a_higher_metric_is_better(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=15, lr=1e-2, metric="mood.macro_f1")
    best, _ = run_once(tmp_path / "run", config=config)
    assert best.value is not None and best.value > 0.9


def test_unknown_metric_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'f1' is not measured.*mood\.macro_f1"):
        run_once(tmp_path / "run", config=replace(CONFIG, metric="f1"))


def test_bf16_trains_to_finite_fp32_weights(tmp_path: Path) -> None:
    _, weights = run_once(tmp_path / "run", config=replace(CONFIG, precision="bf16", epochs=1))
    assert all(
        v.dtype == torch.float32 and v.isfinite().all() for v in weights.values() if v.is_floating_point()
    )
