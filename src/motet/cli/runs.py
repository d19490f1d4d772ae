"""`motet runs`: what became of the runs in a folder, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from motet.cli.output import emit, say, table


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of runs, or one run.")] = Path(
        "runs"
    ),
    json: Annotated[bool, typer.Option("--json", help="One JSON object a run.")] = False,
) -> None:
    """List and compare runs: how far they are, their best, and what was set differently."""
    from motet.train.runs import length, runs_in, what_differs

    found = runs_in(folder)
    differs = what_differs(found)
    if json:
        for i, run in enumerate(found):
            emit(
                {
                    **{"run": str(run.path), "status": run.status, "epochs": run.epochs, "steps": run.steps},
                    **{"metric": run.metric, "best": run.best, "best_step": run.best_step},
                    **{"seconds": run.seconds, "skipped": run.skipped, "test": run.test},
                    "differs": {key: values[i] for key, values in differs.items()},
                }
            )
        return
    measures = sorted({name for run in found for name in run.test})
    rows: list[list[Any]] = [
        [
            run.path.name if folder in (run.path.parent, run.path) else run.path.relative_to(folder),
            run.status,
            run.epochs,
            run.metric,
            "-" if run.best is None else f"{run.best:.4f}",
            *("-" if name not in run.test else f"{run.test[name]:.3f}" for name in measures),
            "-" if run.seconds is None else length(run.seconds),
        ]
        for run in found
    ]
    table(["run", "status", "epochs", "chosen by", "best", *(f"test {m}" for m in measures), "time"], rows)
    if differs:
        head = ["what differs", *(run.path.name for run in found)]
        table(head, [[key, *("-" if v is None else v for v in values)] for key, values in differs.items()])
    say(f"curves: {found[-1].path / 'run.html'}")
