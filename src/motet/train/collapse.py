"""Whether a modality's embeddings have all become the same, told as soon as validation shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from motet.metrics import effective_rank, similarity_spread

ROWS = 512  # vectors looked at: the rank of more costs more and says the same
LOWEST_RANK = 1.5  # directions; two kinds of things that are told apart already use more
LOWEST_SPREAD = 0.01  # of cosines; random directions in 128 dimensions have 0.09


def spread_of(embeddings: Mapping[str, NDArray[np.floating]]) -> dict[str, float]:
    """(N, E) vectors of unit length per modality -> "rank/<modality>" and "spread/<modality>".

    Of a modality with fewer than 8 vectors nothing is said.
    """
    result = {}
    for name, vectors in embeddings.items():
        if len(vectors) >= 8:
            result[f"rank/{name}"] = effective_rank(vectors[:ROWS])
            result[f"spread/{name}"] = similarity_spread(vectors[:ROWS])
    return result


class CollapseWatch:
    """Says in a sentence when a modality collapses, once until it has recovered."""

    def __init__(self) -> None:
        self.collapsed: set[str] = set()

    def __call__(self, val: Mapping[str, float], say: Callable[[str], None]) -> None:
        """`val`: what `validate` gave."""
        for key, spread in val.items():
            if not key.startswith("spread/"):
                continue
            name = key.split("/", 1)[1]
            rank = val[f"rank/{name}"]
            if rank >= LOWEST_RANK and spread >= LOWEST_SPREAD:
                self.collapsed.discard(name)
            elif name not in self.collapsed:
                self.collapsed.add(name)
                say(
                    f"The embeddings of {name} have collapsed: all rows get nearly the same vector "
                    f"(effective rank {rank:.1f}, spread of cosines {spread:.3f}), so a search for {name} "
                    "finds nothing. Try --set train.lr=3e-4, a larger train.batch_size, or check the column."
                )
