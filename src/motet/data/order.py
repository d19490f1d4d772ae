"""Which samples make which batch: a pure function of (data, seed, epoch) and the number of ranks.

An epoch is every sample once, whatever the limits. With a limit of tokens, samples of like length
come together, so that batches are even; how many batches there are depends on the lengths alone, so
every epoch has as many steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

BINS = 8  # bins of length for each doubling: a sample's cost is at most 9 % above its length


def by_count(order: np.ndarray, size: int, world: int) -> list[np.ndarray]:
    """Parts of sizes as equal as can be, at most `size`, their number a multiple of `world`."""
    steps = -(-len(order) // (size * world))
    return np.array_split(order, steps * world) if steps else []


def by_tokens(
    lengths: np.ndarray,
    *,
    size: int,
    tokens: int,
    world: int,
    random: np.random.Generator | None,
) -> list[np.ndarray]:
    """Parts of at most `size` samples and `tokens` tokens; a sample longer than that has a part to itself.

    lengths: (n,) tokens of each sample. With `random` samples of like length are shuffled among each
    other, then the steps (runs of `world` parts); without it, all keeps its order.
    """
    if random is None:
        return _even(_cut(lengths, size, tokens), world, np.arange(len(lengths)))
    bins = np.ceil(BINS * np.log2(np.maximum(lengths, 1))).astype(np.int64)
    order = np.argsort(bins, kind="stable")
    _, starts, counts = np.unique(bins[order], return_index=True, return_counts=True)
    costs = np.repeat(np.maximum.reduceat(lengths[order], starts), counts) if len(order) else lengths
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        order[start : start + count] = random.permutation(order[start : start + count])
    parts = _even(_cut(costs, size, tokens), world, order)
    steps = random.permutation(len(parts) // world)
    return [parts[step * world + rank] for step in steps for rank in range(world)]


def _cut(costs: np.ndarray, size: int, tokens: int) -> list[int]:
    """Where the parts end, filling each before the next is begun."""
    ends: list[int] = []
    begin = total = 0
    for i, cost in enumerate(costs.tolist()):
        if i > begin and (total + cost > tokens or i - begin == size):
            ends.append(i)
            begin, total = i, 0
        total += cost
    return [*ends, len(costs)] if len(costs) else []


def _even(ends: Sequence[int], world: int, order: np.ndarray) -> list[np.ndarray]:
    """The parts of `order`, the fullest halved until every rank has as many; the last may be empty."""
    starts = [0, *ends[:-1]] if ends else []
    spans = list(zip(starts, ends, strict=True))
    while len(spans) % world:
        fullest = max(range(len(spans)), key=lambda i: spans[i][1] - spans[i][0])
        begin, end = spans[fullest]
        middle = end - (end - begin) // 2
        spans[fullest : fullest + 1] = [(begin, middle), (middle, end)]
    return [order[begin:end] for begin, end in spans]
