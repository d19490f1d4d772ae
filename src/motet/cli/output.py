"""How commands speak: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from motet.train.run import Reporter


def emit(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout; numbers that JSON lacks are null."""
    from motet.config import plain

    print(json.dumps(plain(value), ensure_ascii=False, allow_nan=False), flush=True)


def say(text: str) -> None:
    """A remark for people, on stderr."""
    print(text, file=sys.stderr)


def progress() -> Reporter:
    """A bar on a terminal, a line now and then elsewhere; on stderr."""
    from motet.train.run import Reporter

    return Reporter()


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """A table on stdout; on a terminal as wide as it is, elsewhere as wide as it needs to be."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, emoji=False)
    grid = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    rows = [["" if cell is None else str(cell) for cell in row] for row in rows]
    for column, name in enumerate(head):
        numeric = bool(rows) and all(_is_number(row[column]) for row in rows)
        grid.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console.print(grid)


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).replace("-", "", 1).replace("%", "").isdigit() or not cell
