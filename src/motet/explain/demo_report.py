"""The page of one whole run: what was trained, how well it does beside chance, where it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from motet.explain import draw, report
from motet.explain import media as show
from motet.explain.item import Explained
from motet.explain.style import Section, page

SHOWN = 6  # pictures found per query


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
    rows of metrics.jsonl; metrics: metrics.json, as `evaluate` gave it. commands: what to try next.
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


def demo_report(data: DemoReport) -> str:
    """One self-contained HTML page."""
    tasks = {name: task for name, task in data.metrics.get("tasks", {}).items() if task.get("n")}
    sections = [
        Section("What was trained", _trained(data)),
        *([Section("Learning", _learning(data))] if _curves(data) else []),
        *([Section("Finding things", _retrieval(data), _retrieval_lead(data))] if data.metrics.get("retrieval") else []),
        *([Section("Searches", _queries(data), _queries_lead(data))] if data.queries else []),
        *(Section(name.capitalize(), _task(task), _task_lead(task)) for name, task in tasks.items()),
        *([Section("Missing modalities", _subsets(data, tasks), _SUBSETS)] if tasks else []),
        *([Section("Where it looked", _items(data), _LOOKED)] if data.items else []),
        *([Section("Try next", f"<pre>{escape(chr(10).join(data.commands))}</pre>")] if data.commands else []),
    ]
    return page(data.title, sections, lead=data.about, head=_facts(data), foot=data.credits)


_SUBSETS = (
    "The same model, asked with only some of its modalities. A filled dot means that the modality was there."
)
_LOOKED = (
    "Rows of the test part. Attention shows where the model looked, not why it answered: "
    "the deletion test under each says how far to believe the view."
)


def _facts(data: DemoReport) -> str:
    best = max((pair for pair in data.metrics.get("retrieval", []) if pair.get("n")), key=lambda p: p["R@10"], default=None)
    facts = [(f"{sum(data.parts.values()):,}", "rows", ", ".join(f"{n:,} {part}" for part, n in data.parts.items()))]
    facts.append((f"{sum(data.parameters.values()) / 1e6:.1f} M", "trained parameters", f"{len(data.modalities)} modalities"))
    if best:
        facts.append((_percent(best["R@10"]), f"{best['query']} to {best['answer']}, R@10", f"chance {_percent(best['chance_R@10'])}"))
    for name, task in data.metrics.get("tasks", {}).items():
        if task.get("n") and task["kind"] == "classes":
            base = task["baseline"]["macro_f1"]
            facts.append((f"{task['full']['macro_f1']:.2f}", f"{name}, macro-F1", f"always the majority: {base:.2f}"))
    facts.append((f"{sum(data.seconds.values()):.0f} s", "in all", "on this machine"))
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(more)}</small></dd></div>" for value, name, more in facts)
    return f'<dl class="facts">{rows}</dl>'


def _trained(data: DemoReport) -> str:
    most = max(data.parameters.values(), default=1) or 1
    rows = []
    for i, modality in enumerate(data.modalities):
        count = data.parameters.get(modality["name"], 0)
        start = modality.get("pretrained") or "from scratch"
        note = f" <span class=note>({escape(modality['note'])})</span>" if modality.get("note") else ""
        rows.append(
            f"<tr><th scope=row>{_dot(i)}{escape(modality['name'])}{note}</th><td>{escape(str(start))}</td>"
            f"<td class=wide>{draw.bar(count / most, colour=_colour(i))}</td><td class=n>{count:,}</td></tr>"
        )
    shared = data.parameters.get("shared", 0)
    rows.append(
        f"<tr><th scope=row>{_dot(5)}shared</th><td>fusion and heads</td>"
        f"<td class=wide>{draw.bar(shared / most, colour=_colour(5))}</td><td class=n>{shared:,}</td></tr>"
    )
    head = "<thead><tr><th scope=col>modality</th><th scope=col>starts from</th><th></th><th scope=col class=n>parameters</th></tr></thead>"
    models = draw.scroll(f"{head}<tbody>{''.join(rows)}</tbody>", "Parameters per modality")
    stages = draw.table(["stage", "seconds"], [[stage, round(seconds, 1)] for stage, seconds in data.seconds.items()])
    return (
        "<p>Every modality has its own transformer weights; all of them listen to each other through one "
        f'attention.</p><div class="columns"><div>{models}</div><div>{stages}</div></div>'
    )


def _curves(data: DemoReport) -> list[draw.Line]:
    epochs = [row for row in data.history if row.get("kind") == "epoch"]
    lines = []
    for key, name in (("val", "unseen rows"), ("train", "training rows")):
        points = [(row["epoch"], row[key]["loss"]) for row in epochs if "loss" in row.get(key, {})]
        if len(points) > 1:
            lines.append(draw.Line(name, [x for x, _ in points], [y for _, y in points]))
    return lines


def _learning(data: DemoReport) -> str:
    lines = _curves(data)
    epochs = [row for row in data.history if row.get("kind") == "epoch"]
    best = next((row["epoch"] for row in epochs if row.get("step") == epochs[-1].get("best_step")), None)
    mark = None if best is None else (float(best), "kept")
    picture = draw.line_chart(lines, title="Loss by epoch", x_name="epoch", y_name="loss", mark=mark)
    columns = {line.name: dict(zip(line.x, line.y, strict=True)) for line in lines}
    xs = sorted({x for line in lines for x in line.x})
    rows = [[str(x), *(float(column.get(x, float("nan"))) for column in columns.values())] for x in xs]
    caption = "Mean loss of an epoch. The weights that were kept are those that did best on unseen rows of the validation part."
    return draw.figure(picture, caption, draw.table(["epoch", *columns], rows))


def _retrieval_lead(data: DemoReport) -> str:
    return (
        "How often the right answer is among the first 1, 5 or 10, for concepts that the model has never seen. "
        "The tick on a bar is what chance would give."
    )


def _retrieval(data: DemoReport) -> str:
    rows = []
    for pair in sorted((p for p in data.metrics["retrieval"] if p.get("n")), key=lambda p: -p["R@10"]):
        cells = "".join(f"<td class=n>{_percent(pair[key])}</td>" for key in ("R@1", "R@5", "R@10"))
        rows.append(
            f"<tr><th scope=row>{escape(pair['query'])} \u2192 {escape(pair['answer'])}</th>{cells}"
            f"<td class=wide>{draw.bar(pair['R@10'], reference=pair['chance_R@10'])}</td>"
            f"<td class=n>{_percent(pair['chance_R@10'])}</td><td class=n>{pair['median_rank']:g}</td>"
            f"<td class=n>{pair['gallery']:,}</td></tr>"
        )
    names = ("direction", "R@1", "R@5", "R@10", "R@10", "chance", "median rank", "of")
    head = "".join(
        f'<th scope=col{"" if i in (0, 4) else " class=n"}>{"" if i == 4 else name}</th>' for i, name in enumerate(names)
    )
    notes = [f"{m['name']} is {m['note']}" for m in data.modalities if m.get("note")]
    note = f"<p class=note>{escape('; '.join(notes).capitalize())}.</p>" if notes else ""
    return draw.scroll(f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>", "Retrieval beside chance") + note


def _queries_lead(data: DemoReport) -> str:
    return f"Queries for concepts that the model has never seen, against {data.gallery:,} pictures. The right one is outlined."


def _queries(data: DemoReport) -> str:
    blocks = []
    for query in data.queries:
        how = "synthesised speech" if query.sound else "typed"
        rank = f", right picture at place {query.rank:,}" if query.rank else ""
        sound = show.player(query.sound, f"{query.text}, {how}") if query.sound else ""
        hits = "".join(
            f"<li{' class=right' if hit.right else ''}><img src=\"{show.picture_uri(hit.picture, side=144)}\" "
            f'alt="{escape(hit.caption)}" loading="lazy"><span>{escape(hit.caption)}</span>{"<b>right</b>" if hit.right else ""}</li>'
            for hit in query.found[:SHOWN]
        )
        blocks.append(
            f'<div class="query"><div><h3>\u201c{escape(query.text)}\u201d</h3><p class="note">{how}{rank}</p>{sound}</div>'
            f'<ol class="hits">{hits}</ol></div>'
        )
    return f'<div class="queries">{"".join(blocks)}</div>'


def _task_lead(task: Mapping[str, Any]) -> str:
    return f"{task['n']:,} rows of the test part, with everything the model can be given."


def _task(task: Mapping[str, Any]) -> str:
    full, base = task["full"], task["baseline"]
    if task["kind"] != "classes":
        keys = [key for key in ("mae", "rmse", "pearson") if full.get(key) is not None]
        rows = [[key, float(full[key]), base.get(key) if base.get(key) is None else float(base[key])] for key in keys]
        return draw.table(["", "model", "always the median"], [[k, v, "-" if b is None else b] for k, v, b in rows])
    compared = []
    for key, name in (("accuracy", "accuracy"), ("macro_f1", "macro-F1"), ("weighted_f1", "weighted F1")):
        compared.append(
            f"<tr><th scope=row>{name}</th><td class=wide>{draw.bar(full[key], reference=base[key])}</td>"
            f"<td class=n>{full[key]:.3f}</td><td class=n>{base[key]:.3f}</td></tr>"
        )
    head = "<thead><tr><th></th><th></th><th scope=col class=n>model</th><th scope=col class=n>majority</th></tr></thead>"
    counts, classes = np.array(full["confusion"]), list(task["classes"])
    numbers = draw.table(["true", *classes], [[c, *map(int, counts[i])] for i, c in enumerate(classes)])
    picture = draw.figure(
        draw.confusion(counts, classes, title="Confusion of true and predicted classes"),
        "Counts; the colour is the share of the true class.",
        numbers,
    )
    note = f"<p class=note>The tick is what always answering \u201c{escape(str(base['label']))}\u201d would score.</p>"
    left = draw.scroll(f"{head}<tbody>{''.join(compared)}</tbody>", "Beside the majority class") + note
    return f'<div class="columns"><div>{left}</div><div>{picture}</div></div>'


def _subsets(data: DemoReport, tasks: Mapping[str, Mapping[str, Any]]) -> str:
    names = [modality["name"] for modality in data.modalities]
    blocks = []
    for task_name, task in tasks.items():
        key, label = ("macro_f1", "macro-F1") if task["kind"] == "classes" else ("mae", "mean absolute error")
        base = float(task["baseline"].get(key, 0.0))
        rows = []
        for subset in task["subsets"]:
            if not subset.get("n"):
                continue
            dots = "".join(_dot(i, on=name in subset["modalities"]) for i, name in enumerate(names))
            drawn = draw.bar(subset[key], reference=base) if key == "macro_f1" else ""
            top = " class=top" if len(subset["modalities"]) == len(names) else ""
            rows.append(
                f'<tr{top}><td class="dots">{dots}</td><th scope=row>{escape(" + ".join(subset["modalities"]))}</th>'
                f"<td class=wide>{drawn}</td><td class=n>{subset[key]:.3f}</td><td class=n>{subset['n']:,}</td></tr>"
            )
        head = f"<thead><tr><th></th><th scope=col>{escape(task_name)}</th><th></th><th scope=col class=n>{label}</th><th scope=col class=n>rows</th></tr></thead>"
        says = "".join(f"<li>{escape(helps['sentence'])}</li>" for helps in task.get("helps", []))
        blocks.append(draw.scroll(f"{head}<tbody>{''.join(rows)}</tbody>", f"{task_name} by modalities"))
        blocks.append(f'<ul class="note">{says}</ul>' if says else "")
    return "".join(blocks)


def _items(data: DemoReport) -> str:
    blocks = []
    for item in data.items:
        left = report.input_html(item) + report.answer_html(item)
        blocks.append(
            f'<div class="item"><h3>{escape(item.title)}</h3><div class="columns"><div>{left}</div>'
            f"<div>{report.matrix_html(item)}</div></div>{report.pictures_html(item)}{report.reached_html(item)}</div>"
        )
    return "".join(blocks)


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", "\u202f%") if share < 0.1 else f"{share:.0%}".replace("%", "\u202f%")


def _colour(i: int) -> str:
    return f"var(--m{min(i, 5)})"


def _dot(i: int, *, on: bool = True) -> str:
    return f'<span class="dot{"" if on else " off"}" style="--c:{_colour(i)}" aria-hidden="true"></span>'
