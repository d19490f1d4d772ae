"""A table explained: what `Predictor.explain` says of many rows together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from motet.data.collate import collate
from motet.data.dataset import Dataset
from motet.data.quarantine import Quarantine
from motet.data.table import open_table
from motet.explain.whole import Progress, Whole, explain_rows
from motet.predictor.predictor import Predictor
from motet.types import TokenBatch

ROWS = 100


def explain_table(
    predictor: Predictor,
    table: str | Path,
    *,
    rows: int = ROWS,
    part: str | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Whole:
    """At most `rows` rows of a part, drawn by `seed`; the part as `Predictor.evaluate` chooses it.

    Raises:
        DataError: the table cannot be read, has no such rows, or none that the model can use.
    """
    opened = open_table(table)
    columns = predictor.columns.bind(opened)
    found, part = predictor.judged_rows(opened, columns, part)
    drawn = np.random.default_rng(seed).permutation(len(found))[:rows]
    chosen = [found[i] for i in sorted(drawn.tolist())]
    dataset = Dataset(
        opened, columns, predictor.processors, chosen, cache=predictor.cache, quarantine=Quarantine()
    )
    dataset.prepare(progress)
    task = predictor.tasks[0] if predictor.tasks else None

    def batches() -> Iterator[tuple[TokenBatch, str]]:
        for i in range(len(dataset)):
            sample = dataset[i]
            target = sample.targets.get(task.name) if task is not None and task.kind == "classes" else None
            known = task is not None and target is not None and int(target) >= 0
            truth = task.classes[int(target)] if task and known and target is not None else ""
            if sample.pieces:
                batch = collate([sample], predictor.model.config.modalities, {}).to(predictor.device)
                yield batch, truth

    title = f"{Path(table).name}, {part} rows" if part != "all" else Path(table).name
    return explain_rows(
        predictor.model, batches(), title=title, count=len(dataset), of=len(found), progress=progress
    )
