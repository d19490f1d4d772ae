"""`motet check`: what is wrong with a table, before training on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit, progress, say


def check(
    table: Annotated[str, typer.Argument(help="CSV, TSV, JSONL, Parquet, Arrow, .tar shards or a folder.")],
    label: Annotated[str | None, typer.Option(help="The column that would be predicted.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as columns.photo=image. May be repeated."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a page with pictures and waveforms of the worst rows."),
    ] = None,
) -> None:
    """Audit a table: what is broken, silent, duplicated or nearly so, misaligned, leaking.

    Exits with 3 where so many rows are broken that training would stop.
    """
    from motet.config import override
    from motet.data.check import check_opened
    from motet.data.columns import infer_columns
    from motet.data.table import open_table
    from motet.errors import ConfigError, DataError

    values = override({}, settings or [])
    columns, data = values.pop("columns", {}), values.pop("data", {})
    if (
        values
        or not isinstance(columns, dict)
        or not isinstance(data, dict)
        or set(data) - {"root", "remote"}
    ):
        raise ConfigError(
            f"--set {min(values, default='columns or data')}: check takes columns.NAME=KIND, "
            "data.root=DIR and data.remote=true only."
        )
    root = Path(str(data["root"])) if data.get("root") else None
    opened = open_table(table, root=root, remote=data.get("remote") is True)
    found = infer_columns(opened, label=label, overrides={name: str(kind) for name, kind in columns.items()})
    bar = progress()
    report = check_opened(opened, found, progress=bar)
    bar.close()
    if html is not None:
        from motet.explain.check_page import check_page

        _write(html, check_page(report, opened, found))
    if json:
        emit(report.to_dict())
    else:
        for line in report.lines():
            print(line)
    if not report.usable:
        raise typer.Exit(DataError.exit_code)


def _write(path: Path, text: str) -> None:
    from motet.errors import StorageError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}. Choose another --html.") from None
    say(f"page: {path}")
