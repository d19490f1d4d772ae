"""What is to be learned from which table: the arguments of `fit`, and what they say before a row is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motet import config as configs
from motet.data.columns import Columns, infer_columns, modality_name
from motet.data.isolate import child
from motet.data.table import Table, open_table
from motet.errors import ConfigError
from motet.train.distributed import World, join
from motet.train.processors import derived
from motet.train.settings import FitConfig, check_modalities, read_settings


@dataclass(frozen=True)
class Job:
    """The arguments of `fit` that decide what is learned; see there."""

    table: str | Path
    label: str | None = None
    val: str | Path | None = None
    settings: tuple[str, ...] = ()
    preset: str = "fast"
    seed: int = 0
    retrieval: bool | None = None


@dataclass(frozen=True, eq=False)
class Opened:
    """A job with its tables open and its settings read. `contrastive`: whether modalities are aligned."""

    job: Job
    config: FitConfig
    world: World
    source: Table
    val: Table | None
    columns: Columns
    contrastive: bool

    def identity(self) -> dict[str, Any]:
        """What a run must have in common with the one that it continues."""
        return {
            "config": _what_matters(self.config),
            "columns": configs.to_dict(self.columns),
            "data": [self.source.fingerprint, self.val.fingerprint if self.val else None],
            **{"seed": self.job.seed, "preset": self.job.preset, "retrieval": self.contrastive},
        }


def open_job(job: Job) -> Opened:
    """Raises ConfigError, DataError: the arguments, the settings or the table cannot be used."""
    config = read_settings(job.settings, job.preset)
    child.mode = config.data.isolate
    given = Path(config.data.root) if config.data.root else None
    source = open_table(job.table, root=given, remote=config.data.remote)
    columns = config.model.in_order(infer_columns(source, label=job.label, overrides=config.columns))
    modalities = {modality_name(column): kind for column, kind in columns.modalities.items()}
    check_modalities(config, derived(modalities), str(source.path))
    contrastive = _contrastive(job.retrieval, columns, source)
    columns = columns if contrastive else config.data.in_context(columns)
    val = open_table(job.val, root=given, remote=config.data.remote) if job.val else None
    return Opened(job, config, join(config.train.parallel), source, val, columns, contrastive)


def default_out(source: Table, *, resume: bool) -> Path:
    """The first free of runs/NAME, runs/NAME-2, ...; to resume, the last that is there."""
    names = [
        Path("runs") / source.path.stem,
        *(Path("runs") / f"{source.path.stem}-{i}" for i in range(2, 10_000)),
    ]
    free = next(i for i, path in enumerate(names) if not path.exists())
    return names[max(0, free - 1) if resume else free]


def _what_matters(config: FitConfig) -> dict[str, Any]:
    """The settings without those that change only how fast the same batches come, or in how many pieces
    the model sees one, which memory may decide."""
    said = configs.to_dict(config)
    for group, key in (("loader", "workers"), ("loader", "kind"), ("loader", "pin"), ("data", "isolate")):
        del said[group][key]
    del said["train"]["track"], said["train"]["micro_batch"]
    return said


def _contrastive(retrieval: bool | None, columns: Columns, table: Table) -> bool:
    several = len(columns.modalities) > 1
    if retrieval and not several:
        raise ConfigError(
            f"{table.path}: retrieval needs two modalities, and only {', '.join(columns.modalities)} was "
            "found. Say what other columns are, such as --set columns.NAME=text."
        )
    contrastive = retrieval if retrieval is not None else several and columns.label is None
    if not contrastive and columns.label is None:
        raise ConfigError(
            f"{table.path}: nothing to learn: one modality and no label. Name a column with --label; there "
            f"are {', '.join(table.columns)}."
        )
    return contrastive
