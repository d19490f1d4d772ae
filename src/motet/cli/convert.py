"""`motet convert`: a published set's own files to a table that `motet fit` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import emit, say
from motet.errors import ConfigError


def convert(
    layout: Annotated[str, typer.Argument(help="mosi, mosei, sims (MMSA's .pkl), meld or iemocap.")],
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="The .pkl or .npz; MELD's CSV or folder; IEMOCAP's folder.")
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the table and its media.")],
    clips: Annotated[Path | None, typer.Option(help="MELD: the folder of its clips.")] = None,
    text: Annotated[str, typer.Option(help="MMSA: raw, features or both.")] = "raw",
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Make a table of a published sentiment set from the files that you have.

    A .pkl is read without unpickling: arrays, texts and numbers only.
    """
    from motet.data.published import convert as run

    match text:
        case "raw" | "features" | "both":
            made = run(layout, source, out, clips=clips, text=text)
        case _:
            raise ConfigError(f"--text {text}: choose raw, features or both.")
    for note in made.notes:
        say(note)
    if json:
        emit({"table": str(made.table), "rows": dict(made.rows), "notes": list(made.notes)})
    else:
        say(", ".join(f"{part}: {count} rows" for part, count in made.rows.items()))
        print(made.table)
