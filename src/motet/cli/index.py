"""`motet index`: make a table searchable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit, progress, say

MANY = 100_000  # rows, beyond which comparing with all of them is slow


def index(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    out: Annotated[Path, typer.Option(metavar="INDEX", help="The index; added to if it is there already.")],
    table: Annotated[
        Path | None, typer.Argument(help="The rows to find: a table or a folder of media.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Where a new index keeps its rows: exact, lancedb, s3://BUCKET/PATH, milvus://HOST, qdrant://HOST."
        ),
    ] = None,
    reembed: Annotated[
        bool, typer.Option("--reembed", help="Go over to MODEL: encode the rows that are there again.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make the rows of a table searchable, or add rows to an index.

    Rows that are there and unchanged are left as they are.
    """
    from dataclasses import asdict

    from motet.errors import ConfigError
    from motet.index import Added, Index
    from motet.index.address import exists
    from motet.predictor import Predictor

    if table is None and not reembed:
        raise ConfigError("motet index: give a TABLE, or --reembed to go over to another model.")
    predictor, bar = Predictor.load(model), progress()
    if reembed:
        target = Index.open(out)
        target.reembed(predictor, progress=bar)
    else:
        target = Index.open(out, predictor) if exists(out) else Index.create(out, predictor, store or "exact")
    if store is not None and store.rstrip("/") != target.store:
        raise ConfigError(f"--store {store}: {out} is kept in {target.store}. Make another index for it.")
    added = Added() if table is None else target.add(table, progress=bar)
    target.flush()
    bar.close()
    if json:
        emit({"index": str(out), "rows": target.count(), "store": target.store, **asdict(added)})
        return
    counts = [f"{count} {what}" for what, count in asdict(added).items() if count]
    print(f"{out}: {target.count()} rows ({', '.join(counts) or 'nothing new'})")
    if target.store == "exact" and target.count() > MANY:
        say(
            f"Every search compares all {target.count()} rows. For so many `--store lancedb` is faster: "
            "pip install 'motet[index]', then build another index."
        )
    say(f'search it:  motet search {out} "a few words"')
