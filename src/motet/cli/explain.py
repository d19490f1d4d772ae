"""`motet explain`: where a model looked, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit, progress


def explain(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    input: Annotated[str, typer.Argument(help="A media file, a text, or a table, explained as a whole.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    row: Annotated[str | None, typer.Option(help="Of a table: the id of the one row to explain.")] = None,
    rows: Annotated[
        int,
        typer.Option(min=1, help="Of a table: how many rows, drawn from those that `evaluate` would take."),
    ] = 100,
    index: Annotated[Path | None, typer.Option(help="An index that the input was searched in.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="ID", help="The id of a result: shows which tokens of the two met.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="Of the result: only this modality, as `motet search --modality` does.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="DIR", help="Also write every view as PNG and SVG.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="The numbers behind the page, as one JSON object.")
    ] = False,
) -> None:
    """Write a page that shows where the model looked."""
    from motet.predictor import Predictor

    predictor = Predictor.load(model)
    opened = None
    if index is not None:
        from motet.index import Index

        opened = Index.open(index, predictor)
    bar = progress()
    explanation = predictor.explain(
        input, row=row, rows=rows, index=opened, against=against, modality=modality, progress=bar
    )
    bar.close()
    explanation.save(out)
    if png is not None:
        explanation.save_pictures(png)
    if json:
        emit(explanation.to_dict())
    else:
        print(out)
