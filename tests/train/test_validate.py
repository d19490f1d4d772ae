from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from motet.losses import LossConfig, Objective
from motet.metrics import confusion_matrix, macro_f1
from motet.model import Motet
from motet.train.validate import better, validate
from motet.types import Output, TokenBatch
from tests.train.training_fakes import CONFIG, FakeLoader, make, make_batch


def test_what_is_better() -> None:
    assert better(0.1, None, "loss") and better(0.1, 0.2, "loss") and better(0.1, 0.2, "mood")
    assert better(0.2, 0.1, "R@10") and better(0.2, 0.1, "mood.macro_f1") and better(0.2, 0.1, "score")
    assert not better(math.nan, 0.1, "loss") and not better(math.nan, None, "score")


def test_numbers_over_several_batches() -> None:
    model, objective = make()
    loader = FakeLoader(steps=3)
    got = validate(model, objective, loader, torch.device("cpu"))
    losses, logits, targets = [], [], []
    for batch in loader.batches(0):
        output = model.eval()(batch)
        losses.append(float(objective(output, batch)[0].detach()))
        logits.append(output.predictions["mood"])
        targets.append(batch.targets["mood"])
    assert got["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    predicted, labels = torch.cat(logits).argmax(1).numpy(), torch.cat(targets).numpy()
    assert got["mood.accuracy"] == (predicted == labels).mean()
    assert got["mood.macro_f1"] == macro_f1(confusion_matrix(predicted, labels, 2))
    assert got["R@10"] == 1.0  # a gallery of at most eight
    assert got["score"] == pytest.approx((got["R@10"] + got["mood.auroc"]) / 2)
    joined, truth = torch.cat(logits).double().detach(), torch.cat(targets)
    prior = torch.bincount(truth, minlength=2) / len(truth)
    usual = cross_entropy(prior.double().log().expand(len(truth), 2), truth)
    assert got["mood.skill"] == pytest.approx(float(1 - cross_entropy(joined, truth) / usual))


def test_without_alignment_the_score_is_skill_together_and_alone() -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, contrastive=False, late_heads=True)
    model, objective = Motet(config).eval(), Objective(LossConfig(), config)
    got = validate(model, objective, FakeLoader(steps=2), torch.device("cpu"))
    skills = []
    for column, name in enumerate(("text", "sound")):
        said, truth = [], []
        for batch in FakeLoader(steps=2).batches(0):
            here = batch.layout.present()[:, column]
            said.append(model(batch).modality_predictions[name]["mood"][here])
            truth.append(batch.targets["mood"][here])
        target = torch.cat(truth)
        prior = (torch.bincount(target, minlength=2) / len(target)).log().expand(len(target), 2)
        skills.append(
            1 - float((cross_entropy(torch.cat(said), target) / cross_entropy(prior, target)).detach())
        )
    assert got["alone.skill"] == pytest.approx(np.mean(skills), rel=1e-5)
    assert got["score"] == pytest.approx((got["mood.skill"] + got["alone.skill"]) / 2)


class Says(nn.Module):
    """An answer that is fixed, whatever comes."""

    def __init__(self, task: str, answer: torch.Tensor) -> None:
        super().__init__()
        self.task, self.answer = task, answer

    def forward(self, batch: TokenBatch) -> Output:
        none = torch.zeros(len(batch.ids), 0)
        return Output(none, none, batch.layout.present(), {}, {self.task: self.answer}, {}, {})


def skill_of(answer: torch.Tensor, target: torch.Tensor) -> float:
    class One:
        def batches(self, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
            yield replace(make_batch(0, len(target)), targets={"y": target})

    def loss(output: Output, batch: TokenBatch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        return torch.tensor(0.0), {}

    return validate(Says("y", answer), loss, One(), torch.device("cpu"))["y.skill"]  # type: ignore[arg-type]


def test_skill_is_nothing_for_the_prior_and_one_for_the_truth() -> None:
    classes = torch.tensor([0, 0, 0, 1, 2, -100])
    prior = torch.tensor([0.6, 0.2, 0.2]).log().expand(6, 3)
    assert skill_of(prior, classes) == pytest.approx(0.0, abs=1e-6)
    right = 50.0 * torch.nn.functional.one_hot(classes.clamp(min=0), 3)
    assert skill_of(right, classes) == pytest.approx(1.0) and skill_of(-right, classes) < 0
    several = torch.tensor([[0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [math.nan, 1.0]])
    assert skill_of(torch.logit(several[:4].mean(0)).expand(5, 2), several) == pytest.approx(0.0, abs=1e-6)
    assert skill_of(100 * several.nan_to_num() - 50, several) == pytest.approx(1.0)
    numbers = torch.tensor([1.0, 2.0, 4.0, math.nan])
    assert skill_of(torch.full((4,), 2.0), numbers) == 0.0 and skill_of(numbers, numbers) == 1.0
