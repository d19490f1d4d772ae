"""How many steps a fusion needs where the modality that tells has few tokens beside another's many.

    python benchmarks/sentiment_tokens.py [--out FOLDER]

Planted: two tokens of "text" hold the class, 2 or 60 of "audio" are noise. The fusion and a linear head are
trained alone, on fresh batches of 64; counted are the steps until the running accuracy passes .9 (None: not
within 600). "balanced" is attention fusion without the mean, whose scores are lowered by the logarithm of how
many tokens the token's modality has in its sample, so that every modality starts with the same share.
"""

from __future__ import annotations

import argparse

import torch
from common import report
from torch import Tensor, nn

from motet.nn.fusion import make_fusion
from motet.nn.segments import segment_softmax, segment_sum
from motet.types import Layout

WIDTH, BATCH, STEPS, SEEDS = 64, 64, 600, (0, 1, 2)
MODALITIES = ("text", "audio")


class Balanced(nn.Module):
    """See the top of the file."""

    def __init__(self, heads: int = 4, queries: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(queries, heads, WIDTH // heads))
        self.key, self.value = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.out = nn.Linear(queries * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        key, value = (part(x).unflatten(-1, (self.heads, -1)) for part in (self.key, self.value))
        scores = torch.einsum("thk,qhk->tqh", key, self.query) * key.shape[-1] ** -0.5
        group = layout.modality * layout.samples + layout.sample
        count = torch.bincount(group, minlength=len(MODALITIES) * layout.samples)[group]
        share = segment_softmax(scores - count.log()[:, None, None], layout.sample, layout.samples)
        heard = [segment_sum(s[..., None] * value, layout.sample, layout.samples) for s in share.unbind(1)]
        return self.out(torch.stack(heard, dim=1).flatten(1))


def steps_needed(name: str, noise: int, seed: int) -> int | None:
    torch.manual_seed(seed)
    fusion = Balanced() if name == "balanced" else make_fusion(name, WIDTH, MODALITIES)
    model = nn.ModuleList([fusion, nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 2)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    random, accuracy = torch.Generator().manual_seed(seed), 0.5
    for step in range(STEPS):
        x, layout, label = planted(noise, random)
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
    names = ("late", "mean", "attention", "balanced")
    found = {
        f"{noise} tokens of noise": {
            name: [steps_needed(name, noise, seed) for seed in SEEDS] for name in names
        }
        for noise in (2, 60)
    }
    report("sentiment_tokens", "cpu", {"steps": found}, given.out)


if __name__ == "__main__":
    main()
