"""`motet fit`: train a model on a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from motet.cli.output import progress, say
from motet.errors import ConfigError


def fit(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet or a folder of media.")],
    label: Annotated[
        str | None,
        typer.Option(help="The column to predict, or several (a,b): words are classes, numbers regressed."),
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
    tune: Annotated[
        int, typer.Option(metavar="N", help="Try N settings first, on validation rows, and use the best.")
    ] = 0,
    time_limit: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Stop training after this.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in OUT.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")] = False,
    json: Annotated[bool, typer.Option("--json", help="With --dry-run: one JSON object.")] = False,
) -> None:
    """Train a model on a table; columns are found by name and content.

    Curves while it trains: run.html in its folder.
    """
    from motet.train.fit import fit as train
    from motet.train.job import Job

    if (seeds is not None) + bool(tune) + dry_run > 1:
        raise ConfigError("--seeds, --tune and --dry-run: give one of them at a time.")
    job = Job(table, label, val, tuple(settings or ()), preset, seed, retrieval)
    if dry_run:
        from motet.train.fit import look

        _show(look(job, progress()), json=json)
        return
    if tune:
        from motet.train.tune import fit_tuned

        _done(fit_tuned(job, tune, out, progress(), resume=resume, time_limit=time_limit))
        return

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
        _done(once(seed, out))
        return
    from motet.train.seeds import fit_seeds

    if resume:
        raise ConfigError("--seeds: runs of several seeds cannot be resumed; resume one of its folders.")
    print(fit_seeds(out or Path("runs") / f"{table.stem}-seeds", _numbers(seeds), once))


def _done(folder: Path) -> None:
    if os.environ.get("RANK", "0") == "0":  # one of the processes that torchrun started speaks for all
        say(f"evaluate it:  motet evaluate {folder} TABLE")
        print(folder)


def _show(found: Mapping[str, Any], *, json: bool) -> None:
    from motet.cli.output import emit, table

    if json:
        emit(found)
        return
    table(["part", "rows"], found["rows"].items())
    head = list(found["modalities"][0])
    table(head, [[m[key] for key in head] for m in found["modalities"]])
    counts = [[name, f"{count:,}"] for name, count in found["parameters"].items()]
    table(["parameters of", "how many"], [*counts, ["that learn", f"{found['trained']:,}"]])
    print(f"{found['steps']:,} steps; nothing was trained or kept.")


def _numbers(said: str) -> list[int]:
    parts = [part.strip() for part in said.split(",")]
    if not all(part.isdigit() for part in parts):
        raise ConfigError(f"--seeds {said}: give whole numbers with commas between them, such as 1111,1112.")
    return [int(part) for part in parts]
