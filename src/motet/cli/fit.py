"""`motet fit`: train a model on a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from motet.cli.output import progress, say
from motet.errors import ConfigError


def fit(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet or a folder of media.")],
    label: Annotated[
        str | None, typer.Option(help="The column to predict: words are classes, numbers are regressed.")
    ] = None,
    val: Annotated[Path | None, typer.Option(help="A table to validate on, instead of a split.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the run and its model. Default: runs/TABLE.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting, such as train.epochs=20. May be repeated."
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="scratch, fast or best.")] = "fast",
    retrieval: Annotated[
        bool | None,
        typer.Option(
            "--retrieval/--no-retrieval",
            help="Whether to learn a shared space for search. Default: where no label is given.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the split, the weights and the order of the data.")] = 0,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,N,...", help="Train once with each, and say the mean and the spread."),
    ] = None,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Stop training after this.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in OUT.")] = False,
) -> None:
    """Train a model on a table; columns are found by name and content."""
    from motet.train.fit import fit as train

    def once(seed: int, out: Path | None) -> Path:
        return train(
            table,
            label=label,
            val=val,
            out=out,
            settings=settings or [],
            preset=preset,
            seed=seed,
            time_limit=time_limit,
            resume=resume,
            retrieval=retrieval,
            progress=progress(),
        )

    if seeds is None:
        folder = once(seed, out)
        if os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun started speaks for all
            say(f"evaluate it:  motet evaluate {folder} TABLE")
            print(folder)
    else:
        from motet.train.seeds import fit_seeds

        if resume:
            raise ConfigError("--seeds: runs of several seeds cannot be resumed; resume one of its folders.")
        print(fit_seeds(out or Path("runs") / f"{table.stem}-seeds", _numbers(seeds), once))


def _numbers(said: str) -> list[int]:
    parts = [part.strip() for part in said.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"--seeds {said}: give whole numbers with commas between them, such as 1111,1112.")
    return [int(part) for part in parts]
