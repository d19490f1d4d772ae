"""`motet evaluate`: measure a model on a table, for everything that it was trained for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from motet.cli.output import emit, progress, say, table

POLARITY = {
    **{"acc_2": "Acc-2", "f1_2": "F1", "acc_2_with_zero": "Acc-2 with 0", "f1_2_with_zero": "F1 with 0"},
    **{"acc_5": "Acc-5", "acc_7": "Acc-7"},
    **{"sims_acc_2": "SIMS Acc-2", "sims_acc_3": "SIMS Acc-3", "sims_acc_5": "SIMS Acc-5"},
}


def evaluate(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    data: Annotated[
        Path, typer.Argument(metavar="TABLE", help="CSV, TSV, JSONL, Parquet or a folder of media.")
    ],
    part: Annotated[
        str | None,
        typer.Option(help="train, val, test or all. Default: test where the table has a split, else all."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Measure a model on a table, beside chance and the majority.

    Every task that it was trained for, over every subset of the modalities.
    """
    from motet.predictor import Predictor

    bar = progress()
    metrics = Predictor.load(model).evaluate(data, part=part, progress=bar)
    bar.close()
    say(f"measured on {metrics['n']} rows ({metrics['part']})")
    if json:
        emit(metrics)
    else:
        show_metrics(metrics)


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """The tables of an evaluation, on stdout."""
    if metrics.get("retrieval"):
        _show_retrieval(metrics["retrieval"])
    for name, task in metrics.get("tasks", {}).items():
        if task["n"]:
            _show_task(name, task)
    for sentence in metrics.get("sentences", ()):
        print(sentence)


def _show_retrieval(pairs: list[Mapping[str, Any]]) -> None:
    recalls = ("R@1", "R@5", "R@10")
    head = ["query", "answer", *recalls, "chance R@10", "median rank", "chance", "queries", "gallery"]
    rows = [
        [
            pair["query"],
            pair["answer"],
            *(_three(pair[recall]) for recall in recalls),
            _three(pair["chance_R@10"]),
            f"{pair['median_rank']:g}",
            f"{pair['chance_median_rank']:g}",
            pair["n"],
            pair["gallery"],
        ]
        for pair in pairs
        if pair["n"]
    ]
    table(head, rows, title="Retrieval")


def _show_task(name: str, task: Mapping[str, Any]) -> None:
    if task["kind"] == "classes":
        measures = {"accuracy": "accuracy", "macro_f1": "macro-F1", "weighted_f1": "weighted F1"}
        constant = f"always {task['baseline']['label']}"
    else:
        measures = {"mae": "MAE", "rmse": "RMSE", "pearson": "Pearson"}
        measures |= {key: name for key, name in POLARITY.items() if key in task["full"]}
        constant = "the same number for all"
    rows = [
        [" + ".join(row["modalities"]), *(_three(row.get(key)) for key in measures), row["n"]]
        for row in task["subsets"]
        if row["n"]
    ]
    rows.append([constant, *(_three(task["baseline"].get(key)) for key in measures), task["n"]])
    table(["given", *measures.values(), "rows"], rows, title=f"{name}: every subset of the modalities")
    if "confusion" in task["full"]:
        counts = [[c, *row] for c, row in zip(task["classes"], task["full"]["confusion"], strict=True)]
        table(
            ["true \\ predicted", *task["classes"]], counts, title=f"{name}: confusion, all modalities given"
        )


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
