"""`motet check`: what is wrong with a table, before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit


def check(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet or a folder of media.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as columns.photo=image. May be repeated."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Audit a table: what is broken, silent, duplicated, misaligned."""
    from motet.config import override
    from motet.data.check import check_table
    from motet.errors import ConfigError, DataError

    values = override({}, settings or [])
    if set(values) - {"columns"}:
        raise ConfigError(f"--set {min(set(values) - {'columns'})}: check reads only columns.NAME=KIND.")
    report = check_table(table, columns=values.get("columns", {}))
    if json:
        emit(report.to_dict())
    else:
        for line in report.lines():
            print(line)
    if not report.usable:
        raise typer.Exit(DataError.exit_code)
