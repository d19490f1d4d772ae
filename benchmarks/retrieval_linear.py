"""The baseline: linear heads on the mean of frozen features, trained by InfoNCE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motet.losses.contrastive import contrastive_loss
from motet.predictor import Predictor
from motet.predictor.cells import Broken, read_entries
from motet.predictor.inputs import Entry


def pooled(predictor: Predictor, entries: Sequence[Entry], modality: str) -> np.ndarray:
    """(N, d): the mean over what the frozen encoder says of a cell, or over the tokens of its features."""
    only = {modality: predictor.processors[modality]}
    samples = read_entries(entries, only, predictor.cache)
    pieces = [None if isinstance(sample, Broken) else sample.pieces.get(modality) for sample in samples]
    return np.stack([piece.values.astype(np.float32).mean(0) for piece in pieces if piece is not None])


def linear_heads(
    query: np.ndarray,
    answer: np.ndarray,
    asked: np.ndarray,
    found: np.ndarray,
    *,
    groups: Sequence[str],
    seed: int,
    epochs: int = 60,
    batch: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """Trained on the rows of `query` and `answer`; unit vectors of `asked` and `found`."""
    torch.manual_seed(seed)
    known = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    group = torch.tensor([known[name] for name in groups])
    heads = [_head(query, 256), _head(answer, 256)]
    x = [torch.from_numpy(query), torch.from_numpy(answer)]
    steps = epochs * max(1, len(query) // batch)
    learned = [p for head in heads for p in head.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        rows = torch.randperm(len(query))[:batch]
        a, b = (F.normalize(head(one[rows]), dim=1) for head, one in zip(heads, x, strict=True))
        loss = contrastive_loss(a, b, 0.07, group=group[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        out: list[Tensor] = [
            F.normalize(head.eval()(torch.from_numpy(one)), dim=1)
            for head, one in zip(heads, (asked, found), strict=True)
        ]
    return out[0].numpy(), out[1].numpy()


def _head(features: np.ndarray, width: int) -> nn.Module:
    size = features.shape[1]
    return nn.Sequential(nn.LayerNorm(size), nn.Dropout(0.5), nn.Linear(size, width))
