"""`motet index`: make a table searchable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit, progress, say


def index(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    table: Annotated[Path, typer.Argument(help="The rows to find: a table or a folder of media.")],
    out: Annotated[Path, typer.Option(metavar="INDEX", help="The index; added to if it is there already.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make the rows of a table searchable, or add rows to an index.

    Rows that are there and unchanged are left as they are.
    """
    from dataclasses import asdict

    from motet.index import Index
    from motet.predictor import Predictor

    predictor = Predictor.load(model)
    there = (out / "index.json").is_file()
    target = Index.open(out, predictor) if there else Index.create(out, predictor)
    bar = progress()
    added = target.add(table, progress=bar)
    bar.close()
    if json:
        emit({"index": str(out), "rows": target.count(), **asdict(added)})
        return
    counts = [f"{count} {what}" for what, count in asdict(added).items() if count]
    print(f"{out}: {target.count()} rows ({', '.join(counts) or 'nothing new'})")
    say(f'search it:  motet search {out} "a few words"')
