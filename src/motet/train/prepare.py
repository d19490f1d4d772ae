"""From a table to prepared parts: split, processors, encoders, every row read once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from motet.data.augment import AugmentConfig
from motet.data.cache import FeatureCache, default_cache
from motet.data.columns import Columns
from motet.data.context import context_specs
from motet.data.dataset import Dataset
from motet.data.groups import group_rows
from motet.data.labels import Label
from motet.data.loader import Loader, LoaderConfig
from motet.data.near import near_rows
from motet.data.processor import Processor
from motet.data.quarantine import Quarantine
from motet.data.split import split_rows
from motet.data.table import Table
from motet.errors import DataError
from motet.model import TaskSpec
from motet.train.distributed import World
from motet.train.processors import make_processors
from motet.train.run import Reporter, RunFolder
from motet.train.settings import FitConfig
from motet.types import ModalitySpec

VAL_BATCH = 1024  # rows validated together: the gallery of the recall that is shown


@dataclass(frozen=True, eq=False)
class Parts:
    """The prepared rows of a table, by part, and the processors that made them."""

    columns: Columns
    processors: Mapping[str, Processor]
    train: Dataset
    val: Dataset | None
    test: Dataset | None
    quarantined: int
    source: Table

    def content(self) -> list[str | None]:
        """What identifies the data: the content of every part."""
        return [part.content if part is not None else None for part in (self.train, self.val, self.test)]

    def named(self) -> list[tuple[str, Dataset | None]]:
        """The parts, the one to judge by first: rows that neither trained nor chose anything."""
        return [("test", self.test), ("val", self.val), ("train", self.train)]

    @property
    def specs(self) -> tuple[ModalitySpec, ...]:
        """The model's modalities: those of the columns, and of the conversation around a row."""
        own, columns = [p.spec for p in self.processors.values()], self.columns
        return context_specs(own, columns.before, columns.after) if columns.context else tuple(own)

    def labels(self, label: Label) -> np.ndarray:
        """Targets of the training rows that have one."""
        table = self.train.table
        cells = table.column(label.name)
        found = (label.target(cells[row], table.where(row)) for row in self.train.rows)
        return np.array([value for value in found if value is not None])

    def tasks(self) -> tuple[TaskSpec, ...]:
        return tuple(self._task(label) for label in self.columns.labels)

    def _task(self, label: Label) -> TaskSpec:
        values = self.labels(label)
        if not len(values):
            raise DataError(
                f"{self.source.path}: no training row has a value in {label.name!r}.", rule="no labels"
            )
        if label.task != "number":
            return TaskSpec(label.name, label.task, label.classes)
        spread = float(values.std()) or 1.0
        return TaskSpec(label.name, "number", mean=float(values.mean()), std=spread)

    def loader(self, config: FitConfig, seed: int, world: World) -> Loader:
        """The training batches of this rank; all ranks' together have `TrainSettings.batch` samples."""
        chosen = config.train
        specs = self.specs
        together = bool(self.columns.labels) or config.model.guess_hidden
        return Loader(
            self.train,
            specs,
            self.train.targets,
            config.loader.build(-(-chosen.batch(len(self.train)) // world.size)),
            seed=seed,
            shuffle=True,
            modality_dropout=chosen.dropout(together=together) if len(specs) > 1 else 0.0,
            spec_augment=chosen.spec_augment,
            augment=AugmentConfig() if chosen.augment else None,
            hidden=config.model.guess_hidden,
            rank=world.rank,
            world=world.size,
        )

    def val_loader(self) -> Loader | None:
        if self.val is None:
            return None
        specs = self.specs
        return Loader(self.val, specs, self.train.targets, LoaderConfig(batch_size=VAL_BATCH))


def prepare(
    source: Table,
    val: Table | None,
    columns: Columns,
    config: FitConfig,
    *,
    preset: str,
    seed: int,
    retrieval: bool,
    run: RunFolder,
    reporter: Reporter,
    world: World,
) -> Parts:
    """Split the rows, make the processors from the training part, read every row once.

    With a table `val`, its rows choose the best epoch; the rows of `source` are all for training,
    but for those that its split column names for the test.

    Raises:
        DataError: no usable row, or too many broken ones.
        ConfigError: a backbone that cannot be had.
    """
    fractions = config.data.fractions if val is None else (1.0, 0.0, 0.0)
    near = near_rows(source, columns) if config.data.near_duplicates else ()
    groups = group_rows(source, columns, retrieval=retrieval, near=near)
    rows = split_rows(source, columns, seed=seed, fractions=fractions, groups=groups)
    if val is not None and rows["val"]:
        rows = {**rows, "train": sorted(rows["train"] + rows["val"]), "val": []}
    if not rows["train"]:
        raise DataError(f"{source.path}: no row is left for training.", rule="empty")
    processors = make_processors(source, columns, rows["train"], config, preset=preset, say=reporter.say)
    cache = FeatureCache(default_cache() if config.data.cache else None)
    quarantine = Quarantine(run.quarantine if world.main else None, config.data.quarantine_limit)

    def part(table: Table, named: Sequence[int], what: Columns) -> Dataset | None:
        if not named:
            return None
        made = Dataset(
            table,
            what,
            processors,
            named,
            cache=cache,
            quarantine=quarantine,
            groups=groups if table is source else None,
        )
        made.prepare(reporter)
        return made

    train = part(source, rows["train"], columns)
    assert train is not None  # its rows are not empty
    chosen = part(source, rows["val"], columns)
    if val is not None:
        chosen = part(val, range(len(val)), columns.bind(val))
    test = part(source, rows["test"], columns)
    return Parts(columns, processors, train, chosen, test, quarantine.count, source)
