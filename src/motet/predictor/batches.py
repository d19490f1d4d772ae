"""Entries through a model, some at a time, each with what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from motet.errors import DataError
from motet.predictor.cells import Broken
from motet.predictor.inputs import Entry
from motet.types import Sample

BATCH = 64


@torch.inference_mode()
def in_batches(
    entries: Iterable[Entry],
    read: Callable[[Sequence[Entry]], list[Sample | Broken]],
    call: Callable[[Sequence[Sample]], Any],
    *,
    strict: bool,
    batch: int = BATCH,
) -> Iterator[tuple[Entry, Sample | Broken, Any, int]]:
    """Each entry with its sample, the output of its batch (None: nothing of it) and its row there; in order.

    Raises:
        DataError: with `strict`, an entry that cannot be read.
    """
    stream = iter(entries)
    while part := list(islice(stream, batch)):
        samples = read(part)
        usable = [s for s in samples if isinstance(s, Sample) and s.pieces]
        output = call(usable) if usable else None
        row = 0
        for entry, sample in zip(part, samples, strict=True):
            if isinstance(sample, Broken) and strict:
                raise DataError(f"{entry.where}: {sample.error}")
            if isinstance(sample, Broken) or not sample.pieces:
                yield entry, sample, None, 0
            else:
                yield entry, sample, output, row
                row += 1
