"""Filters over the fields of a row: `price < 50 and colour = 'red'`.

    expression  = conjunction ("or" conjunction)*
    conjunction = negation ("and" negation)*
    negation    = "not" negation | "(" expression ")" | test
    test        = name ("=" | "==" | "!=" | "<>" | "<" | "<=" | ">" | ">=") literal
                | name ["not"] "in" "(" literal ("," literal)* ")"
                | name "is" ["not"] "null"
    name        = letters, digits, "_"; any other name between double quotes
    literal     = number | 'text' ('' is one quote) | true | false

As in SQL, a test of an empty cell is neither true nor false, and such a row is not found by a test
or by its negation. Keywords may be written in any case. Text is parsed, never evaluated.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from motet.errors import ConfigError

Cell = str | float | bool

MAX_LENGTH = 10_000
MAX_DEPTH = 64
_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?![\w.])
    | (?P<text>'(?:[^']|'')*')
    | (?P<quoted>"[^"]+")
    | (?P<word>[^\W\d]\w*)
    | (?P<sign><=|>=|<>|!=|==|[=<>(),])
    )""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPPOSITE = {"=": "!=", "==": "!=", "!=": "=", "<>": "=", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}
_PLAIN = {"==": "=", "<>": "!="}
_KEYWORDS = ("and", "or", "not", "in", "is", "null", "true", "false")


@dataclass(frozen=True)
class Compare:
    """`name sign value`; sign is one of = != < <= > >=. Never true of an empty cell."""

    name: str
    sign: str
    value: Cell

    def __call__(self, fields: Mapping[str, Any]) -> bool:
        cell = cell_as(fields.get(self.name), type(self.value))
        return cell is not None and bool(_COMPARE[self.sign](cell, self.value))


@dataclass(frozen=True)
class Empty:
    """Whether a cell is empty (or a list, which no test reads)."""

    name: str
    wanted: bool

    def __call__(self, fields: Mapping[str, Any]) -> bool:
        return (cell_as(fields.get(self.name), str) is None) is self.wanted


@dataclass(frozen=True)
class Every:
    parts: tuple[Test, ...]

    def __call__(self, fields: Mapping[str, Any]) -> bool:
        return all(part(fields) for part in self.parts)


@dataclass(frozen=True)
class Some:
    parts: tuple[Test, ...]

    def __call__(self, fields: Mapping[str, Any]) -> bool:
        return any(part(fields) for part in self.parts)


Test = Compare | Empty | Every | Some
"""Negations stand in the signs, so that "unknown" and "false" are the same to every store."""


def negated(test: Test) -> Test:
    match test:
        case Compare(name, sign, value):
            return Compare(name, _OPPOSITE[sign], value)
        case Empty(name, wanted):
            return Empty(name, not wanted)
        case Every(parts):
            return Some(tuple(negated(part) for part in parts))
        case Some(parts):
            return Every(tuple(negated(part) for part in parts))


@dataclass(frozen=True)
class Filter:
    """A parsed filter: `filter(fields) -> bool`, or `test`, a tree that a store translates."""

    text: str
    test: Test

    def __call__(self, fields: Mapping[str, Any]) -> bool:
        return self.test(fields)

    @cached_property
    def names(self) -> frozenset[str]:
        """The fields that it reads."""
        return frozenset(_names(self.test))


def _names(test: Test) -> set[str]:
    match test:
        case Compare(name) | Empty(name):
            return {name}
        case Every(parts) | Some(parts):
            return {name for part in parts for name in _names(part)}


def parse_filter(text: str) -> Filter:
    """Read a filter.

    Raises:
        ConfigError: it cannot be read; the message points at the place.
    """
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"filter: longer than {MAX_LENGTH} characters.")
    parser = _Parser(text)
    test = parser.expression(0)
    if parser.kind != "end":
        raise parser.error("'and', 'or' or the end")
    return Filter(text, test)


class _Parser:
    """One token ahead, one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.end = 0
        self.advance()

    def advance(self) -> str:
        taken = getattr(self, "value", "")
        rest = self.text[self.end :]
        self.at = self.end + len(rest) - len(rest.lstrip())
        match = _TOKEN.match(self.text, self.end)
        if match is None:
            self.kind, self.value = "end", ""
            if rest.strip():
                raise self.error("a name, a number, 'text' or an operator")
            return taken
        self.kind, self.value, self.end = match.lastgroup or "", match[match.lastgroup or 0], match.end()
        return taken

    def error(self, expected: str) -> ConfigError:
        found = repr(self.text[self.at :].strip()[:20]) if self.text[self.at :].strip() else "the end"
        return ConfigError(
            f"filter {self.text!r}, character {self.at + 1}: expected {expected}, found {found}. "
            "Filters look like: price < 50 and colour = 'red'"
        )

    def keyword(self, word: str) -> bool:
        """Take `word` if it is next."""
        if self.kind == "word" and self.value.lower() == word:
            self.advance()
            return True
        return False

    def sign(self, sign: str) -> bool:
        if self.kind == "sign" and self.value == sign:
            self.advance()
            return True
        return False

    def expression(self, depth: int) -> Test:
        tests = [self.conjunction(depth)]
        while self.keyword("or"):
            tests.append(self.conjunction(depth))
        return tests[0] if len(tests) == 1 else Some(tuple(tests))

    def conjunction(self, depth: int) -> Test:
        tests = [self.negation(depth)]
        while self.keyword("and"):
            tests.append(self.negation(depth))
        return tests[0] if len(tests) == 1 else Every(tuple(tests))

    def negation(self, depth: int) -> Test:
        if depth > MAX_DEPTH:
            raise ConfigError(f"filter {self.text[:40]!r}...: nested more than {MAX_DEPTH} deep.")
        if self.keyword("not"):
            return negated(self.negation(depth + 1))
        if self.sign("("):
            inner = self.expression(depth + 1)
            if not self.sign(")"):
                raise self.error("')'")
            return inner
        return self.comparison()

    def comparison(self) -> Test:
        name = self.name()
        if self.keyword("is"):
            wanted = not self.keyword("not")
            if not self.keyword("null"):
                raise self.error("null")
            return Empty(name, wanted)
        if self.keyword("not"):
            if not self.keyword("in"):
                raise self.error("in")
            return negated(self.membership(name))
        if self.keyword("in"):
            return self.membership(name)
        if self.kind != "sign" or self.value not in _OPPOSITE:
            raise self.error("=, !=, <, <=, >, >=, in or is")
        sign = self.advance()
        return Compare(name, _PLAIN.get(sign, sign), self.literal())

    def membership(self, name: str) -> Test:
        if not self.sign("("):
            raise self.error("'('")
        options = [self.literal()]
        while self.sign(","):
            options.append(self.literal())
        if not self.sign(")"):
            raise self.error("',' or ')'")
        return Some(tuple(Compare(name, "=", option) for option in options))

    def name(self) -> str:
        if self.kind == "quoted":
            name = self.advance()[1:-1]
        elif self.kind == "word" and self.value.lower() not in _KEYWORDS:
            name = self.advance()
        else:
            raise self.error("the name of a field")
        return name

    def literal(self) -> Cell:
        match self.kind:
            case "number":
                return float(self.advance())
            case "text":
                return self.advance()[1:-1].replace("''", "'")
            case "word" if self.value.lower() in ("true", "false"):
                return self.advance().lower() == "true"
            case _:
                raise self.error("a number or a 'text' in single quotes")


def cell_as(cell: Any, kind: type) -> Cell | None:
    """A cell as text, number or truth, whichever it is compared with; None where it has no such value."""
    if cell is None or isinstance(cell, list | tuple | dict):
        return None
    if kind is bool:
        return {"true": True, "false": False, "1": True, "0": False}.get(str(cell).lower())
    if kind is str:
        return str(cell)
    try:
        number = float(cell)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
