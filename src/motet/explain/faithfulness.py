"""Whether to believe a view: take away what it calls important and watch the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from motet.explain.capture import Score
from motet.explain.rollout import Importance
from motet.explain.views import View
from motet.types import Layout, TokenBatch


@dataclasses.dataclass(frozen=True, eq=False)
class DeletionTest(View):
    """The score while tokens are removed, most important first, beside random order.

    removed: (S,) fraction of the sample's tokens; score: (S,); random: (orders, S). `area` is the
    mean gap random - score over the curve: above zero the view found what the answer hangs on,
    around zero it is no better than chance. `low`, `high`: 2.5 and 97.5 percentiles of that gap
    over the random orders.
    """

    method: str
    removed: np.ndarray
    score: np.ndarray
    random: np.ndarray
    area: float
    low: float
    high: float


def deletion_test(
    model: nn.Module,
    batch: TokenBatch,
    importance: Importance,
    score: Score,
    *,
    steps: int = 10,
    orders: int = 16,
    seed: int = 0,
) -> DeletionTest:
    """Remove a sample's tokens in order of importance; `score` is best a probability in 0..1.

    The shortened copies of one order go through the model as one batch of samples. The last step
    leaves one token.
    """
    count = len(importance.token)
    cut = np.unique(np.rint(np.linspace(0, max(count - 1, 0), steps + 1)).astype(int))
    shuffle = np.random.default_rng(seed)
    by_importance = np.argsort(-importance.value, kind="stable")
    ranks = [by_importance, *(shuffle.permutation(count) for _ in range(orders))]
    training = model.training
    model.eval()
    curves = []
    try:
        with torch.no_grad():
            for rank in ranks:
                keep = np.ones((len(cut), count), dtype=bool)
                for step, gone in enumerate(cut):
                    keep[step, rank[:gone]] = False
                copies = shortened(batch, importance.token, torch.from_numpy(keep))
                curves.append(score(model(copies)).double().cpu().numpy())
    finally:
        model.train(training)
    chosen, random = curves[0], np.stack(curves[1:])
    gaps = (random - chosen).mean(1)
    low, high = np.percentile(gaps, [2.5, 97.5])
    return DeletionTest(
        importance.method, cut / max(count, 1), chosen, random, float(gaps.mean()), float(low), float(high)
    )


def shortened(batch: TokenBatch, tokens: Sequence[int] | np.ndarray, keep: Tensor) -> TokenBatch:
    """Copies of one sample, each with some of its tokens. keep: (S, t) bool over `tokens` (t,).

    The result is a packed batch of S samples without targets or labels.
    """
    layout = batch.layout
    index = torch.as_tensor(np.asarray(tokens), device=layout.device)
    copy, which = keep.to(layout.device).nonzero(as_tuple=True)
    source = index[which]
    order = torch.argsort(layout.modality[source] * len(keep) + copy, stable=True)
    source, copy = source[order], copy[order]
    counts = torch.bincount(layout.modality[source], minlength=len(layout.modalities)).tolist()
    short = Layout(
        modalities=layout.modalities,
        counts=tuple(counts),
        samples=len(keep),
        offsets=torch.tensor([0, *np.cumsum(counts).tolist()], dtype=torch.int64),
        sample=copy,
        modality=layout.modality[source],
        position=layout.position[source],
        time=layout.time[source],
        row=layout.row[source],
        col=layout.col[source],
        span=layout.span[source],
    )
    values = {
        name: batch.values[name][source[short.slice_of(name)] - int(layout.offsets[m])]
        for m, name in enumerate(layout.modalities)
        if name in batch.values
    }
    group = torch.arange(len(keep), device=layout.device)
    return TokenBatch(short, values, {}, group, tuple(str(i) for i in range(len(keep))))
