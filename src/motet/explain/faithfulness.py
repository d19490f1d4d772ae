"""Whether to believe a view: take away what it calls important and watch the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from motet.explain.capture import Score
from motet.explain.rollout import Importance
from motet.explain.views import View
from motet.types import Layout, TokenBatch

COPIES = 2**14  # tokens of shortened copies that go through the model at once
Verdict = Literal["faithful", "no better than chance", "worse than chance"]


@dataclasses.dataclass(frozen=True, eq=False)
class DeletionTest(View):
    """The score while tokens are removed, most important first, beside random and reversed order.

    removed: (S,) fraction of the sample's tokens; score, reversed: (S,); random: (orders, S).
    Removing the least important first, read from the right, is insertion: the most important come
    back first. So one pair of curves answers both questions:

    `area` is the mean gap random - score over the deletion curve, `insertion` the mean gap
    reversed - random: above zero the view found what the answer hangs on, around zero it is no better
    than chance. `low`, `high` and `insertion_low`, `insertion_high`: 5 and 95 percentiles of that
    gap over the random orders; a view that were itself a random order would leave `low` above zero
    in one test of twenty. `verdict` goes by `low` and `high`.

    Source: Samek et al. 2017, arXiv:1509.06321; Petsiuk et al. 2018, arXiv:1806.07421.
    """

    method: str
    removed: np.ndarray
    score: np.ndarray
    reversed: np.ndarray
    random: np.ndarray
    area: float
    low: float
    high: float
    insertion: float
    insertion_low: float
    insertion_high: float
    verdict: Verdict


def deletion_test(
    model: nn.Module,
    batch: TokenBatch,
    importance: Importance,
    score: Score,
    *,
    steps: int = 12,
    orders: int = 32,
    seed: int = 0,
) -> DeletionTest:
    """One view's test; see `deletion_tests`."""
    return deletion_tests(model, batch, [importance], score, steps=steps, orders=orders, seed=seed)[0]


def deletion_tests(
    model: nn.Module,
    batch: TokenBatch,
    views: Sequence[Importance],
    score: Score,
    *,
    steps: int = 12,
    orders: int = 32,
    seed: int = 0,
) -> list[DeletionTest]:
    """Remove a sample's tokens in each view's order; all views meet the same random orders.

    `views` are of one sample. The shortened copies go through the model as batches of samples. Steps
    begin with single tokens and grow; the last leaves one token.
    """
    count = len(views[0].token)
    cut = np.unique(np.rint((count - 1) * np.linspace(0, 1, steps + 1) ** 1.5).astype(int))
    shuffle = np.random.default_rng(seed)
    ranks = [np.argsort(-view.value, kind="stable") for view in views]
    ranks += [rank[::-1] for rank in ranks]
    ranks += [shuffle.permutation(count) for _ in range(orders)]
    keep = np.ones((len(ranks), len(cut), count), dtype=bool)
    for i, rank in enumerate(ranks):
        for step, gone in enumerate(cut):
            keep[i, step, rank[:gone]] = False
    curves = scores_of(model, batch, views[0].token, keep.reshape(-1, count), score)
    curves = curves.reshape(len(ranks), len(cut))
    random, removed = curves[2 * len(views) :], cut / max(count, 1)
    return [_judged(view, removed, curves[i], curves[len(views) + i], random) for i, view in enumerate(views)]


def _judged(
    view: Importance, removed: np.ndarray, chosen: np.ndarray, backwards: np.ndarray, random: np.ndarray
) -> DeletionTest:
    gaps, back = _area(random - chosen, removed), _area(backwards - random, removed)
    low, high = np.percentile(gaps, [5, 95])
    back_low, back_high = np.percentile(back, [5, 95])
    verdict: Verdict = "faithful" if low > 0 else "worse than chance" if high < 0 else "no better than chance"
    return DeletionTest(
        view.method, removed, chosen, backwards, random,
        float(gaps.mean()), float(low), float(high),
        float(back.mean()), float(back_low), float(back_high), verdict,
    )  # fmt: skip


def _area(gap: np.ndarray, removed: np.ndarray) -> np.ndarray:
    """Mean of each curve over the share removed. (orders, S) -> (orders,)"""
    if len(removed) < 2:
        return gap.mean(1)
    return np.trapezoid(gap, removed, axis=1) / (removed[-1] - removed[0])


def scores_of(
    model: nn.Module, batch: TokenBatch, tokens: np.ndarray, keep: np.ndarray, score: Score
) -> np.ndarray:
    """The score of copies of one sample that keep only some tokens. keep: (S, t) bool -> (S,) float64."""
    found, training = [], model.training
    share = max(1, COPIES // max(1, keep.shape[1]))
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(keep), share):
                copies = shortened(batch, tokens, torch.from_numpy(keep[start : start + share]))
                found.append(score(model(copies)).double().cpu().numpy())
    finally:
        model.train(training)
    return np.concatenate(found)


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
