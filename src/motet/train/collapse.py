"""Whether a modality's embeddings have all become the same, told as soon as validation shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

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


def effective_rank(vectors: NDArray[np.floating]) -> float:
    """How many directions (N, E) vectors really use: exp of the entropy of their singular values.

    Between 1 and min(N, E); near 1 they have collapsed. Source: RankMe, Garrido et al. 2023, equation
    1, arXiv:2210.02885.
    """
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)
    share = values / max(float(values.sum()), 1e-300)
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def similarity_spread(vectors: NDArray[np.floating]) -> float:
    """Standard deviation of the cosines of all pairs of (N, E) vectors of unit length, N at least 2."""
    vectors = vectors.astype(np.float64)
    cosines = (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return float(cosines.std())


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
