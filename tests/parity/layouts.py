"""Seeded random batches as a user may hand them in: any mix, any order, anything missing."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from motet.types import Layout

NAMES = ("text", "image", "audio", "video", "depth", "touch")  # not in alphabetical order


@dataclass(frozen=True, eq=False)
class Drawn:
    """T tokens in the order in which they were given; `layout` and `order` pack them."""

    modalities: tuple[str, ...]
    modality: tuple[str, ...]
    sample: tuple[int, ...]
    time: tuple[float, ...]
    row: tuple[int, ...]
    col: tuple[int, ...]
    layout: Layout
    order: Tensor

    def __len__(self) -> int:
        return len(self.modality)


def draw_layout(seed: int, *, most_tokens: int = 14) -> Drawn:
    """1 to 6 modalities and 1 to 5 samples. Every seventh has one token, every fifth one sample.

    A sample has any subset of the modalities, or none; a modality may have no token at all, and
    times may coincide across modalities.
    """
    rng = random.Random(seed)
    modalities = tuple(rng.sample(NAMES, rng.randint(1, 6)))
    samples = 1 if seed % 5 == 0 else rng.randint(2, 5)
    total = 1 if seed % 7 == 0 else rng.randint(2, most_tokens)
    has = [rng.sample(modalities, rng.randint(1, len(modalities))) for _ in range(samples)]
    sample = tuple(rng.randrange(samples) for _ in range(total))
    modality = tuple(rng.choice(has[b]) for b in sample)
    time = tuple(rng.randrange(12) * 0.25 for _ in range(total))
    row, col = (tuple(rng.randrange(5) if m != "text" else 0 for m in modality) for _ in range(2))
    layout, order = Layout.build(
        modalities,
        torch.tensor([modalities.index(m) for m in modality]),
        torch.tensor(sample),
        time=torch.tensor(time),
        row=torch.tensor(row),
        col=torch.tensor(col),
        samples=samples,
    )
    return Drawn(modalities, modality, sample, time, row, col, layout, order)


def subset(drawn: Drawn, samples: list[int]) -> tuple[Tensor, Layout]:
    """Only these samples, renumbered in this order: which packed tokens they are, and their layout."""
    place = {b: n for n, b in enumerate(samples)}
    layout = drawn.layout
    kept = torch.tensor([t for t, b in enumerate(layout.sample.tolist()) if b in place], dtype=torch.int64)
    alone, order = Layout.build(
        layout.modalities,
        layout.modality[kept],
        torch.tensor([place[b] for b in layout.sample[kept].tolist()], dtype=torch.int64),
        position=layout.position[kept],
        time=layout.time[kept],
        row=layout.row[kept],
        col=layout.col[kept],
        samples=len(samples),
    )
    return kept[order], alone
