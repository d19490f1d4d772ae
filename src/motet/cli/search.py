"""`motet search`: the rows of an index nearest to a text or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit, table


def search(
    index: Annotated[Path, typer.Argument(help="An index, as `motet index` wrote it.")],
    query: Annotated[str, typer.Argument(help="A text, or the path of a file.")],
    top: Annotated[int, typer.Option(min=1, help="How many rows.")] = 5,
    modality: Annotated[
        str | None, typer.Option(help="What is compared and comes back, such as picture.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help="Such as: price < 50 and colour = 'red'")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="The index's model, if it has moved.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
) -> None:
    """Find the rows of an index that are nearest to a text or a file."""
    from motet.index import Index

    hits = Index.open(index, model).search(query, top=top, modality=modality, where=where)
    if json:
        for rank, hit in enumerate(hits, 1):
            emit(
                {
                    "rank": rank,
                    "id": hit.id,
                    "score": hit.score,
                    "modality": hit.modality,
                    "fields": hit.fields,
                }
            )
        return
    names = list(dict.fromkeys(name for hit in hits for name in hit.fields))
    rows = [
        [str(rank), f"{hit.score:.3f}", hit.modality, hit.id, *(hit.fields.get(name) for name in names)]
        for rank, hit in enumerate(hits, 1)
    ]
    table(["", "score", "by", "row", *names], rows)
