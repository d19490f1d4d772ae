"""Metrics to the tracker of one's choice: `--set train.track=wandb`, mlflow or trackio.

TensorBoard needs none, see `motet.train.events`.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from motet.errors import ConfigError, missing_extra

Track = Literal["none", "wandb", "mlflow", "trackio"]
PROJECT = "motet"


class Tracker(Protocol):
    def log(self, values: Mapping[str, float], step: int) -> None: ...
    def close(self) -> None: ...


def make_tracker(name: Track, folder: Path, config: Mapping[str, Any]) -> Tracker | None:
    """The tracker of the run in `folder`; its name is the folder's.

    Raises:
        ConfigError: the package is not installed.
    """
    match name:
        case "none":
            return None
        case "wandb":
            return WeightsAndBiases(folder, config)
        case "mlflow":
            return MLflow(folder, config)
        case "trackio":
            return Trackio(folder, config)


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """A line of metrics.jsonl as "train/loss", "val/R@10", "lr/text", "gradient/text"."""
    found: dict[str, float] = {}
    for key, value in row.items():
        if key in ("kind", "step", "epoch", "best_step", "ids"):
            continue
        if isinstance(value, Mapping):
            where = f"{key} of epoch" if key == "train" else key
            found |= {f"{where}/{k}": float(v) for k, v in value.items() if v is not None}
        elif isinstance(value, int | float):
            found[f"train/{key}"] = float(value)
    return found


class WeightsAndBiases:
    """One run of the project `motet`; the folder says which, so that it continues."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.run = _package("wandb").init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=_identity(folder),
            dir=str(folder),
            config=dict(config),
            resume="allow",
        )

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """One run of the experiment `motet`; RUN/mlflow.txt holds its id, so that it continues."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.package = _package("mlflow")
        known = folder / "mlflow.txt"
        if known.is_file():
            self.package.start_run(run_id=known.read_text("utf-8").strip())
            return
        self.package.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        started = self.package.start_run(run_name=folder.name)
        known.write_text(started.info.run_id, "utf-8")
        self.package.log_dict(dict(config), "run.json")

    def log(self, values: Mapping[str, float], step: int) -> None:
        # MLflow allows no @ in a name
        self.package.log_metrics({name.replace("@", "_at_"): v for name, v in values.items()}, step=step)

    def close(self) -> None:
        self.package.end_run()


class Trackio:
    """One run of the project `motet`, named after its folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        self.package = _package("trackio")
        name = f"{folder.name}-{_identity(folder)}"
        self.package.init(project=PROJECT, name=name, config=dict(config), resume="allow")

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.package.log(dict(values), step=step)

    def close(self) -> None:
        self.package.finish()


def _package(name: Literal["wandb", "mlflow", "trackio"]) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ConfigError(f"train.track={name}: it cannot be imported: {error}.") from None
        raise missing_extra(name, name, f"train.track={name}") from None


def _identity(folder: Path) -> str:
    return hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
