"""One entry explained: what `Predictor.explain` and the demo's report show."""

from __future__ import annotations

from pathlib import Path

from motet.data.collate import collate
from motet.data.paths import resolve_media
from motet.errors import DataError
from motet.explain.item import Explained, Media, explain_sample
from motet.predictor.cells import Broken, read_entries
from motet.predictor.inputs import Entry
from motet.predictor.predictor import Predictor


def explain_entry(predictor: Predictor, entry: Entry, *, truth: str = "") -> Explained:
    """Where the model looked, as numbers. `truth` is the right answer, where it is known.

    Raises:
        DataError: the entry cannot be read, or is empty.
    """
    sample = read_entries([entry], predictor.processors, predictor.cache)[0]
    if isinstance(sample, Broken):
        raise DataError(f"{entry.where}: {sample.error}", rule=sample.error.rule)
    if not sample.pieces:
        raise DataError(f"{entry.where}: nothing in it that the model can use.")
    batch = collate([sample], predictor.model.config.modalities, {}, labels=True).to(predictor.device)
    media = {m: _media(entry, m, p.kind) for m, p in predictor.processors.items() if m in entry.cells}
    return explain_sample(predictor.model, batch, media, truth=truth)


def _media(entry: Entry, modality: str, kind: str) -> Media:
    """What a page shows of a cell."""
    cell = entry.cells[modality]
    if kind == "text":
        return Media(text=str(cell))
    if isinstance(cell, str | Path) and kind != "features":
        return Media(file=cell if isinstance(cell, Path) else resolve_media(cell, entry.root, entry.where))
    return Media()
