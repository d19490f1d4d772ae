"""The page of many explained inputs: which modality is used when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np

from motet.explain import draw
from motet.explain.style import Section, page
from motet.explain.whole import Group, Mean, Whole

FOOT = (
    "Made by Motet. A share says through what the answer was reached, a loss what it costs to leave it out: "
    "where the two disagree, believe the loss."
)
ROWS = 300
VERDICTS = {
    True: "Over all rows this view names what the answers hang on better than chance would.",
    False: "Over all rows this view is no better than chance at naming what the answers hang on.",
}


def whole_html(whole: Whole) -> str:
    """A page about many rows."""
    sections = [
        Section("Which modality is used", _used(whole), _about(whole)),
        Section("By answer, right and wrong", _by_answer(whole)),
        Section("Who listens to whom", _listens(whole)),
        Section("Whether to believe it", _believe(whole)),
        Section("The rows", _rows(whole)),
    ]
    return page(whole.title, [s for s in sections if s.body], head=_said(whole), foot=FOOT)


def whole_pictures(whole: Whole) -> dict[str, str]:
    """Every view as SVG, by name."""
    found = {"listens": _matrix_svg(whole)}
    if len(whole.groups) > 1:
        found |= {"share-by-answer": _heat(whole, "share"), "lost-by-answer": _heat(whole, "lost")}
    if whole.test is not None:
        found |= {"deletion": _curves_svg(whole, gone=True), "insertion": _curves_svg(whole, gone=False)}
    return found


def _about(whole: Whole) -> str:
    drawn = f"{len(whole.rows):,} rows" + (f", drawn from {whole.of:,}" if whole.of > len(whole.rows) else "")
    return f"{drawn}. Explained is the {whole.explained}."


def _said(whole: Whole) -> str:
    """The first sentence: what the model mostly goes by, and what it costs to lose it."""
    group = whole.all
    most = max(whole.modalities, key=lambda m: group.share[m].mean)
    share = group.share[most]
    reached = f"{draw.percent(share.mean)} of what reaches the answers comes through {escape(most)}"
    reached += f" ({_interval(share, draw.percent)})"
    known = [m for m in whole.modalities if np.isfinite(group.lost[m].mean)]
    if not known:
        return f'<p class="said">{reached}.</p>'
    dear = max(known, key=lambda m: group.lost[m].mean)
    lost = group.lost[dear]
    first = f"The answers need {escape(dear)} most: without it they fall by {lost.mean:.3f} on average"
    first += f" ({_interval(lost, _three)})."
    if most in known and most != dear:
        less = group.lost[most]
        fall = f"fall by only {less.mean:.3f}" if less.low > 0 else "hardly change"
        reached += f", but without it they {fall} ({_interval(less, _three)})"
    return f'<p class="said">{first}</p><p class="lead">{reached}.</p>'


def _interval(mean: Mean, form: Callable[[float], str]) -> str:
    return f"{form(mean.low)} to {form(mean.high)}"


def _three(value: float) -> str:
    return f"{value:.3f}"


def _used(whole: Whole) -> str:
    group, rows = whole.all, []
    for i, name in enumerate(whole.modalities):
        share, lost, changes = group.share[name], group.lost[name], group.changes[name]
        known = np.isfinite(lost.mean)
        rows.append(
            draw.row(
                escape(name),
                draw.bar_cell(share.mean, colour=f"var(--m{min(i, 5)})", extra=True),
                draw.number(draw.percent(share.mean)),
                draw.number(_interval(share, draw.percent), extra=True),
                draw.number(_three(lost.mean) if known else "\u2013"),
                draw.number(_interval(lost, _three) if known else "\u2013", extra=True),
                draw.number(draw.percent(changes.mean) if np.isfinite(changes.mean) else "\u2013"),
                draw.number(f"{group.there[name]:,}", extra=True),
            )
        )
    head = ("modality", "", ">share", "+95 %", ">lost without", "+95 %", ">label changes", "+rows")
    note = (
        "Share: of what reached the answer. Lost without: how much the answer falls when the modality is "
        "left out. Label changes: how often another label is likeliest then. Intervals by drawing rows again."
    )
    return draw.rows_table("What each modality does", head, rows) + f'<p class="note">{note}</p>'


def _name(group: Group) -> str:
    side = {None: "", True: ", right", False: ", wrong"}[group.right]
    return f"{group.said or 'all'}{side}"


def _heat(whole: Whole, field: str) -> str:
    values = np.array([[getattr(g, field)[m].mean for m in whole.modalities] for g in whole.groups])
    title = {"share": "Share of what reached the answer", "lost": "Lost without it"}[field]
    return draw.heat_map(
        np.maximum(np.nan_to_num(values), 0), [_name(group) for group in whole.groups],
        list(whole.modalities), title=title, cell=(96, 34),
    )  # fmt: skip


def _by_answer(whole: Whole) -> str:
    """Empty where the model gives no labels."""
    if len(whole.groups) < 2:
        return ""
    parts = []
    for field, title, note in (
        ("share", "Share of what reached the answer", "Means over the rows of each answer."),
        ("lost", "Lost without it", "Means; what rises when it is left out is drawn as zero."),
    ):
        rows: list[list[str | int | float]] = [
            [
                _name(group),
                group.rows,
                *(f"{mean.mean:.3f} ({_interval(mean, _three)})" for mean in getattr(group, field).values()),
            ]
            for group in whole.groups
        ]
        numbers = draw.table(["the model says", "rows", *whole.modalities], rows)
        parts.append(f"<div><h3>{title}</h3>{draw.figure(_heat(whole, field), note, numbers)}</div>")
    return f'<div class="columns">{"".join(parts)}</div>'


def _matrix_svg(whole: Whole) -> str:
    names = list(whole.modalities)
    return draw.heat_map(
        np.nan_to_num(whole.matrix), names, names, title="Attention of each modality to each modality",
        row_name="listens", col_name="to", most=2 / len(names),
    )  # fmt: skip


def _listens(whole: Whole) -> str:
    if len(whole.modalities) < 2:
        return ""
    rows: list[list[str | int | float]] = [
        [name, *map(float, line)] for name, line in zip(whole.modalities, whole.matrix, strict=True)
    ]
    note = "Means over the rows that have both; corrected for how many tokens each modality has."
    numbers = draw.table(["listens", *(f"to {name}" for name in whole.modalities)], rows)
    return draw.figure(_matrix_svg(whole), note, numbers)


def _curves_svg(whole: Whole, *, gone: bool) -> str:
    test = whole.test
    assert test is not None
    x = test.share if gone else 1 - test.share[::-1]
    lines = (test.score, test.random, test.reversed) if gone else (test.reversed, test.random, test.score)
    names = ("important", "random", "reversed")
    drawn = [
        draw.Line(name, x.tolist(), (y if gone else y[::-1]).tolist())
        for name, y in zip(names, lines, strict=True)
    ]
    lowest = min(float(y.min()) for y in lines)
    title = ("Deletion", "share of tokens taken away") if gone else ("Insertion", "share of tokens given")
    return draw.line_chart(drawn, title=title[0], x_name=title[1], y_name=whole.explained, zero=lowest >= 0)


def _believe(whole: Whole) -> str:
    test = whole.test
    if test is None:
        return ""
    figures = []
    for gone, name in ((True, "Deletion"), (False, "Insertion")):
        x = test.share if gone else 1 - test.share[::-1]
        lines: Sequence[np.ndarray] = (test.score, test.random, test.reversed)
        lines = lines if gone else [line[::-1] for line in reversed(lines)]
        rows = [[float(v) for v in row] for row in zip(x, *lines, strict=True)]
        head = ["removed" if gone else "given", "important first", "random", "reversed"]
        numbers = draw.table(head, rows, first=False)
        figures.append(f"<div><h3>{name}</h3>{draw.figure(_curves_svg(whole, gone=gone), '', numbers)}</div>")
    counts = ", ".join(f"{count:,} {verdict}" for verdict, count in test.verdicts.items())
    note = (
        f"{test.method}, mean of {test.items:,} rows: area between important-first and reversed curve "
        f"{test.between:+.3f} ({test.between_low:+.3f} to {test.between_high:+.3f}), against random order "
        f"{test.area:+.3f} ({test.area_low:+.3f} to {test.area_high:+.3f}). Row by row: {counts}."
    )
    good = test.between_low > 0
    said = f'<p class="verdict {"good" if good else "bad"}">{VERDICTS[good]}</p>'
    return f'{said}<div class="columns">{"".join(figures)}</div><p class="note">{note}</p>'


def _rows(whole: Whole) -> str:
    labels = any(row.said for row in whole.rows)
    rows: list[list[str | int | float]] = []
    for row in whole.rows[:ROWS]:
        marks = {True: "right", False: "wrong", None: ""}
        said = [row.said, row.truth, marks[row.right]] if labels else []
        shares = [row.used[m].share if m in row.used else float("nan") for m in whole.modalities]
        rows.append([row.id, *said, *("\u2013" if np.isnan(s) else f"{s:.2f}" for s in shares)])
    head = ["row", *(["the model says", "right answer", ""] if labels else []), *whole.modalities]
    more = len(whole.rows) - len(rows)
    left = f'<p class="note">and {more:,} more, in the numbers of --json</p>' if more > 0 else ""
    summary = "<summary>Every row, with the share of each modality</summary>"
    return f"<details>{summary}{draw.table(head, rows)}{left}</details>"
