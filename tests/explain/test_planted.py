"""Views against a known truth: the label hangs on one token, and the view must name it."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from motet.explain.capture import capture
from motet.explain.faithfulness import deletion_tests
from motet.explain.rollout import Importance, gradient_rollout, integrated_gradients, rollout
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.types import Output, TokenBatch
from tests.explain.test_capture import SPECS, make_batch

ITEMS = {"text": 6, "picture": 9, "speech": 8}  # words, patches, half seconds
NAMES = tuple(ITEMS)


def plant(samples: int, modality: str, seed: int, *, none: bool = False) -> tuple[TokenBatch, Tensor, Tensor]:
    """Noise, and in one token of `modality` the label: 0 or 1, or 2 where nothing is planted.

    Without the third class a model could take one of the two for granted, and rightly look at nothing.
    Returns the batch, (B,) labels and (B,) planted positions.
    """
    rng = torch.Generator().manual_seed(seed)
    batch = make_batch((ITEMS,) * samples, seed=seed)
    label = torch.randint(0, 3 if none else 2, (samples,), generator=rng)
    where = torch.randint(0, ITEMS[modality], (samples,), generator=rng)
    values = {name: value.clone() for name, value in batch.values.items()}
    values["text"] = values["text"].clamp(max=27)
    some = label < 2
    tokens = (torch.arange(samples) * ITEMS[modality] + where)[some]
    if modality == "text":
        values["text"][tokens] = 28 + label[some]
    else:
        values[modality] *= 0.5
        values[modality][tokens, 0] = 4.0 * (2 * label[some] - 1)
    return dataclasses.replace(batch, values=values), label, where


def learn(model: Motet, modality: str) -> Motet:
    """Train until the planted token is found; fails if it is not."""
    optim = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3)
    for step in range(120):
        batch, label, _ = plant(64, modality, 1000 + step, none=True)
        loss = torch.nn.functional.cross_entropy(model.train()(batch).predictions["mood"], label)
        optim.zero_grad()
        loss.backward()
        optim.step()
    batch, label, _ = plant(300, modality, 7, none=True)
    with torch.no_grad():
        right = (model.eval()(batch).predictions["mood"].argmax(1) == label).float().mean()
    assert right >= 0.97, f"the model did not learn the planted signal: {right:.2f}"
    return model


def right_answer(label: Tensor) -> Callable[[Output], Tensor]:
    def score(output: Output) -> Tensor:
        return output.predictions["mood"].softmax(-1).gather(1, label[:, None]).squeeze(1)

    return score


def named(view: Importance, modality: str, where: int) -> bool:
    top = int(view.value.argmax())
    return view.modality[top] == modality and top - view.modality.index(modality) == where


def small(attention: bool = True) -> Motet:
    torch.manual_seed(0)
    stack = MoTConfig(block=BlockConfig(width=32, heads=4), depth=2, attend=("global",))
    tasks = (TaskSpec("mood", "classes", ("bad", "good", "none")),)
    config = MotetConfig(modalities=SPECS, mot=stack, tasks=tasks, contrastive=False, head_dropout=0.0)
    model = Motet(config)
    if not attention:  # nobody asks for anything, and what is heard is thrown away
        for block in model.mot.blocks:
            for weight in block.qkv.weight.values():
                weight.data[:32] = 0
            for parameter in block.out.parameters():
                torch.nn.init.zeros_(parameter).requires_grad_(False)
    return model


@pytest.fixture(scope="module", params=NAMES)
def learned(request: pytest.FixtureRequest) -> tuple[Motet, str]:
    return learn(small(), request.param), request.param


def test_views_name_the_planted_token(learned: tuple[Motet, str]) -> None:
    model, modality = learned
    batch, label, where = plant(100, modality, 99)
    captured = capture(model, batch, right_answer(label))
    hits = [named(gradient_rollout(captured, sample=i), modality, int(where[i])) for i in range(100)]
    assert sum(hits) >= 95
    checked = 0
    for i in range(20):
        one, answer = batch.rows(i, i + 1), right_answer(label[i : i + 1])
        seen = capture(model, one, answer)
        view = integrated_gradients(model, one, seen, answer, steps=12)
        checked += named(view, modality, int(where[i]))
    assert checked >= 16  # its baseline, the mean of few tokens, holds a part of the signal


def test_attention_that_means_nothing_is_reported_as_unfaithful() -> None:
    model = learn(small(attention=False), "picture")
    batch, label, _ = plant(20, "picture", 5)
    verdicts: dict[str, list[str]] = {"rollout": [], "gradient rollout": []}
    for i in range(20):
        one, answer = (
            batch.rows(i, i + 1),
            lambda out, k=int(label[i]): out.predictions["mood"].softmax(-1)[:, k],
        )
        captured = capture(model, one, answer)
        for test in deletion_tests(model, one, [rollout(captured), gradient_rollout(captured)], answer):
            verdicts[test.method].append(test.verdict)
    assert sum(verdict != "faithful" for verdict in verdicts["rollout"]) >= 17, verdicts
    assert sum(verdict == "faithful" for verdict in verdicts["gradient rollout"]) >= 17, verdicts


def ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort().argsort().astype(float)


def test_views_of_random_weights_are_other_views(learned: tuple[Motet, str]) -> None:
    """The sanity check of Adebayo et al. 2018: a view that random weights leave as it was shows the input."""
    model, modality = learned
    batch, label, where = plant(30, modality, 3)
    answer, random = right_answer(label), small()
    torch.manual_seed(1)
    for parameter in random.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    ours, theirs = capture(model, batch, answer), capture(random, batch, answer)
    correlations, hits = [], 0
    for i in range(30):
        a, b = gradient_rollout(ours, sample=i), gradient_rollout(theirs, sample=i)
        correlations.append(np.corrcoef(ranks(a.value), ranks(b.value))[0, 1])
        hits += named(b, modality, int(where[i]))
    assert abs(float(np.mean(correlations))) < 0.5, correlations
    assert hits <= 15
