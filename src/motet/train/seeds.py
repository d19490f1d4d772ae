"""The same training with several seeds: what a single one happened to give, and how far they spread."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from motet import config as configs
from motet.errors import ConfigError

SUMMARY = "seeds.json"


def fit_seeds(out: Path, seeds: Sequence[int], fit_one: Callable[[int, Path], Path]) -> Path:
    """Train into `out`/seed-N for every seed, then write `out`/seeds.json; returns that file.

    fit_one(seed, folder) trains and returns the model's folder. Where the table has no split of its
    own, a seed also draws the split, and the spread is that of both.

    Raises:
        ConfigError: fewer than two seeds, or one twice.
    """
    if len(seeds) < 2 or len(set(seeds)) < len(seeds):
        raise ConfigError("--seeds: give two or more different numbers, such as 1111,1112,1113,1114,1115.")
    folders = [fit_one(seed, out / f"seed-{seed}") for seed in seeds]
    found = [configs.read(folder / "metrics.json") for folder in folders]
    summary = {"seeds": list(seeds), **summarise(found)}
    path = out / SUMMARY
    path.write_text(json.dumps(summary, indent=1), "utf-8")
    return path


def summarise(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several `metrics.json`: {"tasks": {name: {"full", "text_only", "baseline"}}, "retrieval": [...]}.

    Each holds measure -> {"mean", "std", "values"}; std is the sample's, over the runs.
    """
    tasks: dict[str, Any] = {}
    for name in metrics[0].get("tasks", {}):
        tasks[name] = {
            row: _spread([m["tasks"][name].get(row) or {} for m in metrics])
            for row in ("full", "text_only", "baseline")
        }
    pairs = [
        {"query": pair["query"], "answer": pair["answer"]} | _spread([m["retrieval"][i] for m in metrics])
        for i, pair in enumerate(metrics[0].get("retrieval", []))
    ]
    return {"tasks": tasks, "retrieval": pairs}


def _spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of every number that all rows have."""
    found = {}
    for key, first in rows[0].items():
        values = [row.get(key) for row in rows]
        if isinstance(first, int | float) and all(isinstance(value, int | float) for value in values):
            numbers = [float(value) for value in values if value is not None]
            found[key] = {
                "mean": statistics.fmean(numbers),
                "std": statistics.stdev(numbers),
                "values": numbers,
            }
    return found
