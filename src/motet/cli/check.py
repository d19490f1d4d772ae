"""`motet check`: what is wrong with a table, before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit, progress


def check(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet or a folder of media.")],
    label: Annotated[str | None, typer.Option(help="The column that would be predicted.")] = None,
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
    columns = values.pop("columns", {})
    if values or not isinstance(columns, dict):
        raise ConfigError(f"--set {min(values, default='columns')}: check takes columns.NAME=KIND only.")
    bar = progress()
    report = check_table(
        table, label=label, columns={name: str(kind) for name, kind in columns.items()}, progress=bar
    )
    bar.close()
    if json:
        emit(report.to_dict())
    else:
        for line in report.lines():
            print(line)
    if not report.usable:
        raise typer.Exit(DataError.exit_code)
