"""What an audit of a table found, for people and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from motet.data.probe import Level

LIMIT = 0.01  # share of broken rows above which training stops
EXAMPLES = 5


@dataclass(frozen=True)
class Finding:
    """One kind of trouble in one column. `lines` are where it is in the table, `message` the first case.

    rows: the same places as numbers of rows, from 0 on; sets of rows that are alike follow each other.
    """

    level: Level
    rule: str
    column: str
    lines: tuple[int, ...]
    message: str
    rows: tuple[int, ...] = ()

    def text(self) -> str:
        shown = ", ".join(map(str, self.lines[:EXAMPLES])) + (", ..." if len(self.lines) > EXAMPLES else "")
        many = f"{len(self.lines)} rows (lines {shown})" if len(self.lines) > 1 else f"line {shown}"
        place = f"{self.column}: " if self.column else ""
        return (
            f"{self.level:7}  {place}{self.rule}" + (f", {many}" if self.lines else "") + f": {self.message}"
        )


@dataclass(frozen=True)
class Report:
    """What `check_table` found. `labels`: class -> rows; `words`: text column -> (median, most) words."""

    table: str
    rows: int
    columns: tuple[str, ...]
    broken: int
    filled: Mapping[str, int]
    labels: Mapping[str, int]
    words: Mapping[str, tuple[float, int]]
    parts: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether `motet fit` would train on it: at most 1 % of the rows are broken."""
        return self.broken <= LIMIT * self.rows and self.broken < self.rows

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "usable": self.usable}

    def lines(self) -> list[str]:
        """For a terminal."""
        out = [f"{self.table}: {self.rows} rows", *(f"  {line}" for line in self.columns)]
        out += [f"  {name}: in {count} of {self.rows} rows" for name, count in self.filled.items()]
        out += [
            f"  {name}: {median:g} words in the middle, at most {most}"
            for name, (median, most) in self.words.items()
        ]
        if self.labels:
            out.append("  labels: " + ", ".join(f"{word} {count}" for word, count in self.labels.items()))
        if self.parts:
            out.append("  split: " + ", ".join(f"{part} {count}" for part, count in self.parts.items()))
        out += [finding.text() for finding in self.findings]
        kinds = Counter(finding.level for finding in self.findings)
        out.append(
            f"{'usable' if self.usable else 'NOT usable'}: {self.broken} of {self.rows} rows broken "
            f"(limit {LIMIT:.0%}), {kinds['warning']} kinds of warnings"
        )
        return out
