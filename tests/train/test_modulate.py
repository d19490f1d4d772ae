"""A modality that is ahead is slowed; the others are not."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from motet.errors import ConfigError
from motet.losses import LossConfig, Objective
from motet.model import Motet
from motet.train.loop import TrainConfig, train
from motet.train.modulate import brakes, check_modulation
from motet.train.run import RunFolder
from tests.train.training_fakes import CONFIG, FakeLoader


def test_the_brake_is_the_formula() -> None:
    parts = {"alone/a/mood": 0.9, "alone/b/mood": 0.5, "alone/c/mood": 0.4, "late/a/mood": 7.0, "mood": 1.0}
    found = brakes(parts, 0.5)
    assert found["a"] == pytest.approx(1 - math.tanh(0.5 * (0.9 / 0.45 - 1)))
    assert found["b"] == found["c"] == 1.0
    assert brakes(parts, 0.0) == {} and brakes({"mood": 1.0}, 0.5) == {}
    assert brakes({"alone/a/mood": 0.9}, 0.5) == {"a": 1.0}


def test_only_the_modality_ahead_moves_less(tmp_path: Path) -> None:
    config = replace(CONFIG, late_heads=True)

    def moved(modulation: float) -> tuple[dict[str, Tensor], list[dict]]:
        torch.manual_seed(0)
        model, objective = Motet(config), Objective(LossConfig(), config)
        with torch.no_grad():  # sound is sure of one class, which most samples have
            model.late["sound"][0].out.bias.copy_(torch.tensor([0.0, 3.0]))  # type: ignore[index, union-attr, operator]
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        chosen = TrainConfig(
            epochs=1, weight_decay=0.0, warmup=0.0, log_steps=1, modulation=modulation, checkpoint_seconds=0
        )
        run = RunFolder(tmp_path / str(modulation), {})
        train(model, objective, FakeLoader(seed=2, steps=1), None, chosen, run=run)
        change = {name: p.detach() - before[name] for name, p in model.named_parameters()}
        return change, run.history()

    (free, _), (slowed, log) = moved(0.0), moved(2.0)
    row = log[0]
    share = brakes(row, 2.0)
    ahead = min(share, key=lambda name: share[name])
    assert share[ahead] < 0.95
    assert row["lr"][ahead] == pytest.approx(share[ahead] * row["lr"]["shared"])
    for name, change in free.items():
        key = next((m for m in ("text", "sound") if m in name.split(".")), "shared")
        assert torch.allclose(slowed[name], change * share.get(key, 1.0), rtol=1e-3, atol=1e-7), name


def test_it_needs_heads_of_single_modalities() -> None:
    check_modulation(0.0, CONFIG)
    check_modulation(0.5, replace(CONFIG, late_heads=True))
    with pytest.raises(ConfigError, match=r"model\.late_heads=true"):
        check_modulation(0.5, CONFIG)
