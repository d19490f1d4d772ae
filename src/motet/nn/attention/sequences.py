"""How a rule cuts a packed batch into sequences, and what of the rule remains inside them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from motet.nn.rules import Rule, Tokens, causal, conjuncts, own_modality, same_sample
from motet.types import Layout

CUTS = (same_sample, own_modality)
"""The rules that cut a batch into sequences."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Tokens that can see each other at all, side by side and in order of time.

    order (T,): packed index of the token at each place; sequences of `lengths` follow each other.
    `rest` is what a sequence's mask must still say, None where everything inside is seen, or,
    with `is_causal`, everything that is not later.
    """

    order: Tensor
    lengths: tuple[int, ...]
    is_causal: bool
    rest: Rule | None

    @staticmethod
    def of(rule: Rule, layout: Layout) -> Sequences:
        parts = conjuncts(rule)
        key = torch.zeros_like(layout.sample)
        if same_sample in parts:
            key = layout.sample
        if own_modality in parts:
            key = key * len(layout.modalities) + layout.modality
        rest = [p for p in parts if p not in CUTS]
        order = _sort(layout, key, by_time=causal in rest)
        lengths = torch.unique_consecutive(key[order], return_counts=True)[1].tolist()
        is_causal = rest == [causal] and _times_rise(layout, key, order)
        if is_causal:
            rest = []
        return Sequences(order, tuple(lengths), is_causal, reduce(Rule.__and__, rest) if rest else None)

    @cached_property
    def inverse(self) -> Tensor:
        """(T,): where each packed token stands in `order`."""
        return torch.argsort(self.order)

    @cached_property
    def in_place(self) -> bool:
        """Whether the order is the packed order already, so that nothing has to move."""
        return bool((self.order == torch.arange(len(self.order), device=self.order.device)).all())

    def windows(self, size: int) -> Iterator[tuple[slice, slice]]:
        """Runs of `size` places, each with the places that the run's sequences cover: nobody in
        the run sees beyond them."""
        stops = list(accumulate(self.lengths))
        total = stops[-1] if stops else 0
        for start in range(0, total, size):
            stop = min(total, start + size)
            first = bisect_right(stops, start)
            last = bisect_right(stops, stop - 1)
            yield slice(start, stop), slice(stops[first] - self.lengths[first], stops[last])

    def seen(self, rule: Rule, layout: Layout, size: int) -> Iterator[Tensor]:
        """(places, keys in reach) bool, what `rule` lets each run of `size` places look at."""
        tokens, test = self.tokens(layout), rule.bind(layout)
        for rows, keys in self.windows(size):
            yield test(tokens.at((rows, None)), tokens.at((None, keys)))

    def tiles(self, rule: Rule, layout: Layout, size: int) -> Iterator[tuple[int, Tensor]]:
        """For each run of `size` places, the first key tile in reach and (tiles, size, size) bool, what
        `rule` lets it look at there; False beyond the last place."""
        tokens, test, total = self.tokens(layout), rule.bind(layout), layout.tokens
        for mine, reach in self.windows(size):
            first, last = reach.start // size, -(-reach.stop // size)
            near = slice(first * size, min(total, last * size))
            seen = test(tokens.at((mine, None)), tokens.at((None, near)))
            seen = F.pad(seen, (0, (last - first) * size - seen.shape[1], 0, size - len(seen)))
            yield first, seen.view(size, last - first, size).transpose(0, 1)

    @property
    def longest(self) -> int:
        return max(self.lengths, default=0)

    def tokens(self, layout: Layout) -> Tokens:
        """Attributes in this order."""
        return Tokens.of(layout).at(self.order)


def _sort(layout: Layout, key: Tensor, *, by_time: bool) -> Tensor:
    order = torch.argsort(layout.position, stable=True)
    if by_time:
        order = order[torch.argsort(layout.time[order], stable=True)]
    return order[torch.argsort(key[order], stable=True)]


def _times_rise(layout: Layout, key: Tensor, order: Tensor) -> bool:
    """Whether no two tokens of a sequence have the same time, so that causal means `index <= mine`."""
    time, key = layout.time[order], key[order]
    return bool(((time[1:] > time[:-1]) | (key[1:] != key[:-1])).all())
