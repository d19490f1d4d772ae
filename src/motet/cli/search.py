"""`motet search`: the rows of an index nearest to texts, files and other rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from motet.cli.output import emit, say, table

if TYPE_CHECKING:
    from motet.types import Hit


def search(
    index: Annotated[Path, typer.Argument(help="An index, as `motet index` wrote it.")],
    query: Annotated[
        list[str] | None, typer.Argument(help="Texts or paths of files; of several, their sum is looked for.")
    ] = None,
    like: Annotated[
        str | None, typer.Option(metavar="ID", help="More like this row, alone or with a query.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many rows.")] = 5,
    offset: Annotated[int, typer.Option(min=0, help="Leave out that many of the best (paging).")] = 0,
    modality: Annotated[
        str | None, typer.Option(help="What is compared and comes back, such as picture.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help="Such as: price < 50 and colour = 'red'")
    ] = None,
    distinct: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Only the best row of each value, such as group.")
    ] = None,
    rerank: Annotated[
        int, typer.Option(min=0, metavar="N", help="Compare the N nearest token by token, and reorder them.")
    ] = 0,
    html: Annotated[Path | None, typer.Option(help="Write a page of pictures and players here.")] = None,
    open: Annotated[bool, typer.Option("--open", help="Show that page in the browser.")] = False,
    model: Annotated[Path | None, typer.Option(help="The index's model, if it has moved.")] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
) -> None:
    """Find the rows of an index that are nearest to texts, files or another row."""
    from dataclasses import asdict

    from motet.index import Index

    opened = Index.open(index, model)
    hits = opened.search(
        query or None,
        like=like,
        top=top,
        offset=offset,
        modality=modality,
        where=where,
        distinct=distinct,
        rerank=rerank,
    )
    if html is not None or open:
        from motet.explain.report import write_page
        from motet.index.page import search_page

        said = " + ".join([*([f"like {like}"] if like else []), *(query or [])])
        kept = opened.thumbnails([hit.id for hit in hits])
        made = search_page(said, hits, first=offset + 1, thumbnails=kept)
        page = write_page(html or index / "search.html", made)
        say(f"page: {page}")
        if open:
            typer.launch(str(page))
    if json:
        for rank, hit in enumerate(hits, offset + 1):
            emit({"rank": rank, **asdict(hit)})
        return
    _show(hits, offset)


def _show(hits: Sequence[Hit], offset: int) -> None:
    """A table; columns of scores that no hit has are left out."""
    from motet.index.page import share

    columns = {
        "match": [share(hit.match) for hit in hits],
        "above": [share(hit.above) for hit in hits],
        "late": ["" if hit.late is None else f"{hit.late:.3f}" for hit in hits],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    names = list(dict.fromkeys(name for hit in hits for name in hit.fields))
    rows = [
        [
            str(offset + i + 1),
            f"{hit.score:.3f}",
            *(cells[i] for cells in columns.values()),
            hit.modality,
            hit.id,
            *(hit.fields.get(name) for name in names),
        ]
        for i, hit in enumerate(hits)
    ]
    table(["", "score", *columns, "by", "row", *names], rows)
