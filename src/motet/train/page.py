"""run.html: what a person looks at first. The curves of a run, by modality and by objective, as they grow.

Made from the run's own files and nothing else, so it can be made at any time, also of a run that crashed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from motet.errors import StorageError
from motet.explain.draw import rows_table, table
from motet.explain.style import Section, page
from motet.train.charts import Curve, chart, series
from motet.train.run import read_lines
from motet.train.runs import RunSummary, flat, length, summary_of

PAGE, TIMING = "run.html", "timing.jsonl"
Row = Mapping[str, Any]


def write_page(folder: Path) -> Path:
    """Write RUN/run.html anew, in one step.

    Raises:
        StorageError: it cannot be written.
    """
    path, fresh = folder / PAGE, folder / f".{PAGE}.new"
    try:
        fresh.write_text(run_page(folder), "utf-8")
        os.replace(fresh, path)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}. Free some space.") from None
    return path


def run_page(folder: Path) -> str:
    """One self-contained HTML document of a run's folder."""
    rows = read_lines(folder / "metrics.jsonl")
    steps = [row for row in rows if row.get("kind") == "step"]
    epochs = [row for row in rows if row.get("kind") == "epoch"]
    skipped = [row for row in rows if row.get("kind") == "skipped"]
    timing = read_lines(folder / TIMING)
    summary = summary_of(folder)
    best = epochs[-1]["best_step"] if epochs else None
    sections = [
        Section("Learning", _learning(steps, epochs, best)),
        Section("Validation", _validation(epochs, best), _chosen(summary)),
        Section("Objectives", _objectives(steps, epochs)),
        Section("Modalities", _modalities(steps, epochs), _MODALITIES),
        Section("Speed and memory", _speed(timing)),
        Section("Batches left out", _skipped(skipped), _SKIPPED if skipped else ""),
        Section("On rows that it never saw", _judged(folder)),
        Section("Settings", _settings(folder)),
    ]
    lead = f"{summary.status.capitalize()}: {_sentence(summary)}"
    return page(
        f"Run {folder.name}",
        [section for section in sections if section.body],
        lead=lead,
        head=_facts(summary, timing),
        foot=f"Made from the files of {folder}. Dashed vertical lines mark the best step.",
    )


_MODALITIES = (
    "One line a modality, and one for what is shared. A gradient that stays near zero, or far above the "
    "others, is a modality that does not learn, or that drowns the rest."
)
_SKIPPED = "Their loss or gradient was not finite, or the loss spiked. The weights were left as they were."


def _sentence(summary: RunSummary) -> str:
    done = f"{summary.epochs} epochs, {summary.steps} steps."
    return done if summary.best is None else f"{done} Best {summary.metric}: {summary.best:.4f}."


def _facts(summary: RunSummary, timing: Sequence[Row]) -> str:
    facts = [("epochs", str(summary.epochs), ""), ("steps", f"{summary.steps:,}", "")]
    if summary.best is not None:
        at = f"at step {summary.best_step:,}" if summary.best_step else ""
        facts.append((f"best {summary.metric}", f"{summary.best:.4f}", at))
    if summary.seconds is not None:
        facts.append(("of training", length(summary.seconds), ""))
    if timing:
        speeds = sorted(row["samples"] for row in timing)
        facts.append(("samples a second", f"{speeds[len(speeds) // 2]:,.0f}", "median"))
        facts.append(("memory", f"{max(row['memory'] for row in timing):,.0f} MiB", "at most"))
    if summary.skipped:
        facts.append(("batches left out", str(summary.skipped), "see below"))
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd><dd class='more'>{escape(more)}</dd></div>"
        for name, value, more in facts
    )
    return f'<dl class="facts">{cells}</dl>'


def _learning(steps: Sequence[Row], epochs: Sequence[Row], best: float | None) -> str:
    train = series(epochs, "step", lambda row: {"training": row.get("train", {}).get("loss")})
    val = series(epochs, "step", lambda row: {"validation": row.get("val", {}).get("loss")})
    each = series(steps, "step", lambda row: {"one batch": row.get("loss")})
    return _side_by_side(
        chart([*train.values(), *val.values()], title="Loss, mean of an epoch", mark=best),
        chart(list(each.values()), title="Loss of single batches"),
    )


def _chosen(summary: RunSummary) -> str:
    return f"The weights that are kept are those of the best {summary.metric}." if summary.metric else ""


def _validation(epochs: Sequence[Row], best: float | None) -> str:
    """A chart a kind of measure: score, recall and every measure of a task."""
    found = series(epochs, "step", lambda row: row.get("val", {}))
    kinds: dict[str, list[Curve]] = {}
    for name, curve in found.items():
        if "/" in name or name == "loss":
            continue
        task, dot, measure = name.rpartition(".")
        if dot or name in ("score", "R@10"):
            kinds.setdefault(measure if dot else name, []).append(Curve(task or name, curve.x, curve.y))
    return _side_by_side(*(chart(curves, title=_named(kind), mark=best) for kind, curves in kinds.items()))


def _objectives(steps: Sequence[Row], epochs: Sequence[Row]) -> str:
    """The parts of the loss: the whole ones together, then each pair and each modality's own."""
    parts = series(steps, "step", lambda row: {k: v for k, v in row.items() if k not in _NOT_PARTS})
    whole = [c for name, c in parts.items() if "/" not in name and name != "loss"]
    charts = [chart(whole, title="Parts of the loss, unweighted")]
    val = series(epochs, "step", lambda row: row.get("val", {}))
    names = {curve.name for curve in whole} - {"score"}  # which is another measure there
    said = [c for name, c in val.items() if name in names]
    charts.append(chart(said, title="The same on validation rows"))
    for kind, title in (("contrastive", "Contrastive loss, pair by pair"), ("hidden", "Guessed features")):
        charts.append(chart(_inside(parts, kind), title=title))
    return _side_by_side(*charts)


def _modalities(steps: Sequence[Row], epochs: Sequence[Row]) -> str:
    parts = series(steps, "step", lambda row: {k: v for k, v in row.items() if k not in _NOT_PARTS})
    val = series(epochs, "step", lambda row: row.get("val", {}))
    norms = list(series(steps, "step", lambda row: row.get("gradient", {})).values())
    rates = list(series(steps, "step", lambda row: row.get("lr", {})).values())
    charts = [
        chart(norms, title="Norm of the gradient", log=True),
        chart(rates, title="Learning rate", zero=True),
        chart(_inside(parts, "late"), title="Loss of each modality's own head"),
        chart(_inside(parts, "alone"), title="Share that each alone gives to the right class"),
        chart(
            _inside(val, "rank"),
            title="Directions that embeddings use",
            note="Effective rank on validation rows; near 1, all rows get nearly the same vector.",
        ),
    ]
    return _side_by_side(*charts)


def _speed(timing: Sequence[Row]) -> str:
    if len(timing) < 2:
        return ""
    charts = []
    for key, title in (
        ("samples", "Samples a second"),
        ("tokens", "Tokens a second"),
        ("memory", "Memory, MiB"),
    ):
        curves = series(timing, "step", lambda row, key=key: {key: row[key]})  # type: ignore[misc]
        charts.append(chart(list(curves.values()), title=title, zero=True))
    return _side_by_side(*charts)


def _skipped(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    shown = [[str(r["step"]), str(r["epoch"]), r.get("why", ""), ", ".join(r["ids"][:12])] for r in rows[:50]]
    return table(["step", "epoch", "why", "rows"], shown)


def _judged(folder: Path) -> str:
    """What `evaluate` found at the end, in short; the model card has all of it."""
    found = _document(folder / "metrics.json")
    parts = []
    for name, task in found.get("tasks", {}).items():
        if not task.get("n"):
            continue
        keys = [k for k in ("accuracy", "macro_f1", "auroc", "ece", "mae", "pearson") if k in task["full"]]
        rows = [[" + ".join(r["modalities"]), *_cells(r, keys)] for r in task["subsets"] if r.get("n")]
        rows.append(["a constant answer", *_cells(task["baseline"], keys)])
        parts.append(
            f"<h3>{escape(name)}, {task['n']} rows</h3>" + table(["given", *map(_named, keys)], rows)
        )
    pairs = [pair for pair in found.get("retrieval", ()) if pair.get("n")]
    if pairs:
        keys = ["R@1", "R@5", "R@10", "chance_R@10", "median_rank", "mAP"]
        rows = [[f"{p['query']} → {p['answer']}", *_cells(p, keys)] for p in pairs]
        parts.append("<h3>retrieval</h3>" + table(["query → answer", *map(_named, keys)], rows))
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in found.get("sentences", ()))
    return "".join(parts) + (f'<ul class="note">{said}</ul>' if said else "")


def _settings(folder: Path) -> str:
    said = _document(folder / "run.json")
    rows = [
        f'<tr><th scope="row">{escape(key)}</th><td>{escape(json.dumps(value, ensure_ascii=False))}</td></tr>'
        for key, value in flat(said.get("config", {})).items()
    ]
    if not rows:
        return ""
    inner = rows_table("Settings", ("key", "value"), rows)
    return f"<details><summary>All {len(rows)} settings of this run</summary>{inner}</details>"


_NOT_PARTS = ("kind", "step", "epoch", "lr", "gradient")
_NAMES = {
    **{"macro_f1": "macro-F1", "auroc": "AUROC", "mae": "mean absolute error", "ece": "calibration error"},
    **{"chance_R@10": "chance R@10", "median_rank": "median rank", "skill": "skill over the median"},
}


def _named(key: str) -> str:
    name = _NAMES.get(key, key)
    return name if name[0].isupper() else name[0].upper() + name[1:]


def _inside(curves: Mapping[str, Curve], kind: str) -> list[Curve]:
    """Those named "<kind>/...", by what follows."""
    return [
        Curve(name.split("/", 1)[1], c.x, c.y) for name, c in curves.items() if name.startswith(f"{kind}/")
    ]


def _cells(row: Row, keys: Sequence[str]) -> list[str | float]:
    return ["-" if row.get(key) is None else float(row[key]) for key in keys]


def _side_by_side(*charts: str) -> str:
    drawn = [text for text in charts if text]
    return f'<div class="columns">{"".join(drawn)}</div>' if drawn else ""


def _document(path: Path) -> dict[str, Any]:
    """A JSON file of this run; {} where it is not there yet."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
