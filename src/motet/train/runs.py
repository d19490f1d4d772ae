"""What became of runs: how far each is, its best, how long it took, and what was set differently."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motet.errors import ConfigError
from motet.train.run import read_lines


@dataclass(frozen=True)
class RunSummary:
    """One run's folder in short.

    `status`: "done" (the model is there), "stopped" (it can be resumed) or "new" (no checkpoint yet; it
    runs, or it was cut off before its first). `metric` is what chose the best; `test` measures of the rows
    that chose nothing, by name. `settings`: dotted key -> value.
    """

    path: Path
    status: str
    epochs: int
    steps: int
    metric: str
    best: float | None
    best_step: int
    seconds: float | None
    skipped: int
    test: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def summary_of(folder: Path) -> RunSummary:
    """The summary of one run.

    Raises:
        ConfigError: no folder of a run.
    """
    if not (folder / "run.json").is_file():
        raise ConfigError(f"{folder}: no run; `motet fit` writes one to --out, by default under runs/.")
    asked = _json(folder / "run.json")
    rows = read_lines(folder / "metrics.jsonl")
    timing = read_lines(folder / "timing.jsonl")
    metrics = _json(folder / "metrics.json")
    epochs = [row for row in rows if row.get("kind") == "epoch"]
    metric = asked.get("config", {}).get("train", {}).get("metric", "")
    best_step = epochs[-1].get("best_step", 0) if epochs else 0
    at_best = next((row for row in epochs if row["step"] == best_step), {})
    saved = (folder / "checkpoints" / "last").is_dir()
    training = metrics.get("training", {})
    return RunSummary(
        path=folder,
        status="done" if metrics else "stopped" if saved else "new",
        epochs=len(epochs),
        steps=rows[-1]["step"] if rows else 0,
        metric=metric,
        best=at_best.get("val", {}).get(metric),
        best_step=best_step,
        seconds=training.get("seconds", timing[-1]["seconds"] if timing else None),
        skipped=sum(row.get("kind") == "skipped" for row in rows),
        test=_measures(metrics),
        settings=flat({k: v for k, v in asked.items() if k not in ("data", "content", "columns")}),
    )


def runs_in(folder: Path) -> list[RunSummary]:
    """All runs in a folder and one below, or the run that it is; in the order of their names.

    Raises:
        ConfigError: there is none.
    """
    if (folder / "run.json").is_file():
        return [summary_of(folder)]
    found = sorted({path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/run.json")})
    if not found:
        raise ConfigError(f"{folder}: no run in it. Give the folder that holds them, such as runs.")
    return [summary_of(path) for path in found]


def what_differs(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """Settings that are not the same in all runs: key -> its value in each, None where it has none."""
    keys = sorted({key for run in runs for key in run.settings})
    values = {key: [run.settings.get(key) for run in runs] for key in keys}
    return {key: held for key, held in values.items() if any(value != held[0] for value in held)}


def length(seconds: float) -> str:
    """42 s, 3.5 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _measures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """A measure a task, and the mean recall."""
    found = {}
    for name, task in metrics.get("tasks", {}).items():
        value = task.get("full", {}).get(task.get("measure", ""))
        if value is not None:
            found[f"{name}.{task['measure']}"] = float(value)
    recalls = [pair["R@10"] for pair in metrics.get("retrieval", ()) if pair.get("n")]
    return found | ({"R@10": sum(recalls) / len(recalls)} if recalls else {})


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted keys of what is nested; empty groups are left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        here = f"{path}.{key}" if path else str(key)
        found |= flat(value, here) if isinstance(value, Mapping) else {here: value}
    return found


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
