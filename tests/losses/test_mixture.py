"""Objectives in one model: learned balance, several kinds of task, hidden features, sample weights."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from motet.errors import ConfigError
from motet.losses import LossConfig, Objective
from motet.losses.objective import WIDEST_LOG_VARIANCE
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.types import Layout, ModalitySpec, TokenBatch

CONFIG = MotetConfig(
    modalities=(
        ModalitySpec("text", "text", "ids", 20),
        ModalitySpec("sound", "audio", "vectors", 6, pretrained="some encoder"),
    ),
    mot=MoTConfig(block=BlockConfig(width=16, heads=2), depth=2, attend=("own", "global")),
    tasks=(
        TaskSpec("stars", "classes", ("1", "2", "3"), ordinal=True),
        TaskSpec("tags", "multilabel", ("red", "loud")),
        TaskSpec("price", "number", mean=3.0, std=2.0),
    ),
    embedding=8,
    late_heads=True,
    guess_hidden=True,
)
HIDDEN = torch.tensor([2, 5])  # samples whose sound was dropped


def batch(weight: Tensor | None = None) -> TokenBatch:
    draw = torch.Generator().manual_seed(0)
    sounds = [i for i in range(6) if i not in HIDDEN.tolist()]
    modality = torch.tensor([0] * 12 + [1] * len(sounds))
    sample = torch.tensor([*(i // 2 for i in range(12)), *sounds])
    layout, _ = Layout.build(("text", "sound"), modality, sample, samples=6)
    hidden = torch.full((6, 6), math.nan)
    hidden[HIDDEN] = torch.randn(2, 6, generator=draw)
    targets = {
        "stars": torch.tensor([0, 1, 2, -100, 1, 0]),
        "tags": torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0], [math.nan] * 2, [0, 1]]),
        "price": torch.tensor([1.0, 2.0, math.nan, 4.0, 5.0, 9.0]),
        "hidden/sound": hidden,
    }
    values = {
        "text": torch.randint(0, 20, (12,), generator=draw),
        "sound": torch.randn(4, 6, generator=draw),
    }
    return TokenBatch(layout, values, targets, torch.arange(6), tuple("abcdef"), weight=weight)


def made(config: LossConfig) -> tuple[Motet, Objective]:
    torch.manual_seed(0)
    return Motet(CONFIG).double().eval(), Objective(config, CONFIG).double()


def doubled(value: TokenBatch) -> TokenBatch:
    return replace(value, values={k: v.double() if k == "sound" else v for k, v in value.values.items()})


def test_every_kind_of_task_is_a_part_and_reaches_its_weights() -> None:
    model, objective = made(LossConfig(focal=1.0))
    given = doubled(batch())
    total, parts = objective(model(given), given)
    assert {"contrastive", "stars", "tags", "price", "hidden", "late/text/tags", "alone/sound/stars"} <= set(
        parts
    )
    assert float(total.detach()) == pytest.approx(
        sum(float(parts[p]) for p in ("contrastive", "stars", "tags", "price", "hidden"))
        + 0.5 * sum(float(v) for k, v in parts.items() if k.startswith("late/")) / 6
    )
    total.backward()
    for name, parameter in (*model.guess.named_parameters(), *model.heads.named_parameters()):
        assert parameter.grad is not None and bool((parameter.grad != 0).any()), name


def test_alone_is_the_mean_share_of_the_right_class() -> None:
    model, objective = made(LossConfig())
    given = doubled(batch())
    output = model(given)
    _, parts = objective(output, given)
    shares = []
    for i, y in enumerate(given.targets["stars"].tolist()):
        if y >= 0 and i not in HIDDEN.tolist():
            row = output.modality_predictions["sound"]["stars"][i].tolist()
            shares.append(math.exp(row[y]) / sum(map(math.exp, row)))
    assert float(parts["alone/sound/stars"]) == pytest.approx(sum(shares) / len(shares), abs=1e-6)


def test_samples_of_no_weight_count_for_nothing() -> None:
    model, objective = made(LossConfig(weights={"contrastive": 0.0}))
    whole = doubled(batch(torch.tensor([1.0, 1, 1, 1, 0, 0])))
    other = replace(
        whole,
        targets={
            "stars": torch.tensor([0, 1, 2, -100, 2, 2]),
            "tags": torch.cat([whole.targets["tags"][:4], torch.ones(2, 2)]),
            "price": torch.cat([whole.targets["price"][:4], torch.tensor([99.0, -99.0])]),
            "hidden/sound": whole.targets["hidden/sound"].clone(),
        },
    )
    other.targets["hidden/sound"][5] = 7.0
    one, two = (float(objective(model(given), given)[0].detach()) for given in (whole, other))
    assert one == two
    even = float(objective(model(whole), replace(whole, weight=torch.full((6,), 0.3)))[0].detach())
    none = float(objective(model(whole), replace(whole, weight=None))[0].detach())
    assert even == pytest.approx(none, abs=1e-6) and even != pytest.approx(one, abs=1e-3)


def test_learned_uncertainty_is_the_formula() -> None:
    model, objective = made(LossConfig(balance="uncertainty", regression="mse", weights={"tags": 2.0}))
    draw = torch.tensor([0.3, -0.7, 1.1, 0.5, -0.2, 0.9], dtype=torch.float64)
    with torch.no_grad():
        objective.log_variance.copy_(draw)
    given = doubled(batch())
    total, parts = objective(model(given), given)
    late = sum(float(v) for k, v in parts.items() if k.startswith("late/")) / 6
    values = [float(parts[p]) for p in ("contrastive", "stars", "tags", "price")] + [
        late,
        float(parts["hidden"]),
    ]
    expected = 0.0
    for s, value, weight, half in zip(
        draw.tolist(), values, (1, 1, 2, 1, 0.5, 1), (1, 1, 1, 0.5, 1, 1), strict=True
    ):
        expected += weight * (half * math.exp(-s) * value + s / 2)
    assert float(total.detach()) == pytest.approx(expected, abs=1e-10)


def test_uncertainty_settles_where_each_part_counts_by_its_size() -> None:
    """At the optimum exp(log_variance) is twice the part's loss; an absent part's does not move."""
    model, objective = made(LossConfig(balance="uncertainty"))
    given = doubled(batch())
    given = replace(given, targets={k: v for k, v in given.targets.items() if k != "hidden/sound"})
    with torch.no_grad():
        output = model(given)
    optimizer = torch.optim.SGD([objective.log_variance], lr=0.3)
    for _ in range(300):
        optimizer.zero_grad()
        total, parts = objective(output, given)
        total.backward()
        optimizer.step()
    learned = dict(zip(objective.terms, objective.log_variance.exp().tolist(), strict=True))
    for name in ("contrastive", "stars", "tags", "price"):
        assert learned[name] == pytest.approx(2 * float(parts[name]), rel=1e-3)
    assert learned["hidden"] == 1.0


def test_a_part_without_targets_does_not_move_its_uncertainty() -> None:
    model, objective = made(LossConfig(balance="uncertainty"))
    given = doubled(batch())
    given.targets["stars"].fill_(-100)  # type: ignore[attr-defined]
    objective(model(given), given)[0].backward()
    assert objective.log_variance.grad is not None
    by_term = dict(zip(objective.terms, objective.log_variance.grad.tolist(), strict=True))
    assert by_term["stars"] == 0.0 and by_term["tags"] != 0.0


def test_uncertainty_stays_within_bounds_in_training() -> None:
    model, objective = made(LossConfig(balance="uncertainty"))
    with torch.no_grad():
        objective.log_variance.fill_(-99.0)
    given = doubled(batch())
    objective.train()(model(given), given)
    assert float(objective.log_variance.detach().min()) == -WIDEST_LOG_VARIANCE


@pytest.mark.parametrize(
    ("config", "said"),
    [(LossConfig(focal=-1.0), "focal"), (LossConfig(label_smoothing=1.0), "label_smoothing")],
)
def test_options_out_of_range_are_named(config: LossConfig, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Objective(config, CONFIG)


def test_only_classes_can_be_ordinal() -> None:
    with pytest.raises(ConfigError, match="ordinal"):
        Motet(replace(CONFIG, tasks=(TaskSpec("price", "number", ordinal=True),)))


def test_hidden_features_are_learned_from_the_others() -> None:
    model, objective = made(LossConfig(weights={"contrastive": 0.0}))
    given = doubled(batch())
    given = replace(given, targets={"hidden/sound": given.targets["hidden/sound"]})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    seen = []
    for _ in range(60):
        optimizer.zero_grad()
        total, parts = objective(model(given), given)
        total.backward()
        optimizer.step()
        seen.append(float(parts["hidden"]))
    assert seen[0] > 0.5 and seen[-1] < 0.05
    assert model.guess["sound"].weight.grad is not None
    everyone = replace(given, targets={"hidden/sound": torch.full((6, 6), math.nan)})
    assert float(objective(model(everyone), everyone)[1]["hidden"]) == 0.0


@pytest.mark.parametrize("name", ["late", "late/sound"])
def test_a_head_that_answers_must_learn(name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' is 0.*late_heads=false"):
        made(LossConfig(weights={name: 0.0}))


def test_each_modality_has_a_loss_and_a_weight_of_its_own() -> None:
    model, plain = (part.float() for part in made(LossConfig()))
    output, rows = model(batch()), batch()
    _, before = plain(output, rows)
    own = LossConfig(late_regression={"sound": "l1"}, weights={"late/sound": 3.0})
    total, after = made(own)[1].float()(output, rows)
    assert after["late/text/price"] == before["late/text/price"]
    price = output.modality_predictions["sound"]["price"]
    known = ~rows.targets["price"].isnan() & output.present[:, 1]
    expected = ((price - rows.targets["price"]) / 2.0)[known].abs().mean()
    assert float(after["late/sound/price"]) == pytest.approx(float(expected.detach()), rel=1e-6)
    late = {name: value for name, value in after.items() if name.startswith("late/")}
    mean = sum(float(v) * (3.0 if "sound" in n else 1.0) for n, v in late.items()) / len(late)
    others = sum(float(after[n]) for n in ("contrastive", "stars", "tags", "price", "hidden"))
    assert float(total.detach()) == pytest.approx(others + 0.5 * mean, rel=1e-5)
    with pytest.raises(ConfigError, match=r"late_regression.*'smell'.*text, sound"):
        made(LossConfig(late_regression={"smell": "l1"}))


def test_in_pre_training_only_hidden_features_count() -> None:
    model, objective = (part.float() for part in made(LossConfig()))
    objective.only = "hidden"
    total, parts = objective(model(batch()), batch())
    assert float(total.detach()) == pytest.approx(float(parts["hidden"]), rel=1e-6) and parts["stars"] > 0
    total.backward()
    assert all(p.grad is None or float(p.grad.abs().max()) == 0 for p in model.heads.parameters())
    assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in model.guess.parameters())
