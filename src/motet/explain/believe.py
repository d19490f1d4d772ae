"""The deletion and insertion test of a page: both curves, their areas, and what they come to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from motet.explain import draw
from motet.explain.faithfulness import DeletionTest
from motet.explain.item import Explained
from motet.explain.said import BELIEVE

MEAN = (
    "Areas are means over the share of tokens, in units of the answer, with the range that holds 90\u202f% "
    "of the random orders: deletion and insertion against random order, both ends against the reversed "
    "order. Above zero is better than chance. Rollout is attention alone."
)


def believe_html(item: Explained) -> str:
    """Empty where nothing was tested."""
    test = item.deletion
    if test is None:
        return ""
    charts = (deletion_svg(item), insertion_svg(item))
    back = test.random[:, ::-1]
    notes = (
        "Taken away, most important first: the lower, the better the view.",
        "Given, most important first: the higher, the better the view.",
    )
    tables = (
        _numbers("removed", test.removed, test.score, test.random.mean(0), test.reversed),
        _numbers("given", test.kept, test.inserted, back.mean(0), test.score[::-1]),
    )
    figures = "".join(
        f"<div><h3>{name}</h3>{draw.figure(chart, note, table)}</div>"
        for name, chart, note, table in zip(("Deletion", "Insertion"), charts, notes, tables, strict=True)
    )
    good = "good" if test.verdict == "faithful" else "bad"
    said = f'<p class="verdict {good}">{BELIEVE[test.verdict]}</p>'
    return said + f'<div class="columns">{figures}</div>' + tests_html(item.tests)


def deletion_svg(item: Explained) -> str:
    """The answer while tokens go. `item` has a test."""
    test = _tested(item)
    title = ("Deletion", "share of tokens taken away", item.answer)
    return _curves(title, test.removed, (test.score, test.reversed), test.random)


def insertion_svg(item: Explained) -> str:
    """The answer while tokens come. `item` has a test."""
    test = _tested(item)
    title = ("Insertion", "share of tokens given", item.answer)
    return _curves(title, test.kept, (test.inserted, test.score[::-1]), test.random[:, ::-1])


def _tested(item: Explained) -> DeletionTest:
    assert item.deletion is not None
    return item.deletion


def _curves(
    names: tuple[str, str, str], x: np.ndarray, ours: tuple[np.ndarray, np.ndarray], random: np.ndarray
) -> str:
    """Important first and reversed, over the mean and the 95 % band of random orders. random: (orders, S)"""
    kinds = ("important", "random", "reversed")
    lines = [
        draw.Line(kind, x.tolist(), y.tolist())
        for kind, y in zip(kinds, (ours[0], random.mean(0), ours[1]), strict=True)
    ]
    low, high = np.percentile(random, [2.5, 97.5], axis=0)
    lowest = min(float(curve.min()) for curve in (*ours, random))
    return draw.line_chart(
        lines, title=names[0], x_name=names[1], y_name=names[2], zero=lowest >= 0,
        band=(x.tolist(), low.tolist(), high.tolist()),
    )  # fmt: skip


def _numbers(name: str, x: np.ndarray, ours: np.ndarray, random: np.ndarray, back: np.ndarray) -> str:
    rows = [[float(v) for v in row] for row in zip(x, ours, random, back, strict=True)]
    return draw.table([name, "important first", "random", "reversed"], rows, first=False)


def tests_html(tests: Sequence[DeletionTest]) -> str:
    """Every view's areas with their intervals, and what they come to."""

    def area(mean: float, low: float, high: float) -> str:
        return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"

    rows: list[list[str | int | float]] = [
        [
            test.method,
            test.verdict,
            area(test.between, test.between_low, test.between_high),
            area(test.area, test.low, test.high),
            area(test.insertion, test.insertion_low, test.insertion_high),
        ]
        for test in tests
    ]
    table = draw.table(["view", "verdict", "both ends", "deletion", "insertion"], rows)
    return f'<h3>Each view, tested the same way</h3>{table}<p class="note">{MEAN}</p>'
