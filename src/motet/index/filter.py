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

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from motet.errors import ConfigError

Cell = str | float | bool
Test = Callable[[Mapping[str, Any]], bool | None]  # None: unknown, the cell is empty

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
    "==": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_KEYWORDS = ("and", "or", "not", "in", "is", "null", "true", "false")


@dataclass(frozen=True)
class Filter:
    """A parsed filter: `filter(fields) -> bool`. `names` are the fields that it reads."""

    text: str
    names: frozenset[str]
    test: Test

    def __call__(self, fields: Mapping[str, Any]) -> bool:
        return self.test(fields) is True


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
    return Filter(text, frozenset(parser.names), test)


class _Parser:
    """One token ahead, one method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.end = 0
        self.names: set[str] = set()
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
        return tests[0] if len(tests) == 1 else _any(tests)

    def conjunction(self, depth: int) -> Test:
        tests = [self.negation(depth)]
        while self.keyword("and"):
            tests.append(self.negation(depth))
        return tests[0] if len(tests) == 1 else _all(tests)

    def negation(self, depth: int) -> Test:
        if depth > MAX_DEPTH:
            raise ConfigError(f"filter {self.text[:40]!r}...: nested more than {MAX_DEPTH} deep.")
        if self.keyword("not"):
            return _not(self.negation(depth + 1))
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
            return lambda fields: (fields.get(name) is None) is wanted
        if self.keyword("not"):
            if not self.keyword("in"):
                raise self.error("in")
            return _not(self.membership(name))
        if self.keyword("in"):
            return self.membership(name)
        if self.kind != "sign" or self.value not in _COMPARE:
            raise self.error("=, !=, <, <=, >, >=, in or is")
        return _compare(name, self.advance(), self.literal())

    def membership(self, name: str) -> Test:
        if not self.sign("("):
            raise self.error("'('")
        options = [self.literal()]
        while self.sign(","):
            options.append(self.literal())
        if not self.sign(")"):
            raise self.error("',' or ')'")
        return _any([_compare(name, "=", option) for option in options])

    def name(self) -> str:
        if self.kind == "quoted":
            name = self.advance()[1:-1]
        elif self.kind == "word" and self.value.lower() not in _KEYWORDS:
            name = self.advance()
        else:
            raise self.error("the name of a field")
        self.names.add(name)
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


def _compare(name: str, sign: str, wanted: Cell) -> Test:
    compare = _COMPARE[sign]

    def test(fields: Mapping[str, Any]) -> bool | None:
        cell = _as(fields.get(name), wanted)
        return None if cell is None else bool(compare(cell, wanted))

    return test


def _as(cell: Any, wanted: Cell) -> Cell | None:
    """The cell in the type that it is compared with; None where it has no such value."""
    match wanted:
        case _ if cell is None or isinstance(cell, list | dict):
            return None
        case bool():
            known = {"true": True, "false": False, "1": True, "0": False}
            return known.get(str(cell).lower())
        case str():
            return str(cell)
        case _:
            try:
                return float(cell)
            except ValueError:
                return None


def _not(test: Test) -> Test:
    def inverted(fields: Mapping[str, Any]) -> bool | None:
        answer = test(fields)
        return None if answer is None else not answer

    return inverted


def _all(tests: list[Test]) -> Test:
    def every(fields: Mapping[str, Any]) -> bool | None:
        answers = [test(fields) for test in tests]
        return False if False in answers else None if None in answers else True

    return every


def _any(tests: list[Test]) -> Test:
    def some(fields: Mapping[str, Any]) -> bool | None:
        answers = [test(fields) for test in tests]
        return True if True in answers else None if None in answers else False

    return some
