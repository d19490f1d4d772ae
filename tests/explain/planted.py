"""A set with a known truth: every label hangs on one token, which a view must name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from motet.explain.rollout import Importance
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.block import BlockConfig
from motet.nn.fusion import FusionName
from motet.nn.mot import MoTConfig
from motet.types import Output, TokenBatch
from tests.explain.test_capture import SPECS, make_batch

ITEMS = {"text": 6, "picture": 9, "speech": 8}  # words, patches, half seconds
NAMES = tuple(ITEMS)


def plant(samples: int, seed: int, *, none: bool = False) -> tuple[TokenBatch, Tensor, Tensor]:
    """Noise, and in one token of each modality that modality's label: 0 or 1, or 2 where nothing is planted.

    Without the third class a model could take one of the two for granted, and rightly look at nothing.
    Returns the batch, (B, 3) labels and (B, 3) planted places among the modality's tokens.
    """
    rng = torch.Generator().manual_seed(seed)
    batch = make_batch((ITEMS,) * samples, seed=seed)
    values = {name: value.clone() for name, value in batch.values.items()}
    values["text"] = values["text"].clamp(max=27)
    labels = torch.randint(0, 3 if none else 2, (samples, len(NAMES)), generator=rng)
    places = torch.stack([torch.randint(0, n, (samples,), generator=rng) for n in ITEMS.values()], dim=1)
    for m, name in enumerate(NAMES):
        some = labels[:, m] < 2
        tokens = (torch.arange(samples) * ITEMS[name] + places[:, m])[some]
        if name == "text":
            values[name][tokens] = 28 + labels[some, m]
        else:
            values[name] *= 0.5
            values[name][tokens, 0] = 4.0 * (2 * labels[some, m] - 1)
    return dataclasses.replace(batch, values=values), labels, places


def small(fusion: FusionName = "attention", *, attention: bool = True) -> Motet:
    """A model of two layers with a task a modality. `attention=False`: it attends, but hears nothing."""
    torch.manual_seed(0)
    stack = MoTConfig(block=BlockConfig(width=32, heads=4), depth=2, attend=("global",))
    tasks = tuple(TaskSpec(name, "classes", ("bad", "good", "none")) for name in NAMES)
    config = MotetConfig(
        modalities=SPECS, mot=stack, tasks=tasks, contrastive=False, head_dropout=0.0, fusion=fusion
    )
    model = Motet(config)
    if not attention:  # nobody asks for anything, and what is heard is thrown away
        for block in model.mot.blocks:
            for weight in block.qkv.weight.values():
                weight.data[:32] = 0
            for parameter in block.out.parameters():
                torch.nn.init.zeros_(parameter).requires_grad_(False)
    return model


def learn(model: Motet, *, most: int = 400) -> Motet:
    """Train until every planted token is found; fails if one is not."""
    held, truth, _ = plant(200, 7, none=True)
    optim = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 5e-3)
    right = torch.zeros(len(NAMES))
    for step in range(most):
        batch, labels, _ = plant(64, 1000 + step, none=True)
        said = model.train()(batch).predictions
        losses = [torch.nn.functional.cross_entropy(said[m], labels[:, i]) for i, m in enumerate(NAMES)]
        optim.zero_grad()
        torch.stack(losses).sum().backward()
        optim.step()
        if step % 20 == 19:
            with torch.no_grad():
                said = model.eval()(held).predictions
            right = torch.stack(
                [(said[m].argmax(1) == truth[:, i]).float().mean() for i, m in enumerate(NAMES)]
            )
            if right.min() >= 0.98:
                return model
    raise AssertionError(f"the model did not learn the planted signals: {right.tolist()}")


def right_answer(task: str, label: Tensor) -> Callable[[Output], Tensor]:
    """The probability of the right class. label: (B,)"""

    def score(output: Output) -> Tensor:
        return output.predictions[task].softmax(-1).gather(1, label[:, None]).squeeze(1)

    return score


def one_class(task: str, label: int) -> Callable[[Output], Tensor]:
    """The probability of one class, of any number of samples."""
    return lambda output: output.predictions[task].softmax(-1)[:, label]


def named(view: Importance, modality: str, place: int) -> bool:
    """Whether this token weighs most."""
    top = int(view.value.argmax())
    return view.modality[top] == modality and top - view.modality.index(modality) == place
