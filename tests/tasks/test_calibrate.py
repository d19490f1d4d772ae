"""The temperature against a grid; labels never change; a model learns to be less sure."""

import numpy as np
import pytest
import torch

from motet.metrics import calibration_error, softmax
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.tasks.calibrate import calibrate, find_temperature
from motet.tasks.evaluate import ask
from motet.types import ModalitySpec, Piece, Sample


def logits_of(n=3000, scale=3.0, seed=0):
    """Labels drawn from softmax(logits), which are then made `scale` times too sure."""
    draw = np.random.default_rng(seed)
    true = draw.normal(size=(n, 4))
    labels = np.array([draw.choice(4, p=row) for row in softmax(true)])
    return true * scale, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_it_undoes_how_much_too_sure_a_model_is(scale):
    logits, labels = logits_of(scale=scale)
    temperature = find_temperature(logits, labels)
    assert temperature == pytest.approx(scale, rel=0.1)
    rows = np.arange(len(labels))
    losses = {t: -np.log(softmax(logits / t)[rows, labels]).mean() for t in np.geomspace(0.05, 20, 400)}
    best = min(losses, key=losses.get)
    assert temperature == pytest.approx(best, rel=0.02)
    held, truth = logits_of(scale=scale, seed=1)
    if scale != 1:
        assert calibration_error(softmax(held / temperature), truth) < 0.5 * calibration_error(
            softmax(held), truth
        )


def test_it_stays_within_its_range():
    logits = np.array([[9.0, 0.0], [0.0, 9.0]])
    assert find_temperature(logits, np.array([0, 1])) == pytest.approx(
        0.05
    )  # always right: as sure as can be
    assert find_temperature(logits, np.array([1, 0])) == pytest.approx(20.0)


def test_a_model_is_calibrated_and_its_labels_stay():
    torch.manual_seed(0)
    spec = ModalitySpec("x", "features", "vectors", 3)
    tasks = (TaskSpec("y", "classes", ("a", "b")), TaskSpec("n", "number"))
    config = MotetConfig((spec,), MoTConfig(BlockConfig(width=32), depth=1), tasks=tasks, contrastive=False)
    model = Motet(config)
    with torch.no_grad():
        model.heads[0].out.weight.mul_(40)  # far too sure of noise
    draw = np.random.default_rng(0)
    samples = [
        Sample(
            str(i),
            {"x": Piece(draw.normal(size=(2, 3)).astype(np.float32), np.zeros(2, np.float32))},
            {"y": int(draw.integers(2)), "n": 0.5},
        )
        for i in range(120)
    ]
    before = ask(model, samples).predictions
    said = calibrate(model, samples[:60], samples[60:])
    assert list(said) == ["y"] and said["y"]["rows"] == 60
    assert said["y"]["temperature"] > 2 and model.config.tasks[0].temperature == said["y"]["temperature"]
    assert said["y"]["ece_after"] < said["y"]["ece_before"]
    assert said["y"]["nll_after"] < said["y"]["nll_before"]
    after = ask(model, samples).predictions
    assert (after["y"].argmax(1) == before["y"].argmax(1)).all()
    np.testing.assert_allclose(after["y"] * said["y"]["temperature"], before["y"], rtol=1e-5)
    np.testing.assert_array_equal(after["n"], before["n"])

    assert calibrate(model, samples[:10], samples) == {}  # too few rows to say
    assert calibrate(model, [], samples) == {}
