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
    rows = Belonging(samples, tuple(embeddings))
    found = []
    for a, b in permutations(embeddings, 2):
        q, g = np.flatnonzero(rows.has[a] & rows.has[b]), np.flatnonzero(rows.has[b])
        match = rows.together(a, b, q, g)
        measured = retrieval_metrics(embeddings[a][q], embeddings[b][g], match) if len(q) else {"n": 0}
        found.append({"query": a, "answer": b} | measured)
    return found


class Belonging:
    """Which rows belong together: those of one group, and those that hold the same.

    has[m]: (N,) bool, which samples have modality m.
    """

    def __init__(self, samples: Sequence[Sample], modalities: Sequence[str]) -> None:
        keys = {m: [_key(sample.pieces.get(m)) for sample in samples] for m in modalities}
        self.has = {m: np.array([k is not None for k in own], dtype=bool) for m, own in keys.items()}
        self.groups = _numbers([sample.group or f"\0{i}" for i, sample in enumerate(samples)])
        self.contents = {m: _numbers([k or f"\0{i}" for i, k in enumerate(own)]) for m, own in keys.items()}

    def together(self, a: str, b: str, q: Array, g: Array) -> Array:
        """(Q, G) bool for rows `q` (Q,) as queries of modality `a`, rows `g` (G,) as items of `b`."""
        same = self.groups[q][:, None] == self.groups[g]
        for m in (a, b):
            same |= self.equal(m, q, g)
        return same

    def equal(self, m: str, q: Array, g: Array) -> Array:
        """(Q, G) bool: which rows hold the same in modality `m`."""
        return self.contents[m][q][:, None] == self.contents[m][g]


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
