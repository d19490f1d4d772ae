"""Who may look at whom: rules `(query token, key token) -> bool`, combined by `&`, `|`, `~`.

Every attention of Motet is a rule over one packed batch. A rule is evaluated on two `Tokens` whose
attributes broadcast: queries (Q, 1) against keys (1, K) give a (Q, K) mask; scalars inside a kernel
give one bit. So the same text serves the dense reference, the tiled CPU code and FlexAttention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from motet.errors import ConfigError
from motet.nn.rule import Rule, Test, Tokens, conjuncts, everything
from motet.types import Layout


@dataclass(frozen=True)
class Same(Rule):
    """Query and key are equal in one attribute: the rules that cut a batch into sequences."""

    attribute: str

    reflexive: ClassVar[bool] = True

    def bind(self, layout: Layout) -> Test:
        name = self.attribute
        return lambda q, k: getattr(q, name) == getattr(k, name)

    def __str__(self) -> str:
        return f"same_{self.attribute}" if self.attribute != "modality" else "own_modality"


@dataclass(frozen=True)
class _SameSpan(Rule):
    def bind(self, layout: Layout) -> Test:
        return lambda q, k: (q.span == k.span) & (q.span >= 0)

    def __str__(self) -> str:
        return "same_span"


@dataclass(frozen=True)
class _Causal(Rule):
    reflexive: ClassVar[bool] = True

    def bind(self, layout: Layout) -> Test:
        return lambda q, k: k.time <= q.time

    def __str__(self) -> str:
        return "causal"


@dataclass(frozen=True)
class _Across(Rule):
    query: str
    key: str

    def bind(self, layout: Layout) -> Test:
        q_id, k_id = (_modality_id(layout, name, self) for name in (self.query, self.key))
        return lambda q, k: (q.modality == q_id) & (k.modality == k_id)

    def __str__(self) -> str:
        return f"across({self.query!r}, {self.key!r})"


@dataclass(frozen=True)
class _Window(Rule):
    size: float
    in_seconds: bool

    reflexive: ClassVar[bool] = True

    def bind(self, layout: Layout) -> Test:
        size = self.size
        if self.in_seconds:
            return lambda q, k: (q.time - k.time).abs() <= size
        return lambda q, k: (q.position - k.position).abs() <= size

    def __str__(self) -> str:
        return f"window({'seconds' if self.in_seconds else 'tokens'}={self.size:g})"


@dataclass(frozen=True)
class _Prefix(Rule):
    tokens: int

    def bind(self, layout: Layout) -> Test:
        size = self.tokens
        return lambda q, k: (k.position < size) & (q.position >= 0)

    def __str__(self) -> str:
        return f"prefix({self.tokens})"


@dataclass(frozen=True)
class _Where(Rule):
    name: str
    function: Test

    def bind(self, layout: Layout) -> Test:
        return self.function

    def __str__(self) -> str:
        return f"where({self.name})"


@dataclass(frozen=True, eq=False)
class SelfWhere(Rule):
    """The tokens marked in `chosen` (T,) bool look at themselves; nobody looks at anything else."""

    chosen: Tensor

    def bind(self, layout: Layout) -> Test:
        chosen = self.chosen
        return lambda q, k: (q.place == k.place) & chosen[q.place]

    def __str__(self) -> str:
        return "self_where(no key)"


@dataclass(frozen=True)
class BlockSparse(Rule):
    """See `block_sparse`."""

    block: int
    density: float
    seed: int
    global_tokens: int

    reflexive: ClassVar[bool] = True

    def table(self, blocks: int) -> Tensor:
        """(blocks, blocks) bool: which block of keys each block of queries looks at. On the CPU.

        Every row keeps the same number of blocks, so that no part of the work waits for another.
        """
        keep = min(blocks, max(1, round(self.density * blocks)))
        score = torch.rand(blocks, blocks, generator=torch.Generator().manual_seed(self.seed))
        score.fill_diagonal_(2.0)  # the diagonal always stays
        table = torch.zeros(blocks, blocks, dtype=torch.bool)
        return table.scatter_(1, score.topk(keep, dim=1).indices, True)

    def bind(self, layout: Layout) -> Test:
        longest = int(layout.position.max()) + 1 if layout.tokens else 1
        table = self.table(-(-longest // self.block)).to(layout.device)
        size, shared = self.block, self.global_tokens

        def test(q: Tokens, k: Tokens) -> Tensor:
            seen = table[q.position // size, k.position // size]
            return seen | (k.position < shared) | (q.position < shared) if shared else seen

        return test

    def __str__(self) -> str:
        return f"block_sparse({self.block}, {self.density:g}, {self.seed}, {self.global_tokens})"


same_sample: Rule = Same("sample")
"""Only tokens of one's own sample: the rule that keeps packed samples apart."""

own_modality: Rule = Same("modality")
"""Only tokens of one's own modality."""

same_span: Rule = _SameSpan()
"""Only tokens of one's own span (a picture inside a text, say); tokens outside spans see none."""

causal: Rule = _Causal()
"""Only what is not later: key time <= query time. Tokens of the same time see each other."""


def across(query: str, key: str) -> Rule:
    """Tokens of modality `query` look at tokens of modality `key`, and nobody else looks."""
    return _Across(query, key)


def window(*, tokens: int | None = None, seconds: float | None = None) -> Rule:
    """Only keys at most so many tokens (by position) or seconds away, on both sides."""
    if (tokens is None) == (seconds is None):
        raise ConfigError("window: say either tokens= or seconds=, and not both.")
    size = tokens if tokens is not None else seconds
    if size is None or size < 0:
        raise ConfigError(f"window: {size} is below 0; a token would not even see itself.")
    return _Window(float(size), seconds is not None)


def prefix(tokens: int) -> Rule:
    """The first `tokens` positions of a sample are seen by all; `causal | prefix(n)` is a prefix LM."""
    return _Prefix(tokens)


def block_sparse(block: int, density: float, *, seed: int = 0, global_tokens: int = 0) -> Rule:
    """Blocks of `block` x `block` positions, a share `density` of them, drawn by `seed`.

    The diagonal blocks always stay, so no query is left without a key, and the first
    `global_tokens` positions of a sample see all and are seen by all (Zaheer et al. 2020,
    arXiv:2007.14062: random and global blocks). The same seed and length give the same pattern.
    """
    if block < 1 or not 0 < density <= 1:
        raise ConfigError(f"block_sparse: needs block >= 1 and 0 < density <= 1, got {block} and {density}.")
    return BlockSparse(block, density, seed, global_tokens)


def where(function: Test, name: str = "function") -> Rule:
    """Your own rule: `function(q, k)` of two `Tokens` gives a bool tensor of their joint shape."""
    return _Where(name, function)


def _modality_id(layout: Layout, name: str, rule: Rule) -> int:
    if name not in layout.modalities:
        raise ConfigError(
            f"{rule}: there is no modality {name!r}; this batch has {', '.join(layout.modalities)}."
        )
    return layout.modalities.index(name)


__all__ = [
    "BlockSparse",
    "Rule",
    "SelfWhere",
    "Tokens",
    "across",
    "block_sparse",
    "causal",
    "conjuncts",
    "everything",
    "own_modality",
    "prefix",
    "same_sample",
    "same_span",
    "where",
    "window",
]
