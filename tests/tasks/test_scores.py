"""Cosines read as probabilities, on vectors whose cosines are known."""

from __future__ import annotations

import numpy as np
import pytest

from motet.config import from_dict, to_dict
from motet.tasks.scores import LEVELS, PairScores, Scores, fit_odds, learn_scores, measure_scores
from motet.types import Piece, Sample


def planted(rows: int, seed: int, *, noise: float = 1.0) -> tuple[dict[str, np.ndarray], list[Sample]]:
    """Two noisy views of each row's direction, and samples whose contents differ."""
    draw = np.random.default_rng(seed)
    truth = draw.normal(size=(rows, 24))

    def view() -> np.ndarray:
        x = truth + noise * draw.normal(size=truth.shape)
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)

    def piece(i: int) -> Piece:
        return Piece(np.array([i]), np.zeros(1, np.float32))

    samples = [Sample(str(i), {"a": piece(i), "b": piece(10_000 + i)}) for i in range(rows)]
    return {"a": view(), "b": view()}, samples


def test_odds_of_two_bells_are_the_line_of_bayes() -> None:
    draw = np.random.default_rng(0)
    true, random = 0.5 + 0.1 * draw.normal(size=40_000), 0.1 * draw.normal(size=200_000)
    slope, intercept = fit_odds(true, random) or (0.0, 0.0)
    # log N(x; .5, .1) - log N(x; 0, .1) = 50 x - 12.5
    assert slope == pytest.approx(50, rel=0.05) and intercept == pytest.approx(-12.5, rel=0.05)


def test_no_odds_where_true_pairs_are_not_nearer() -> None:
    draw = np.random.default_rng(0)
    assert fit_odds(draw.normal(size=50) - 1, draw.normal(size=500)) is None
    apart = fit_odds(np.full(30, 0.9), np.full(900, 0.1))  # apart for good: sure, but never quite
    assert apart is not None and np.isfinite(apart).all()


def test_probabilities_hold_on_other_rows_and_rise() -> None:
    scores = learn_scores(*planted(400, 0))
    pair = scores.of("b", "a")
    assert pair is not None and pair is scores.of("a", "b")
    grid = np.linspace(-1, 1, 41)
    chances = [pair.match(x) or 0.0 for x in grid]
    shares = [pair.above(x) for x in grid]
    assert (np.diff(chances) >= 0).all() and chances[0] < 0.01 and chances[-1] > 0.99
    assert (np.diff(shares) >= 0).all() and (shares[0], shares[-1]) == (0.0, 1.0)
    (found,) = measure_scores(scores, *planted(400, 1))
    assert found["pairs"] == 400 and found["auroc"] > 0.95 and found["ece"] < 0.06
    moved = Scores((PairScores("a", "b", pair.random, pair.slope, (pair.intercept or 0) + 4),))
    assert measure_scores(moved, *planted(400, 1))[0]["ece"] > 0.15


def test_the_share_of_unrelated_pairs_is_that_of_other_rows() -> None:
    pair = learn_scores(*planted(300, 2)).of("a", "a")
    assert pair is not None and pair.match(0.9) is None  # no two rows of one modality belong together
    vectors, _ = planted(300, 3)
    cosines = (vectors["a"] @ vectors["a"].T)[np.triu_indices(300, 1)]
    for share in (0.5, 0.9, 0.99):
        assert pair.above(float(np.quantile(cosines, share))) == pytest.approx(share, abs=0.02)
    assert len(pair.random) == len(LEVELS)


def test_rows_of_one_group_belong_together_and_copies_say_nothing() -> None:
    vectors, samples = planted(80, 4)
    same = [Sample(s.id, s.pieces, group=f"g{i // 2}") for i, s in enumerate(samples)]
    vectors["a"][1::2] = vectors["a"][::2]  # the two of a group look alike
    scores = learn_scores(vectors, same).of("a", "a")
    assert scores is not None and (scores.match(1.0) or 0) > 0.9
    copies = [Sample(s.id, {"a": same[i // 2 * 2].pieces["a"]}, group=s.group) for i, s in enumerate(same)]
    alone = learn_scores({"a": vectors["a"]}, copies).of("a", "a")
    assert alone is not None and alone.slope is None


def test_few_rows_give_no_probability_and_json_keeps_all() -> None:
    few = learn_scores(*planted(12, 5))
    assert all(pair.slope is None for pair in few.pairs)
    scores = learn_scores(*planted(60, 6))
    assert from_dict(Scores, to_dict(scores), where="test") == scores
    assert learn_scores({}, []) == Scores() and scores.of("a", "smell") is None
