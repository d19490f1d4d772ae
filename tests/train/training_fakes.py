"""A tiny model and a loader whose batches are a pure function of (seed, epoch, position)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from motet.losses import LossConfig, Objective
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.train.run import Reporter
from motet.types import Layout, ModalitySpec, TokenBatch

SPECS = (
    ModalitySpec("text", "text", "ids", 20),
    ModalitySpec("sound", "audio", "vectors", 6),
)
CONFIG = MotetConfig(
    modalities=SPECS,
    mot=MoTConfig(block=BlockConfig(width=16, heads=2, dropout=0.2), depth=2, attend=("own", "global")),
    tasks=(TaskSpec("mood", "classes", ("bad", "good")),),
    embedding=8,
)


def make(seed: int = 0) -> tuple[Motet, Objective]:
    torch.manual_seed(seed)
    model = Motet(CONFIG)
    return model, Objective(LossConfig(), CONFIG)


def make_batch(seed: int, samples: int = 8) -> TokenBatch:
    """Each sample has text or sound or both; the word 1 and a loud sound mean "good"."""
    draw = torch.Generator().manual_seed(seed)
    mood = torch.randint(0, 2, (samples,), generator=draw)
    has = torch.randint(0, 3, (samples,), generator=draw)
    modality, sample, words, sounds = [], [], [], []
    for i in range(samples):
        if has[i] != 1:
            modality += [0, 0]
            sample += [i, i]
            words += [int(mood[i]) + 1, int(torch.randint(3, 20, (1,), generator=draw))]
        if has[i] != 0:
            modality.append(1)
            sample.append(i)
            sounds.append(torch.randn(6, generator=draw) + 2.0 * mood[i])
    layout, _ = Layout.build(("text", "sound"), torch.tensor(modality), torch.tensor(sample), samples=samples)
    values = {"text": torch.tensor(words), "sound": torch.stack(sounds) if sounds else torch.zeros(0, 6)}
    ids = tuple(f"{seed}-{i}" for i in range(samples))
    return TokenBatch(layout, values, {"mood": mood}, torch.arange(samples), ids)


class FakeLoader:
    def __init__(self, seed: int = 0, steps: int = 4, poisoned: frozenset[int] = frozenset()) -> None:
        self.seed, self.steps_per_epoch, self.poisoned = seed, steps, poisoned

    def batches(self, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
        for position in range(start, self.steps_per_epoch):
            number = epoch * self.steps_per_epoch + position
            batch = make_batch(1000 * self.seed + number)
            if number in self.poisoned:
                batch.values["sound"].fill_(float("nan"))
            yield batch


class Said(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
