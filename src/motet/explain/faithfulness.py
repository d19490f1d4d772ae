"""Whether to believe a view: take away what it calls important and watch the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.explain.capture import Score
from motet.explain.rollout import Importance
from motet.explain.views import View
from motet.types import Layout, TokenBatch

COPIES = 2**14  # tokens of shortened copies that go through the model at once
Verdict = Literal["faithful", "no better than chance", "worse than chance"]


@dataclasses.dataclass(frozen=True, eq=False)
class DeletionTest(View):
    """The score while tokens go, and while they come back, beside random and reversed order.

    Deletion: removed (S,), the fraction of the sample's tokens taken away, most important first;
    score (S,); reversed (S,), least important first; random (orders, S).
    Insertion: kept (S,), the fraction there, most important first; inserted (S,), the score. It is
    the reversed deletion read from the other end (`kept` = 1 - `removed`, backwards), and so are
    insertions in random order: `random[:, ::-1]`.

    Areas are means over the share removed: `area` of random - score, `insertion` of reversed - random,
    `between` of reversed - score, the two curves of this view. Above zero the view found what the answer
    hangs on, around zero it is no better than chance. `low`, `high` (and so on) hold 90 % of the
    areas against the single random orders; `between` less what a random order and its own reverse
    have between them. `verdict` goes by `between`, which asks both questions at once: a view
    that were itself a random order would be called faithful in one test of twenty.

    Sources: Samek et al. 2017, arXiv:1509.06321; Petsiuk et al. 2018, arXiv:1806.07421; for both ends
    together, Bluecher et al. 2024, arXiv:2401.06654.
    """

    method: str
    removed: np.ndarray
    score: np.ndarray
    reversed: np.ndarray
    random: np.ndarray
    kept: np.ndarray
    inserted: np.ndarray
    area: float
    low: float
    high: float
    insertion: float
    insertion_low: float
    insertion_high: float
    between: float
    between_low: float
    between_high: float
    verdict: Verdict


@dataclasses.dataclass(frozen=True, eq=False)
class DeletionSummary(View):
    """One view's tests over many items.

    share (S,): the fraction removed; score, reversed, random (S,): means over the items of each item's
    curve, drawn between its own points; the insertion curves are these from the other end. area,
    insertion, between: means over the items, `*_low` and `*_high` their 95 % bootstrap interval (items
    drawn again). verdicts: how many items each verdict was given to.
    """

    method: str
    items: int
    share: np.ndarray
    score: np.ndarray
    reversed: np.ndarray
    random: np.ndarray
    area: float
    area_low: float
    area_high: float
    insertion: float
    insertion_low: float
    insertion_high: float
    between: float
    between_low: float
    between_high: float
    verdicts: dict[str, int]


def summarise(
    tests: Sequence[DeletionTest], *, points: int = 21, resamples: int = 1000, seed: int = 0
) -> DeletionSummary:
    """The tests of one view on several items, together.

    Raises:
        ConfigError: no test, or tests of different views.
    """
    methods = {test.method for test in tests}
    if len(methods) != 1:
        raise ConfigError(
            f"explain: tests of {sorted(methods) or 'nothing'} cannot be summarised: pass one view's."
        )
    share = np.linspace(0.0, min(float(test.removed[-1]) for test in tests), points)
    chosen, backwards, random = (
        np.mean([np.interp(share, t.removed, line) for t, line in zip(tests, lines, strict=True)], axis=0)
        for lines in (
            [t.score for t in tests],
            [t.reversed for t in tests],
            [t.random.mean(0) for t in tests],
        )
    )
    areas = np.array([(test.area, test.insertion, test.between) for test in tests])
    drawn = np.random.default_rng(seed).integers(len(tests), size=(resamples, len(tests)))
    low, high = np.percentile(areas[drawn].mean(1), [2.5, 97.5], axis=0)
    mean = areas.mean(0)
    return DeletionSummary(
        methods.pop(), len(tests), share, chosen, backwards, random,
        float(mean[0]), float(low[0]), float(high[0]),
        float(mean[1]), float(low[1]), float(high[1]),
        float(mean[2]), float(low[2]), float(high[2]),
        {verdict: sum(test.verdict == verdict for test in tests) for verdict in get_args(Verdict)},
    )  # fmt: skip


def deletion_test(
    model: nn.Module,
    batch: TokenBatch,
    importance: Importance,
    score: Score,
    *,
    steps: int = 12,
    orders: int = 40,
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
    orders: int = 40,
    seed: int = 0,
) -> list[DeletionTest]:
    """Remove a sample's tokens in each view's order; all views meet the same random orders.

    `views` are of one sample; the order is by `signed`: what speaks against the answer goes last. The
    shortened copies go through the model as batches of samples. Steps are single tokens at both ends and
    grow towards the middle; one token always stays. `orders` random orders come as pairs, each with its
    reverse.
    """
    count = len(views[0].token)
    cut = _cuts(count, steps)
    shuffle = np.random.default_rng(seed)
    ranks = [np.argsort(-view.signed, kind="stable") for view in views]
    ranks += [shuffle.permutation(count) for _ in range(max(1, orders // 2))]
    ranks = [order for rank in ranks for order in (rank, rank[::-1])]
    keep = np.ones((len(ranks), len(cut), count), dtype=bool)
    for i, rank in enumerate(ranks):
        for step, gone in enumerate(cut):
            keep[i, step, rank[:gone]] = False
    curves = scores_of(model, batch, views[0].token, keep.reshape(-1, count), score)
    curves = curves.reshape(len(ranks), len(cut))
    random, removed = curves[2 * len(views) :], cut / max(count, 1)
    pairs = zip(curves[0::2], curves[1::2], strict=True)
    return [_judged(view, removed, *pair, random) for view, pair in zip(views, pairs, strict=False)]


def _cuts(count: int, steps: int) -> np.ndarray:
    """How many of `count` tokens are gone at each step: 0 to all but one, the same from both ends."""
    half = np.linspace(0, 1, steps // 2 + 1) ** 1.5 / 2
    return np.unique(np.rint((count - 1) * np.concatenate([half, 1 - half])).astype(int))


def _judged(
    view: Importance, removed: np.ndarray, chosen: np.ndarray, backwards: np.ndarray, random: np.ndarray
) -> DeletionTest:
    """`random` holds each order before its reverse."""
    gaps, back = _area(random - chosen, removed), _area(backwards - random, removed)
    chance = _area(random[1::2] - random[0::2], removed)
    both = _area((backwards - chosen)[None], removed) - np.concatenate([chance, -chance])
    low, high = np.percentile(gaps, [5, 95])
    back_low, back_high = np.percentile(back, [5, 95])
    both_low, both_high = np.percentile(both, [5, 95])
    verdict: Verdict = "no better than chance"
    if both_low > 0 or both_high < 0:
        verdict = "faithful" if both_low > 0 else "worse than chance"
    kept = 1.0 - removed[::-1]
    return DeletionTest(
        view.method, removed, chosen, backwards, random, kept, backwards[::-1],
        float(gaps.mean()), float(low), float(high),
        float(back.mean()), float(back_low), float(back_high),
        float(both.mean()), float(both_low), float(both_high), verdict,
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
