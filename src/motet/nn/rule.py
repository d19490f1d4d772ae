"""What a rule is: a predicate on two tokens, and how rules combine. The rules stand in `rules.py`."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from motet.types import Layout


class Tokens(NamedTuple):
    """Attributes of tokens (see `Layout`), all of one shape; `place` is the index in the packed batch."""

    place: Tensor
    sample: Tensor
    modality: Tensor
    position: Tensor
    time: Tensor
    row: Tensor
    col: Tensor
    span: Tensor

    @staticmethod
    def of(layout: Layout) -> Tokens:
        place = torch.arange(layout.tokens, device=layout.device)
        return Tokens(place, *(getattr(layout, name) for name in Tokens._fields[1:]))

    def at(self, index: Tensor | slice | tuple[Tensor | slice | None, ...]) -> Tokens:
        """Every attribute indexed so."""
        return Tokens(*(attribute[index] for attribute in self))


Test = Callable[[Tokens, Tokens], Tensor]


class Rule:
    """Base of all rules. `reflexive` is true where every token surely may look at itself."""

    reflexive: ClassVar[bool] = False

    def bind(self, layout: Layout) -> Test:
        """The test for tokens of this layout; tables it needs lie on the layout's device."""
        raise NotImplementedError(f"{type(self).__name__} must define bind(layout)")

    def __and__(self, other: Rule) -> Rule:
        parts = tuple(p for p in _parts(self, And) + _parts(other, And) if p != everything)
        return parts[0] if len(parts) == 1 else And(parts) if parts else everything

    def __or__(self, other: Rule) -> Rule:
        parts = _parts(self, Or) + _parts(other, Or)
        return everything if everything in parts else Or(parts)

    def __invert__(self) -> Rule:
        return Not(self)


def _parts(rule: Rule, kind: type[And] | type[Or]) -> tuple[Rule, ...]:
    return rule.parts if isinstance(rule, kind) else (rule,)


@dataclass(frozen=True)
class And(Rule):
    parts: tuple[Rule, ...]

    @property
    def reflexive(self) -> bool:  # type: ignore[override]
        return all(part.reflexive for part in self.parts)

    def bind(self, layout: Layout) -> Test:
        tests = [part.bind(layout) for part in self.parts]
        return lambda q, k: reduce(operator.and_, [test(q, k) for test in tests])

    def __str__(self) -> str:
        return "(" + " & ".join(map(str, self.parts)) + ")"


@dataclass(frozen=True)
class Or(Rule):
    parts: tuple[Rule, ...]

    @property
    def reflexive(self) -> bool:  # type: ignore[override]
        return any(part.reflexive for part in self.parts)

    def bind(self, layout: Layout) -> Test:
        tests = [part.bind(layout) for part in self.parts]
        return lambda q, k: reduce(operator.or_, [test(q, k) for test in tests])

    def __str__(self) -> str:
        return "(" + " | ".join(map(str, self.parts)) + ")"


@dataclass(frozen=True)
class Not(Rule):
    rule: Rule

    def bind(self, layout: Layout) -> Test:
        test = self.rule.bind(layout)
        return lambda q, k: ~test(q, k)

    def __str__(self) -> str:
        return f"~{self.rule}"


@dataclass(frozen=True)
class _Everything(Rule):
    reflexive: ClassVar[bool] = True

    def bind(self, layout: Layout) -> Test:
        return lambda q, k: (q.place >= 0) & (k.place >= 0)

    def __str__(self) -> str:
        return "everything"


everything: Rule = _Everything()
"""Every token looks at every token of the batch: use it with `same_sample`."""


def conjuncts(rule: Rule) -> tuple[Rule, ...]:
    """The rules that all must hold; a rule that is no `&` is its own only part."""
    return () if rule == everything else _parts(rule, And)
