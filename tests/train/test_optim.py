from __future__ import annotations

import itertools

import pytest
import torch

from motet.errors import ConfigError
from motet.model import parameter_groups
from motet.train.optim import GroupConfig, OptimConfig, Optimizers, rate
from tests.train.training_fakes import make


def test_every_modality_has_an_optimizer_of_its_own() -> None:
    model, _ = make()
    own = GroupConfig(lr=5e-3, weight_decay=0.3, schedule="constant", warmup=0.0, start=2)
    config = OptimConfig(
        lr=1e-2, weight_decay=0.1, schedule="linear", warmup=0.0, floor=0.0, groups={"text": own}
    )
    optimizers = Optimizers(parameter_groups(model), config)
    assert set(optimizers.each) == {"text", "sound", "shared"}
    assert optimizers.set_rates(0, 10, epoch=1) == pytest.approx({"text": 0.0, "sound": 1e-2, "shared": 1e-2})
    rates = optimizers.set_rates(5, 10, epoch=1, brakes={"sound": 0.5})
    assert rates == pytest.approx({"text": 5e-3, "sound": 2.5e-3, "shared": 5e-3})
    for name, optimizer in optimizers.each.items():
        for group in optimizer.param_groups:
            assert group["lr"] == rates[name]
            for p in group["params"]:
                assert group["weight_decay"] == ((0.3 if name == "text" else 0.1) if p.ndim >= 2 else 0.0)
    held = [optimizers.names[p] for name in optimizers.each for p in optimizers.of(name)]
    assert sorted(held) == sorted(name for name, _ in model.named_parameters())


def test_state_is_named_by_modality_and_comes_back_bit_for_bit() -> None:
    model, _ = make()
    optimizers = Optimizers(parameter_groups(model), OptimConfig())
    for p in optimizers.of("text"):
        p.grad = torch.ones_like(p)
    optimizers.step()
    saved = {name: value.clone() for name, value in optimizers.tensors().items()}
    assert saved and all(name.startswith("text/") for name in saved)
    other = Optimizers(parameter_groups(model), OptimConfig())
    other.load(saved)
    again = other.tensors()
    assert again.keys() == saved.keys() and all(torch.equal(again[name], saved[name]) for name in saved)


def test_a_group_can_be_clipped_by_itself() -> None:
    model, _ = make()
    optimizers = Optimizers(parameter_groups(model), OptimConfig(groups={"text": GroupConfig(clip=0.5)}))
    for p in optimizers.parameters:
        p.grad = torch.ones_like(p)
    before = optimizers.norms()
    optimizers.clip(0.0, torch.tensor(0.0))
    after = optimizers.norms()
    assert before["text"] > 1 and after["text"] == pytest.approx(0.5, rel=1e-4)
    assert after["sound"] == before["sound"] and after["shared"] == before["shared"]


def test_frozen_parameters_are_left_out_and_unknown_groups_refused() -> None:
    model, _ = make()
    groups = parameter_groups(model)
    for _, p in groups["text"]:
        p.requires_grad_(False)
    assert set(Optimizers(groups, OptimConfig()).each) == {"sound", "shared"}
    with pytest.raises(ConfigError, match=r"train\.groups\.video.*shared, sound, text"):
        Optimizers(groups, OptimConfig(groups={"video": GroupConfig()}))
    with pytest.raises(ConfigError, match="frozen"):
        Optimizers({"text": groups["text"]}, OptimConfig())


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
