"""Retrieval between every two modalities, with every right answer counted as right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from motet.metrics import retrieval_metrics
from motet.types import Piece, Sample

MAX_GALLERY = 5000  # rows; more say little more, and the table of matches is their square
Array = NDArray[Any]


def evaluate_retrieval(embeddings: Mapping[str, Array], samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Every ordered pair of modalities: queries of one, a gallery of the other.

    embeddings[m]: (N, E) for the N samples; rows of samples without m are not used. Queries are the
    rows that have both modalities, the gallery all rows that have the second. An item is a right
    answer if it is of the query's row or group, or of a row with an equal query or an equal item
    (two rows with the same caption, say).
    """
    samples = samples[:MAX_GALLERY]
    keys = {m: [_key(sample.pieces.get(m)) for sample in samples] for m in embeddings}
    groups = _numbers([sample.group or f"\0{i}" for i, sample in enumerate(samples)])
    found = []
    for a, b in permutations(embeddings, 2):
        has = np.array([k is not None for k in keys[b]], dtype=bool)
        both = has & np.array([k is not None for k in keys[a]], dtype=bool)
        q, g = np.flatnonzero(both), np.flatnonzero(has)
        match = groups[q][:, None] == groups[g]
        for m in (a, b):
            same = _numbers([k or f"\0{i}" for i, k in enumerate(keys[m])])
            match |= same[q][:, None] == same[g]
        measured = retrieval_metrics(embeddings[a][q], embeddings[b][g], match) if len(q) else {"n": 0}
        found.append({"query": a, "answer": b} | measured)
    return found


def _key(piece: Piece | None) -> str | None:
    """Equal for equal contents; None for a missing modality."""
    if piece is None or not len(piece):
        return None
    values = np.ascontiguousarray(piece.values)
    return blake2b(f"{values.shape}{values.dtype}".encode() + values.tobytes(), digest_size=16).hexdigest()


def _numbers(names: Sequence[str]) -> Array:
    """One integer per distinct name, (N,)."""
    known: dict[str, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)
