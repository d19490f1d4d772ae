"""Collapse is measured right, told once, and told again only after a recovery."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from motet.train.collapse import CollapseWatch, effective_rank, similarity_spread, spread_of
from motet.train.loop import TrainConfig, train
from motet.train.run import Reporter, RunFolder
from motet.train.validate import validate
from tests.train.training_fakes import FakeLoader, make


def unit(rows: int, width: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(rows, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_effective_rank_is_that_of_the_definition() -> None:
    vectors = unit(20, 6)
    gram = vectors.T @ vectors
    values = [math.sqrt(v) for v in np.linalg.eigvalsh(gram)]
    shares = [v / sum(values) for v in values]
    assert effective_rank(vectors) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares)), abs=1e-8)
    assert effective_rank(np.eye(7)) == pytest.approx(7.0)
    assert effective_rank(np.tile(unit(1, 8), (10, 1))) == pytest.approx(1.0, abs=1e-6)


def test_spread_is_the_deviation_over_pairs() -> None:
    vectors = unit(9, 4)
    cosines = [float(vectors[i] @ vectors[j]) for i in range(9) for j in range(i)]
    mean = sum(cosines) / len(cosines)
    expected = math.sqrt(sum((c - mean) ** 2 for c in cosines) / len(cosines))
    assert similarity_spread(vectors) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("kinds", [2, 3, 50])
def test_a_few_kinds_of_things_told_apart_are_no_collapse(kinds: int) -> None:
    """Two captions only, say: few directions are right there."""
    said: list[str] = []
    CollapseWatch()(spread_of({"text": unit(kinds, 32)[np.arange(100) % kinds]}), said.append)
    assert not said


def test_collapse_is_said_once_until_it_recovers() -> None:
    said: list[str] = []
    watch = CollapseWatch()
    noise = unit(1, 32) + 1e-3 * np.random.default_rng(1).normal(size=(100, 32))
    same = spread_of({"sound": noise / np.linalg.norm(noise, axis=1, keepdims=True)})
    fine = spread_of({"sound": unit(100, 32)})
    for val in (same, same, fine, same):
        watch(val, said.append)
    assert len(said) == 2 and said[0].startswith("The embeddings of sound have collapsed")
    assert spread_of({"sound": unit(7, 32)}) == {}


def test_validation_measures_it_and_training_says_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, objective = make()
    with torch.no_grad():  # every sound lands on the bias
        model.space["sound"].project.weight.zero_()  # type: ignore[union-attr, operator]
        model.space["sound"].project.bias.fill_(1.0)  # type: ignore[union-attr, operator]
    val = validate(model, objective, FakeLoader(steps=4), torch.device("cpu"))
    assert val["rank/sound"] == pytest.approx(1.0, abs=1e-3) and val["spread/sound"] < 1e-6
    assert val["rank/text"] > 1.5
    config = TrainConfig(epochs=2, lr=1e-9, metric="loss", checkpoint_seconds=0)
    run = RunFolder(tmp_path / "run", {})
    train(model, objective, FakeLoader(), FakeLoader(steps=4), config, run=run, reporter=Reporter())
    assert capsys.readouterr().err.count("embeddings of sound have collapsed") == 1
    assert run.history()[-1]["val"]["spread/sound"] < 1e-6
