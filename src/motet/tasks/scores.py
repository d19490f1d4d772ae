"""Cosines that mean something: read against pairs of validation rows, related and unrelated.

A cosine of 0.4 may be a sure find between a text and a picture and nothing between two pictures. So
for every two modalities the end of training keeps where the cosines of unrelated pairs lie, and how
likely a pair belongs together at each cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motet.metrics import auroc, calibration_error
from motet.tasks.retrieve import Belonging
from motet.types import Sample

FEWEST = 20  # true pairs: on fewer, the probability would say more about chance than about the model
MOST_ROWS = 1000  # of each part; their pairs are a million
LEVELS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)

Array = NDArray[Any]


@dataclass(frozen=True)
class PairScores:
    """How cosines between two modalities read; their order does not matter.

    random: the cosines below which the shares `LEVELS` of unrelated pairs lie. slope, intercept: the
    log-odds of belonging together are slope * cosine + intercept if one of two such pairs does; None
    where validation had fewer than 20 true pairs, or true pairs were not the nearer ones.
    """

    first: str
    second: str
    random: tuple[float, ...]
    slope: float | None = None
    intercept: float | None = None

    def above(self, cosine: float) -> float:
        """The share of unrelated pairs that are less alike."""
        return float(np.interp(cosine, self.random, LEVELS))

    def match(self, cosine: float) -> float | None:
        """The probability that a pair of this cosine belongs together, at even odds beforehand."""
        if self.slope is None or self.intercept is None:
            return None
        return float(_sigmoid(np.array(self.slope * cosine + self.intercept)))


@dataclass(frozen=True)
class Scores:
    """One entry for every two modalities of a model, one with itself included."""

    pairs: tuple[PairScores, ...] = ()

    def of(self, a: str, b: str) -> PairScores | None:
        return next((pair for pair in self.pairs if {pair.first, pair.second} == {a, b}), None)


def learn_scores(embeddings: Mapping[str, Array], samples: Sequence[Sample]) -> Scores:
    """Read the cosines of validation rows. embeddings[m]: (N, E) for the N samples, of unit length.

    Pairs that belong together are those that `evaluate_retrieval` calls right; within one modality,
    rows of one group that differ. Both kinds of pairs weigh the same, so that the odds are even.

    Source: Platt 1999, "Probabilistic Outputs for Support Vector Machines", with his smoothed targets.
    """
    found = []
    for a, b in combinations_with_replacement(embeddings, 2):
        true, random = _cosines(embeddings, samples, a, b)
        if len(random) < FEWEST:
            continue
        quantiles = tuple(float(value) for value in np.quantile(random, LEVELS))
        line = fit_odds(true, random) if len(true) >= FEWEST else None
        found.append(PairScores(a, b, quantiles, *(line or (None, None))))
    return Scores(tuple(found))


def measure_scores(
    scores: Scores, embeddings: Mapping[str, Array], samples: Sequence[Sample]
) -> list[dict[str, Any]]:
    """How well the probabilities hold on other rows, true and unrelated pairs weighing the same.

    One entry a pair of modalities: {"a", "b", "pairs", "unrelated", "auroc", "ece"}; `ece` as for
    classes, over 10 bins, on as many unrelated pairs as true ones.
    """
    said = []
    for pair in scores.pairs:
        true, random = _cosines(embeddings, samples, pair.first, pair.second)
        if pair.slope is None or pair.intercept is None or not len(true) or not len(random):
            continue
        drawn = np.random.default_rng(0).choice(random, size=len(true), replace=len(true) > len(random))
        chance = _sigmoid(pair.slope * np.concatenate([true, drawn]) + pair.intercept)
        labels = np.repeat([1, 0], len(true))
        both = np.stack([1 - chance, chance], axis=1)
        area = auroc(both[:, 1:], 1 - labels)
        said.append(
            {
                "a": pair.first,
                "b": pair.second,
                "pairs": len(true),
                "unrelated": len(random),
                "auroc": area,
                "ece": calibration_error(both, labels),
            }
        )
    return said


def fit_odds(true: Array, random: Array) -> tuple[float, float] | None:
    """(slope, intercept) of the log-odds of a true pair given its cosine; None where they do not rise.

    true: (n,), random: (m,) cosines; each kind weighs one half in the cross-entropy, which Newton's
    method minimises.
    """
    x = np.concatenate([true, random]).astype(np.float64)
    n, m = len(true), len(random)
    target = np.repeat([(n + 1) / (n + 2), 1 / (m + 2)], [n, m])
    weight = np.repeat([0.5 / n, 0.5 / m], [n, m])
    middle, spread = float(x.mean()), float(x.std()) or 1.0
    design = np.stack([(x - middle) / spread, np.ones_like(x)], axis=1)  # (n + m, 2)
    beta = np.zeros(2)
    for _ in range(100):
        p = _sigmoid(design @ beta)
        gradient = design.T @ (weight * (p - target)) + 1e-6 * beta
        curve = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-6 * np.eye(2)
        step = np.linalg.solve(curve, gradient)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))  # far steps overshoot where p is flat
        beta -= step
        if float(np.abs(step).max()) < 1e-9:
            break
    slope = float(beta[0] / spread)
    return (slope, float(beta[1] - slope * middle)) if slope > 0 else None


def _cosines(
    embeddings: Mapping[str, Array], samples: Sequence[Sample], a: str, b: str
) -> tuple[Array, Array]:
    """Cosines of the pairs that belong together, and of those that do not."""
    rows = Belonging(samples[:MOST_ROWS], tuple({a: 0, b: 0}))
    q, g = np.flatnonzero(rows.has[a]), np.flatnonzero(rows.has[b])
    if not len(q) or not len(g):
        return np.zeros(0), np.zeros(0)
    cosines = embeddings[a][q].astype(np.float64) @ embeddings[b][g].astype(np.float64).T
    together = rows.together(a, b, q, g)
    trivial = rows.equal(a, q, g) if a == b else np.zeros_like(together)  # the row itself, and copies
    return cosines[together & ~trivial], cosines[~together]


def _sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(0.5 * x))
