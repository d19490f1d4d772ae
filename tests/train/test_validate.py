from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from motet.metrics import confusion_matrix, macro_f1
from motet.train.validate import better, validate
from tests.train.training_fakes import FakeLoader, make


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
