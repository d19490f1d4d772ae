"""`motet explain`: where a model looked, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit


def explain(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    input: Annotated[
        str, typer.Argument(help="A media file, a text, or a table, whose first row is explained.")
    ],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    row: Annotated[
        str | None, typer.Option(help="Of a table: the id of the row, instead of the first.")
    ] = None,
    index: Annotated[Path | None, typer.Option(help="An index that the input was searched in.")] = None,
    against: Annotated[
        str | None, typer.Option(metavar="ID", help="The id of a result: shows which tokens of the two met.")
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
    explanation = predictor.explain(input, row=row, index=opened, against=against)
    explanation.save(out)
    if json:
        emit(explanation.to_dict())
    else:
        print(out)
