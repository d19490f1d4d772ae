"""Late interaction: two things compared token against token, to put the nearest few in better order.

Each token of the query looks for the token of the candidate most like it; the score is the mean of
these cosines. Sources: Khattab & Zaharia 2020 (ColBERT, MaxSim), arXiv:2004.12832; Yao et al. 2021
(FILIP, the mean over tokens, and pictures), arXiv:2111.07783.

Token vectors are not stored: they would make an index some fifty times larger. Candidates are read
again from what the index knows of them; features of frozen encoders come from the cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from motet.data.columns import modality_name
from motet.errors import ConfigError, DataError
from motet.predictor.cells import Broken, read_entries
from motet.predictor.inputs import Entry, entry_of
from motet.types import Sample

if TYPE_CHECKING:
    from motet.predictor.predictor import Predictor

BATCH = 64


def max_sim(query: np.ndarray, item: np.ndarray) -> float:
    """The mean over the query's tokens (n, E) of the cosine of the nearest of the item's tokens (k, E)."""
    return float((query @ item.T).max(axis=1).mean())


def late_scores(
    model: Predictor, parts: Sequence[Any], rows: Sequence[tuple[Mapping[str, Any], str]]
) -> list[float | None]:
    """The late interaction of a query's parts, all tokens together, with each row.

    rows: (fields, modality), what an index knows of a row and which of its modalities counts. None
    where that cannot be read any more.

    Raises:
        ConfigError, DataError: a part cannot be read.
    """
    asked = [entry_of(part, model.processors, where=f"query {i}") for i, part in enumerate(parts)]
    tokens = []
    for entry, vectors in zip(asked, token_vectors(model, asked), strict=True):
        if isinstance(vectors, Broken):
            raise DataError(f"{entry.where}: {vectors.error}")
        tokens += list(vectors.values())
    if not tokens:
        raise DataError("query: nothing in it that the model can encode.")
    query = np.concatenate(tokens)
    items = [_entry(model, fields, modality) for fields, modality in rows]
    found = iter(token_vectors(model, [item for item in items if item is not None]))
    scores: list[float | None] = []
    for item, (_, modality) in zip(items, rows, strict=True):
        known = None if item is None else next(found)
        there = None if known is None or isinstance(known, Broken) else known.get(modality)
        scores.append(None if there is None else max_sim(query, there))
    return scores


def _entry(model: Predictor, fields: Mapping[str, Any], modality: str) -> Entry | None:
    """One modality of a row, from its fields; None where they do not hold it or its file is gone."""
    names = {modality_name(name): name for name in fields}
    cell = fields.get(names.get(modality, names.get(modality.removesuffix("_sound"), "")))
    if cell is None:
        return None
    try:
        return entry_of({modality: cell}, model.processors)
    except (DataError, ConfigError):
        return None


@torch.inference_mode()
def token_vectors(model: Predictor, entries: Sequence[Entry]) -> list[dict[str, np.ndarray] | Broken]:
    """modality -> (n, E) unit vectors of its tokens, for each entry; or why it cannot be read."""
    out: list[dict[str, np.ndarray] | Broken] = []
    for start in range(0, len(entries), BATCH):
        samples = read_entries(entries[start : start + BATCH], model.processors, model.cache)
        usable = [s for s in samples if isinstance(s, Sample) and s.pieces]
        split = iter(_split(model, usable) if usable else ())
        for sample in samples:
            if isinstance(sample, Broken):
                out.append(sample)
            else:
                out.append(next(split) if sample.pieces else {})
    return out


def _split(model: Predictor, samples: Sequence[Sample]) -> list[dict[str, np.ndarray]]:
    batch = model.batch(samples)
    found: list[dict[str, np.ndarray]] = [{} for _ in samples]
    for m, tokens in model.model.encode_tokens(batch).items():
        values = tokens.float().cpu().numpy()
        owner = batch.layout.sample[batch.layout.slice_of(m)].cpu().numpy()
        ends = np.searchsorted(owner, np.arange(len(samples) + 1))  # tokens are sorted by sample
        for b, sample in enumerate(samples):
            if m in sample.pieces:
                found[b][m] = values[ends[b] : ends[b + 1]]
    return found
