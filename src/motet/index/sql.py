"""Conditions as SQL whose names are digests and whose values are literals made here: nothing is pasted."""

from __future__ import annotations

from motet.index.entries import Among, Condition, field_key, kind_of
from motet.index.filter import Compare, Empty, Every, Some

PREFIX = {"text": "t", "number": "n", "flag": "b"}


def sql_of(condition: Condition, known: set[str]) -> str:  # noqa: PLR0911
    """known: the columns that there are; a cell that no row has is empty in all."""
    match condition:
        case Among(column, values):
            return f"{column} IN ({', '.join(literal(value) for value in values)})"
        case Compare(name, sign, value):
            cell = PREFIX[kind_of(value)] + field_key(name)
            return f"({cell} {sign} {literal(value)})" if cell in known else "false"
        case Empty(name, wanted):
            cell = PREFIX["text"] + field_key(name)
            if cell not in known:
                return "true" if wanted else "false"
            return f"({cell} IS {'' if wanted else 'NOT '}NULL)"
        case Every(parts):
            return f"({' AND '.join(sql_of(part, known) for part in parts)})"
        case Some(parts):
            return f"({' OR '.join(sql_of(part, known) for part in parts)})"
    return "true"


def literal(value: str | float | bool) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return "'" + value.replace("'", "''") + "'"
        case _:
            return repr(float(value))
