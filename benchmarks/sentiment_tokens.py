"""How many steps a fusion needs where the modality that tells has few tokens beside another's many.

    python benchmarks/sentiment_tokens.py [--out FOLDER]

Planted: two tokens of "text" hold the class, 2 or 60 of "audio" are noise. The fusion and a linear head are
trained alone, on fresh batches of 64; counted are the steps until the running accuracy passes .9 (None: not
within 600). "tokens alike": the same fusion, told that all tokens are of one modality, so that a modality
starts with a share as large as its share of the tokens.
"""

from __future__ import annotations

import argparse

import torch
from common import report
from torch import Tensor, nn

from motet.nn.fusion import make_fusion
from motet.types import Layout

WIDTH, BATCH, STEPS, SEEDS = 64, 64, 600, (0, 1, 2)
MODALITIES = ("text", "audio")


def steps_needed(name: str, noise: int, seed: int) -> int | None:
    torch.manual_seed(seed)
    kind, _, alike = name.partition(", ")
    fusion = make_fusion(kind, WIDTH, MODALITIES)
    model = nn.ModuleList([fusion, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    random, accuracy = torch.Generator().manual_seed(seed), 0.5
    for step in range(STEPS):
        x, layout, label = planted(noise, random)
        if alike:
            one = torch.zeros_like(layout.modality)
            layout, order = Layout.build(("any",), one, layout.sample)
            x = x[order]
        logits = model[2](model[1](fusion(x, layout)))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits, label).backward()
        optimizer.step()
        accuracy = 0.95 * accuracy + 0.05 * float((logits.argmax(1) == label).float().mean())
        if accuracy > 0.9:
            return step
    return None


def planted(noise: int, random: torch.Generator) -> tuple[Tensor, Layout, Tensor]:
    label = torch.randint(2, (BATCH,), generator=random)
    mark = torch.zeros(WIDTH)
    mark[:8] = 0.5
    words = torch.randn(BATCH, 2, WIDTH, generator=random) + (2 * label - 1)[:, None, None] * mark
    sounds = torch.randn(BATCH, noise, WIDTH, generator=random)
    each = torch.arange(BATCH)
    modality = torch.cat([torch.zeros(2 * BATCH), torch.ones(noise * BATCH)])
    sample = torch.cat([each.repeat_interleave(2), each.repeat_interleave(noise)])
    layout, order = Layout.build(MODALITIES, modality, sample)
    return torch.cat([words.flatten(0, 1), sounds.flatten(0, 1)])[order], layout, label


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out")
    given = parser.parse_args()
    names = ("late", "mean", "mean, tokens alike", "attention", "attention, tokens alike")
    found = {
        f"{noise} tokens of noise": {
            name: [steps_needed(name, noise, seed) for seed in SEEDS] for name in names
        }
        for noise in (2, 60)
    }
    report("sentiment_tokens", "cpu", {"steps": found}, given.out)


if __name__ == "__main__":
    main()
