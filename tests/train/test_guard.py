"""Spikes and overflows: what is left out, what is not, and that weights stay finite."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from motet.checkpoint import load_folder
from motet.errors import Interrupted, MotetError
from motet.train.guard import FIRST, learn_level, rescale, spikes
from motet.train.loop import TrainConfig, train
from motet.train.run import RunFolder
from motet.train.state import State
from motet.types import TokenBatch
from tests.train.training_fakes import FakeLoader, make

CONFIG = TrainConfig(epochs=10, lr=3e-3, log_steps=1, checkpoint_seconds=0, metric="loss")


def used(losses: list[float]) -> State:
    state = State()
    for loss in losses:
        learn_level(loss, state)
    return state


def test_level_is_the_mean_and_variance_of_what_was_used() -> None:
    draw = random.Random(0)
    losses = [draw.gauss(3.0, 0.5) for _ in range(2000)]
    level = used(losses).level
    assert level["mean"] == pytest.approx(3.0, abs=0.25) and level["variance"] == pytest.approx(0.25, rel=0.6)
    assert level["first"] == max(losses[:FIRST])


def test_only_what_stands_far_above_training_and_its_start_is_a_spike() -> None:
    draw = random.Random(0)
    state = used(
        [2.0 + draw.gauss(0, 0.1) for _ in range(FIRST)] + [0.1 + draw.gauss(0, 0.01) for _ in range(400)]
    )
    assert not spikes(1.5, state, 10)  # a hard batch late in training: no more than at the start
    assert spikes(50.0, state, 10) and not spikes(50.0, state, 0)
    assert not spikes(-50.0, state, 10)
    assert not spikes(50.0, used([2.0] * (FIRST - 1)), 10)  # nothing is known yet


def test_the_scale_of_half_precision_falls_at_once_and_rises_slowly() -> None:
    state = State(scale=4.0)
    assert rescale(state, overflow=True) and state.scale == 2.0
    assert rescale(state, overflow=True) and not rescale(state, overflow=True)  # the scale is not to blame
    for _ in range(1000):
        assert not rescale(state, overflow=False)
    assert state.scale == 4.0


class Spiking(nn.Module):
    """An objective whose loss is a thousand times too large on one batch."""

    def __init__(self, objective: nn.Module, ids: str) -> None:
        super().__init__()
        self.objective, self.ids = objective, ids

    def forward(self, output: object, batch: TokenBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss, parts = self.objective(output, batch)
        return (loss * 1000 if batch.ids[0] == self.ids else loss), parts


def run_once(
    path: Path, *, spike: float = 10.0, stop_at: int = -1, resume: bool = False
) -> dict[str, torch.Tensor]:
    model, objective = make()
    run = RunFolder(path, {}, resume=resume)
    config = replace(CONFIG, spike=spike)
    train(
        model, Spiking(objective, "27-0"), FakeLoader(), FakeLoader(seed=7, steps=1), config, run=run,
        stop=lambda step: step == stop_at,
    )  # fmt: skip
    return model.state_dict()


def test_a_spike_is_skipped_named_and_resumes_bit_equal(tmp_path: Path) -> None:
    weights = run_once(tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    skipped = [row for row in rows if row["kind"] == "skipped"]
    assert [(row["step"], row["ids"][0]) for row in skipped] == [(28, "27-0")] and "spike" in skipped[0][
        "why"
    ]
    with pytest.raises(Interrupted):
        run_once(tmp_path / "cut", stop_at=25)
    again = run_once(tmp_path / "cut", resume=True)
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    run_once(tmp_path / "not", spike=0.0)
    one, two = (load_folder(tmp_path / name / "checkpoints/last").tensors for name in ("run", "not"))
    assert any(not torch.equal(value, two[name]) for name, value in one.items())


class Overflowing(nn.Module):
    """A model whose gradients overflow in half precision, for the scales above `limit`."""

    def __init__(self, model: nn.Module, limit: float) -> None:
        super().__init__()
        self.inner, self.limit, self.modalities = model, limit, model.modalities

    def forward(self, batch: TokenBatch) -> object:
        output = self.inner(batch)
        if torch.is_grad_enabled():
            output.predictions["mood"].register_hook(
                lambda g: g * math.inf if g.abs().max() > self.limit else g
            )
        return output


def test_fp16_finds_its_scale_skips_nothing_else_and_resumes_bit_equal(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=3, precision="fp16")

    def once(path: Path, *, stop_at: int = -1, resume: bool = False) -> dict[str, torch.Tensor]:
        model, objective = make()
        run = RunFolder(path, {}, resume=resume)
        train(
            Overflowing(model, 500.0), objective, FakeLoader(), FakeLoader(seed=7, steps=1), config, run=run,
            stop=lambda step: step == stop_at,
        )  # fmt: skip
        return model.state_dict()

    whole = once(tmp_path / "whole")
    assert all(v.isfinite().all() for v in whole.values() if v.is_floating_point())
    rows = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    skipped = [row for row in rows if row["kind"] == "skipped"]
    assert skipped and all(row["why"].startswith("fp16 overflow") for row in skipped)
    assert any(row["kind"] == "step" for row in rows)
    with pytest.raises(Interrupted):
        once(tmp_path / "cut", stop_at=5)
    cut = once(tmp_path / "cut", resume=True)
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    saved = json.loads((tmp_path / "cut/checkpoints/last/state.json").read_text())
    assert 1.0 <= saved["scale"] < 2.0**16


class Diverging(nn.Module):
    """A finite loss and gradients, and weights that the step itself makes infinite."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner, self.modalities = model, model.modalities

    def forward(self, batch: TokenBatch) -> object:
        if not self.training:
            with torch.no_grad():
                next(self.inner.parameters()).fill_(math.inf)
        return self.inner(batch)


def test_weights_that_are_not_finite_are_never_kept(tmp_path: Path) -> None:
    class NoRows(FakeLoader):
        def batches(self, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
            return super().batches(epoch, start)

    model, objective = make()
    run = RunFolder(tmp_path / "run", {})
    with pytest.raises(MotetError, match="no epoch ended with finite weights"):
        train(
            Diverging(model),
            objective,
            FakeLoader(),
            NoRows(seed=7, steps=1),
            replace(CONFIG, epochs=1),
            run=run,
        )
