"""`motet predict`: what a model says of a file, a text or every row of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from motet.cli.output import emit


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    input: Annotated[str, typer.Argument(help="A media file, a text, or a table.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
) -> None:
    """Predict for a media file, a text, or each row of a table."""
    from motet.predictor import Predictor, is_table

    predictor = Predictor.load(model)
    rows = predictor.predict_table(input) if is_table(input) else [predictor.predict(input)]
    for row in rows:
        if json:
            emit(row)
        else:
            print("\t".join(_cells(row)), flush=True)


def _cells(row: dict[str, Any]) -> list[str]:
    """id, answer with its probability, then the other classes; or what is wrong with the row."""
    head = [str(row["id"])] if row.get("id") is not None else []
    if row["status"] != "ok":
        return [*head, row["status"]]
    scores = row["scores"]
    if not scores:
        return [*head, f"{row['label']:.4g}"]
    ordered = sorted(scores.items(), key=lambda item: -item[1])
    return [*head, str(row["label"]), *(f"{name} {score:.3f}" for name, score in ordered)]
