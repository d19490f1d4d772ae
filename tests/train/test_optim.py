from __future__ import annotations

import itertools

import pytest
import torch

from motet.errors import ConfigError
from motet.model import parameter_groups
from motet.train.optim import GroupConfig, OptimConfig, make_optimizer, rate, set_rate
from tests.train.training_fakes import make


def test_groups_carry_their_own_rate_and_decay() -> None:
    model, _ = make()
    config = OptimConfig(lr=1e-2, weight_decay=0.1, groups={"text": GroupConfig(lr=0.5, weight_decay=0.3)})
    optimizer = make_optimizer(parameter_groups(model), config)
    assert {g["name"] for g in optimizer.param_groups} == {"text", "sound", "shared"}
    assert set_rate(optimizer, 0.1) == pytest.approx({"text": 5e-4, "sound": 1e-3, "shared": 1e-3})
    for group in optimizer.param_groups:
        decays = 0.3 if group["name"] == "text" else 0.1
        for p in group["params"]:
            assert group["weight_decay"] == (decays if p.ndim >= 2 else 0.0)
    held = [name for group in optimizer.param_groups for name in group["parameters"]]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())


def test_frozen_parameters_are_left_out_and_unknown_groups_refused() -> None:
    model, _ = make()
    groups = parameter_groups(model)
    for _, p in groups["text"]:
        p.requires_grad_(False)
    names = {g["name"] for g in make_optimizer(groups, OptimConfig()).param_groups}
    assert names == {"sound", "shared"}
    with pytest.raises(ConfigError, match=r"train\.groups\.video.*shared, sound, text"):
        make_optimizer(groups, OptimConfig(groups={"video": GroupConfig()}))
    with pytest.raises(ConfigError, match="frozen"):
        make_optimizer({"text": groups["text"]}, OptimConfig())


@pytest.mark.parametrize("schedule", ["cosine", "constant", "linear", "wsd"])
def test_schedules(schedule: str) -> None:
    config = OptimConfig(schedule=schedule, warmup=0.1, decay=0.2, floor=0.05)  # type: ignore[arg-type]
    values = [rate(step, 100, config) for step in range(100)]
    assert values[0] == pytest.approx(0.1)
    assert values[9] == values[10] == 1.0
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))
    end = rate(100, 100, config)
    assert end == pytest.approx(1.0 if schedule == "constant" else 0.05)
    middle = {"cosine": 0.525, "linear": 0.525, "constant": 1.0, "wsd": 1.0}[schedule]
    assert rate(55, 100, config) == pytest.approx(middle)
    assert torch.isfinite(torch.tensor([rate(step, 1, config) for step in range(3)])).all()
