"""One attention call over a plan: rule + layout -> `plan.attend(q, k, v)`.

A plan is built once a batch and serves every layer with that rule. Behind it stand backends that
agree with `reference`: `sdpa` (sequences bucketed by length), `tiled` (sparse rules, any device),
`flex` (sparse or ragged, CUDA). `auto` chooses; `docs/decisions/attention-backends.md` says by
which measurement.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Literal, Protocol

import torch
from torch import Tensor

from motet.errors import ConfigError
from motet.nn.attention.flex import Flex
from motet.nn.attention.padded import Padded
from motet.nn.attention.reference import Reference
from motet.nn.attention.sequences import CUTS, Sequences
from motet.nn.attention.tiled import TILE, Tiled
from motet.nn.rules import Rule, SelfWhere, Tokens, conjuncts, everything
from motet.types import Layout

Backend = Literal["auto", "reference", "sdpa", "tiled", "flex"]
ROWS_AT_ONCE = 1024
LONG = 4 * TILE  # below this a dense mask is cheaper than visiting tiles


class _Attends(Protocol):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class AttentionPlan:
    """Who looks at whom in one batch, ready to be used by every layer.

    `rule` is the rule in force (with `on_empty="self"` it includes the queries given themselves).
    """

    rule: Rule
    layout: Layout
    backend: str
    _run: _Attends

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q (T, H, K), k and v (T, G, K) with G dividing H, all packed -> (T, H, K).

        softmax(q k^T / sqrt(K)) v over the keys that the rule allows.
        """
        return self._run.attend(q, k, v)

    def mask(self, rows: Tensor | None = None) -> Tensor:
        """(len(rows), T) bool in packed order: what the tokens `rows` (all, if None) look at."""
        return _dense(self.rule, self.layout, rows)

    @property
    def density(self) -> float:
        """Share of all (query, key) pairs of the batch that are looked at."""
        layout = self.layout
        masks = Sequences.of(self.rule, layout).seen(self.rule, layout, ROWS_AT_ONCE)
        seen = sum(int(mask.sum()) for mask in masks)
        return seen / max(1, layout.tokens**2)


def make_plan(
    rule: Rule, layout: Layout, *, backend: Backend = "auto", on_empty: Literal["raise", "self"] = "raise"
) -> AttentionPlan:
    """Plan the attention of one packed batch.

    on_empty: what becomes of a query whose rule leaves it no key: "raise" refuses, "self" lets it
    look at itself. Never is a softmax taken over nothing.

    Raises:
        ConfigError: a query without a key, named by rule, modality and sample; an unknown backend.
    """
    sequences = Sequences.of(rule, layout)
    safe = _no_lonely_query(rule, sequences, layout, on_empty)
    if safe is not rule:
        rule, sequences = safe, Sequences.of(safe, layout)
    if backend == "reference":
        return AttentionPlan(rule, layout, backend, Reference(_dense(rule, layout, None)))
    chosen = _choose(sequences, layout) if backend == "auto" else backend
    match chosen:
        case "sdpa":
            run: _Attends = Padded.of(sequences, layout)
        case "tiled":
            run = Tiled.of(rule, sequences, layout)
        case "flex":
            run = Flex.of(rule, sequences, layout)
        case _:
            raise ConfigError(f"backend {chosen!r}: there are auto, reference, sdpa, tiled, flex.")
    return AttentionPlan(rule, layout, chosen, run)


def _choose(sequences: Sequences, layout: Layout) -> str:
    ragged = len(set(sequences.lengths)) > 1
    if layout.device.type == "cuda" and (
        sequences.rest is not None or (ragged and sequences.longest >= LONG)
    ):
        return "flex"
    return "tiled" if sequences.rest is not None and sequences.longest >= LONG else "sdpa"


def _no_lonely_query(rule: Rule, sequences: Sequences, layout: Layout, on_empty: str) -> Rule:
    if rule.reflexive or not layout.tokens:
        return rule
    found = [~mask.any(1) for mask in sequences.seen(rule, layout, ROWS_AT_ONCE)]
    lonely = torch.cat(found)[sequences.inverse]
    if not lonely.any():
        return rule
    if on_empty == "self":
        # Beside the rest, within what cuts the batch: the plan still sees short sequences.
        parts = conjuncts(rule)
        cuts = reduce(Rule.__and__, [p for p in parts if p in CUTS], everything)
        rest = reduce(Rule.__and__, [p for p in parts if p not in CUTS], everything)
        return cuts & (rest | SelfWhere(lonely))
    first = int(lonely.nonzero()[0])
    modality = layout.modalities[int(layout.modality[first])]
    raise ConfigError(
        f"rule {rule}: {int(lonely.sum())} queries have no key, the first a {modality!r} token of sample "
        f"{int(layout.sample[first])}. Add `| own_modality`, or on_empty='self' to let them see themselves."
    )


def _dense(rule: Rule, layout: Layout, rows: Tensor | None) -> Tensor:
    tokens = Tokens.of(layout)
    queries = tokens if rows is None else tokens.at(rows)
    return rule.bind(layout)(queries.at((slice(None), None)), tokens.at((None, slice(None))))


__all__ = ["AttentionPlan", "Backend", "make_plan"]
