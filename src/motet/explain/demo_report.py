"""The page of one whole run: what was trained, how well it does beside chance, where it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from motet.explain import draw, more, report
from motet.explain import media as show
from motet.explain.believe import believe_html
from motet.explain.item import Explained
from motet.explain.panel import panel_html
from motet.explain.style import Section, page

SHOWN = 6  # pictures found per query
MODEL = (
    "Every modality has its own transformer weights; all of them listen to each other through one attention."
)
RETRIEVAL = (
    "How often the right answer is among the first 1, 5 or 10, for rows that the model has never seen. "
    "The bar is R@10, the tick on it what chance would give."
)
SUBSETS = "The same model, asked with only some of its modalities. A filled dot: the modality was there."
LOOKED = (
    "Rows that the model has never seen. Attention shows where it looked, not why it answered: "
    "the deletion test under each says how far to believe the view."
)


@dataclass(frozen=True)
class Found:
    """One answer of a search. `right`: it is what was asked for."""

    picture: Path
    caption: str
    right: bool
    score: float


@dataclass(frozen=True)
class Query:
    """A query as typed, or as spoken (`sound`), and what was found, best first.

    `rank`: place of the right picture among all (1 is first), None where it is not known.
    """

    text: str
    found: tuple[Found, ...]
    sound: Path | None = None
    rank: int | None = None


@dataclass(frozen=True, eq=False)
class DemoReport:
    """All that the page shows.

    parts: rows per part ("train", "val", "test"). modalities: {"name", "kind", "pretrained", "note"}
    each, in the model's order; a note such as "synthesised" is repeated wherever the modality is
    shown. parameters: how many per modality and "shared". seconds: stage -> seconds. history: the
    rows of metrics.jsonl; metrics: metrics.json, as `evaluate` gave it. gallery: how many pictures
    the queries searched. commands: what to try next.
    """

    title: str
    about: str
    parts: Mapping[str, int]
    modalities: Sequence[Mapping[str, Any]]
    parameters: Mapping[str, int]
    seconds: Mapping[str, float]
    history: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any]
    queries: Sequence[Query]
    items: Sequence[Explained]
    gallery: int = 0
    commands: Sequence[str] = ()
    credits: str = ""

    def pairs(self) -> list[Mapping[str, Any]]:
        """Directions of retrieval that were measured, best first."""
        measured = [pair for pair in self.metrics.get("retrieval", []) if pair.get("n")]
        return sorted(measured, key=lambda pair: -pair["R@10"])

    def notes(self) -> dict[str, str]:
        """What to call the modalities that have a note: "synthesised speech"."""
        return {m["name"]: f"{m['note']} {m['name']}" for m in self.modalities if m.get("note")}

    def tasks(self) -> dict[str, Mapping[str, Any]]:
        """Tasks that had rows to be measured on."""
        return {name: task for name, task in self.metrics.get("tasks", {}).items() if task.get("n")}


def demo_report(data: DemoReport) -> str:
    """One self-contained HTML page."""
    tasks = data.tasks()
    searched = f"{data.gallery:,} pictures" if data.gallery else "the pictures"
    asked = f"Queries for rows that the model has never seen, against {searched}. The right one is outlined."
    sections = [
        Section("What was trained", _trained(data), MODEL),
        Section("Learning", _learning(data.history)),
        Section("Finding things", _retrieval(data), RETRIEVAL),
        Section("Searches", "".join(map(_query, data.queries)), asked),
        *(Section(name.capitalize(), _task(task), _lead(task)) for name, task in tasks.items()),
        Section("Missing modalities", "".join(_subsets(data, *task) for task in tasks.items()), SUBSETS),
        Section("Where it looked", "".join(_item(item, data.notes()) for item in data.items), LOOKED),
        Section("Try next", f"<pre>{escape(chr(10).join(data.commands))}</pre>" if data.commands else ""),
    ]
    there = [section for section in sections if section.body]
    return page(data.title, there, lead=data.about, head=_facts(data), foot=data.credits)


def _facts(data: DemoReport) -> str:
    parts = ", ".join(f"{n:,} {part}" for part, n in data.parts.items())
    facts = [
        (f"{sum(data.parts.values()):,}", "rows", parts),
        (f"{sum(data.parameters.values()) / 1e6:.1f} M", "parameters", f"{len(data.modalities)} modalities"),
    ]
    for best in data.pairs()[:1]:
        chance = f"chance {draw.percent(best['chance_R@10'])}"
        facts.append((draw.percent(best["R@10"]), f"{best['query']} to {best['answer']}, R@10", chance))
    for name, task in data.tasks().items():
        if task["kind"] == "classes":
            majority = f"majority class {task['baseline']['macro_f1']:.2f}"
            facts.append((f"{task['full']['macro_f1']:.2f}", f"{name}, macro-F1", majority))
    facts.append((f"{sum(data.seconds.values()):.0f} s", "in all", "on this machine"))
    boxes = "".join(
        f'<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class="more">{escape(more)}</dd></div>'
        for value, name, more in facts
    )
    return f'<dl class="facts">{boxes}</dl>'


def _trained(data: DemoReport) -> str:
    most = max(data.parameters.values(), default=1) or 1
    shared = {"name": "shared", "pretrained": "fusion and heads"}
    rows = []
    for i, modality in enumerate([*data.modalities, shared]):
        colour = 5 if modality is shared else i
        count = data.parameters.get(modality["name"], 0)
        note = f' <span class="note">({escape(modality["note"])})</span>' if modality.get("note") else ""
        start = f"<td>{escape(modality.get('pretrained') or 'from scratch')}</td>"
        size = draw.bar_cell(count / most, colour=_colour(colour), extra=True)
        rows.append(
            draw.row(_dot(colour) + escape(modality["name"]) + note, start, size, draw.number(f"{count:,}"))
        )
    sizes = draw.rows_table("Parameters", ("modality", "starts from", "", ">parameters"), rows)
    longest = max(data.seconds.values(), default=1.0) or 1.0
    stages = [(stage, seconds / longest, f"{seconds:.1f} s") for stage, seconds in data.seconds.items()]
    return (
        f'<div class="columns first"><div>{sizes}</div><div>{draw.bars(stages, caption="time")}</div></div>'
    )


def _learning(history: Sequence[Mapping[str, Any]]) -> str:
    epochs = [row for row in history if row.get("kind") == "epoch"]
    lines = []
    for key, name in (("val", "validation"), ("train", "training")):
        points = [(row["epoch"] + 1, row[key]["loss"]) for row in epochs if "loss" in row.get(key, {})]
        if len(points) > 1:
            lines.append(draw.Line(name, [x for x, _ in points], [y for _, y in points]))
    if not lines:
        return ""
    kept = next((row["epoch"] + 1 for row in epochs if row["step"] == epochs[-1].get("best_step")), None)
    mark = None if kept is None else (float(kept), "kept")
    picture = draw.line_chart(lines, title="Loss by epoch", x_name="epoch", y_name="loss", mark=mark)
    columns = [dict(zip(line.x, line.y, strict=True)) for line in lines]
    rows: list[list[str | int | float]] = [
        [str(x), *(float(column.get(x, np.nan)) for column in columns)] for x in sorted(set().union(*columns))
    ]
    caption = (
        "Mean loss of an epoch. The weights that were kept did best on the validation rows by the score "
        "that training watches, which need not be the loss."
    )
    return draw.figure(picture, caption, draw.table(["epoch", *(line.name for line in lines)], rows))


def _retrieval(data: DemoReport) -> str:
    rows = [
        draw.row(
            f'<span class="arrow">{escape(pair["query"])} \u2192 {escape(pair["answer"])}</span>',
            draw.number(draw.percent(pair["R@1"])),
            draw.number(draw.percent(pair["R@5"]), extra=True),
            draw.number(draw.percent(pair["R@10"])),
            draw.bar_cell(pair["R@10"], reference=pair["chance_R@10"], extra=True),
            draw.number(draw.percent(pair["chance_R@10"])),
            draw.number(f"{pair['median_rank']:g}"),
            draw.number(f"{pair['gallery']:,}", extra=True),
        )
        for pair in data.pairs()
    ]
    if not rows:
        return ""
    head = ("direction", ">R@1", "+R@5", ">R@10", "", ">chance", ">median rank", "+of")
    notes = [f"{m['name']} is {m['note']}" for m in data.modalities if m.get("note")]
    note = f'<p class="note">{escape("; ".join(notes).capitalize())}.</p>' if notes else ""
    return draw.rows_table("Retrieval beside chance", head, rows) + note


def _query(query: Query) -> str:
    how = "synthesised speech" if query.sound else "typed"
    rank = f", the right one at place {query.rank:,}" if query.rank else ""
    player = show.played(query.sound, f"{query.text}, {how}") if query.sound else ""
    hits = "".join(map(_hit, query.found[:SHOWN]))
    asked = f'<h3>\u201c{escape(query.text)}\u201d</h3><p class="note">{how}{rank}</p>{player}'
    return f'<div class="query"><div>{asked}</div><ol class="hits">{hits}</ol></div>'


def _hit(hit: Found) -> str:
    caption, uri = escape(hit.caption), show.picture_uri(hit.picture, side=144)
    right = "<b>right</b>" if hit.right else ""
    kind = ' class="right"' if hit.right else ""
    return f'<li{kind}><img src="{uri}" alt="{caption}"><span>{caption}</span>{right}</li>'


def _lead(task: Mapping[str, Any]) -> str:
    return f"{task['n']:,} rows that the model has never seen, with everything it can be given."


def _task(task: Mapping[str, Any]) -> str:
    full, base = task["full"], task["baseline"]
    if task["kind"] != "classes":
        names = {"mae": "mean absolute error", "rmse": "root mean squared error", "pearson": "Pearson"}
        rows = [
            draw.row(names[key], draw.number(_plain(full.get(key))), draw.number(_plain(base.get(key))))
            for key in names
        ]
        return draw.rows_table("Beside the median", ("measure", ">model", ">always the median"), rows)
    names = {"accuracy": "accuracy", "macro_f1": "macro-F1", "weighted_f1": "weighted F1"}
    rows = [
        draw.row(
            name,
            draw.bar_cell(full[key], reference=base[key], extra=True),
            draw.number(_plain(full[key])),
            draw.number(_plain(base[key])),
        )
        for key, name in names.items()
    ]
    scores = draw.rows_table("Beside the majority class", ("measure", "", ">model", ">majority"), rows)
    counts, classes = np.array(full["confusion"]), list(task["classes"])
    behind: list[list[str | int | float]] = [[c, *counts[i].tolist()] for i, c in enumerate(classes)]
    numbers = draw.table(["true", *classes], behind)
    picture = draw.confusion(counts, classes, title="Confusion of true and predicted classes")
    note = f"The tick is what always answering \u201c{base['label']}\u201d would score."
    shown = draw.figure(picture, "Counts; the colour is the share of the true class.", numbers)
    return (
        f'<div class="columns"><div>{scores}<p class="note">{escape(note)}</p></div><div>{shown}</div></div>'
    )


def _plain(value: float | None) -> str:
    return "\u2013" if value is None else f"{value:.3f}"


def _subsets(data: DemoReport, name: str, task: Mapping[str, Any]) -> str:
    names = [modality["name"] for modality in data.modalities]
    key, measure = ("macro_f1", "macro-F1") if task["kind"] == "classes" else ("mae", "mean absolute error")
    base = task["baseline"].get(key)
    rows = []
    for subset in task["subsets"]:
        if not subset.get("n"):
            continue
        there = subset["modalities"]
        dots = "".join(_dot(i, on=m in there) for i, m in enumerate(names))
        drawn = '<td class="extra"></td>'
        if key == "macro_f1":
            drawn = draw.bar_cell(subset[key], reference=base, extra=True)
        score, count = draw.number(_plain(subset[key])), draw.number(f"{subset['n']:,}")
        label = f'<span class="dots">{dots}</span>{escape(" + ".join(there))}'
        rows.append(draw.row(label, drawn, score, count, kind="top" if len(there) == len(names) else ""))
    helps = "".join(f"<li>{escape(said['sentence'])}</li>" for said in task.get("helps", []))
    return draw.rows_table(f"{name} by modalities", (name, "", f">{measure}", ">rows"), rows) + (
        f'<ul class="note">{helps}</ul>' if helps else ""
    )


def _item(item: Explained, notes: Mapping[str, str]) -> str:
    media = {m: replace(shown, note=notes.get(m, shown.note)) for m, shown in item.media.items()}
    item = replace(item, media=media)
    answer = report.reached_html(item) + more.matrix_html(item)
    return (
        f'<div class="item"><h3>{escape(item.title)}</h3>{report.said_html(item)}{panel_html(item)}{answer}'
        f"<details><summary>Whether to believe it</summary>{believe_html(item)}</details></div>"
    )


def _colour(i: int) -> str:
    return f"var(--m{min(i, 5)})"


def _dot(i: int, *, on: bool = True) -> str:
    kind = "dot" if on else "dot off"
    return f'<span class="{kind}" style="--c:{_colour(i)}" aria-hidden="true"></span>'
