"""An audit of a table before training: what is broken, odd, repeated, out of balance, leaking."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from motet.data.columns import Columns, infer_columns
from motet.data.groups import content_keys, group_rows
from motet.data.probe import Level, probe
from motet.data.split import given_split
from motet.data.table import Table, open_table

LIMIT = 0.01  # share of broken rows above which training stops
FEW, MOST = 5, 0.9  # rows of the smallest class; share of the largest
EXAMPLES = 5
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Finding:
    """One kind of trouble in one column. `lines` are where it is in the table, `message` the first case."""

    level: Level
    rule: str
    column: str
    lines: tuple[int, ...]
    message: str

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


def check_table(
    path: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    label: str | None = None,
    root: Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Report:
    """Read every cell of a table as training would, without training.

    `columns` overrides kinds of columns, as in `infer_columns`. `progress(done, total, what)`.

    Raises:
        DataError, ConfigError: the table cannot be opened or its columns not be understood at all.
    """
    table = open_table(path, root=root)
    found = infer_columns(table, label=label, overrides=columns)
    oddities: dict[tuple[Level, str, str], list[tuple[int, str]]] = defaultdict(list)
    broken: set[int] = set()
    for level, rule, column, row, message in _odd_cells(table, found, progress):
        oddities[level, rule, column].append((table.line(row), message))
        if level == "error":
            broken.add(row)
    findings = [
        Finding(level, rule, column, tuple(line for line, _ in cases), cases[0][1])
        for (level, rule, column), cases in oddities.items()
    ]
    parts = given_split(table, found.split) if found.split else {}
    findings += [*_repeated(table, found), *_leaks(table, found, parts)]
    labels = _labels(table, found)
    findings += _balance(labels, found)
    findings.sort(key=lambda f: (_ORDER[f.level], -len(f.lines), f.column, f.rule))
    lengths = {
        name: [len(str(cell).split()) for cell in table.column(name) if cell is not None]
        for name, kind in found.modalities.items()
        if kind == "text"
    }
    return Report(
        table=str(table.path),
        rows=len(table),
        columns=tuple(found.describe()),
        broken=len(broken),
        filled={n: sum(cell is not None for cell in table.column(n)) for n in found.modalities},
        labels=labels,
        words={name: (float(statistics.median(n)), max(n)) for name, n in lengths.items() if n},
        parts={part: len(rows) for part, rows in parts.items()},
        findings=tuple(findings),
    )


def _odd_cells(
    table: Table, columns: Columns, progress: Callable[[int, int, str], None] | None
) -> Iterator[tuple[Level, str, str, int, str]]:
    """(level, rule, column, row, message) of everything wrong with single cells and rows."""
    widths: dict[str, int] = {}
    for i in range(len(table)):
        row = table.row(i)
        if all(row[name] is None for name in columns.modalities):
            yield "error", "empty row", "", i, "every modality is missing"
        for name, kind in columns.modalities.items():
            cell = row[name]
            if cell is None:
                continue
            for level, rule, message in probe(cell, kind, table.root):
                yield level, rule, name, i, message
            if isinstance(cell, list) and cell:
                width = len(cell[0]) if isinstance(cell[0], list) else len(cell)
                if width != widths.setdefault(name, width):
                    yield "error", "shape", name, i, f"{width} numbers where the first row has {widths[name]}"
        if progress is not None:
            progress(i + 1, len(table), "checking")


def _repeated(table: Table, columns: Columns) -> Iterator[Finding]:
    for name, kind in columns.modalities.items():
        if kind == "text":
            keys = [
                [" ".join(str(cell).casefold().split())] if cell is not None else []
                for cell in table.column(name)
            ]
        else:
            keys = [[str(key)] if key >= 0 else [] for key in content_keys(table, [name])[0].tolist()]
        rows: dict[str, list[int]] = defaultdict(list)
        for i, mine in enumerate(keys):
            for key in mine:
                rows[key].append(i)
        again = sorted(i for same in rows.values() if len(same) > 1 for i in same)
        if again:
            first = min((same for same in rows.values() if len(same) > 1), key=lambda same: same[0])
            yield Finding(
                "note" if kind == "text" else "warning",
                "repeated",
                name,
                tuple(table.line(i) for i in again),
                f"{sum(len(same) - 1 for same in rows.values())} repeat another row, "
                f"such as line {table.line(first[1])} that of line {table.line(first[0])}",
            )


def _leaks(table: Table, columns: Columns, parts: Mapping[str, list[int]]) -> Iterator[Finding]:
    part_of = {i: part for part, rows in parts.items() for i in rows}
    if not part_of:
        return
    members: dict[str, list[int]] = defaultdict(list)
    for i, group in enumerate(group_rows(table, columns)):
        members[group].append(i)
    torn = [rows for rows in members.values() if len({part_of[i] for i in rows}) > 1]
    if torn:
        first = torn[0][0]
        other = next(i for i in torn[0] if part_of[i] != part_of[first])
        yield Finding(
            "warning",
            "leakage",
            columns.split or "",
            tuple(sorted(table.line(i) for rows in torn for i in rows)),
            f"rows of one group or content stand in two parts, such as line {table.line(first)} in "
            f"{part_of[first]} and line {table.line(other)} in {part_of[other]}; scores will be too good",
        )


def _labels(table: Table, columns: Columns) -> dict[str, int]:
    """Class -> rows, in the classes' order; {} without classes."""
    if columns.label is None or columns.task != "classes":
        return {}
    indices = Counter(
        columns.target(cell, table.where(i)) for i, cell in enumerate(table.column(columns.label))
    )
    return {word: indices[i] for i, word in enumerate(columns.classes)}


def _balance(labels: Mapping[str, int], columns: Columns) -> Iterator[Finding]:
    if not labels:
        return
    column = columns.label or ""
    for word, count in labels.items():
        if count < FEW:
            yield Finding("warning", "few labels", column, (), f"the class {word!r} has {count} rows")
    largest = max(labels, key=lambda word: labels[word])
    share = labels[largest] / sum(labels.values())
    if share > MOST:
        yield Finding("warning", "unbalanced", column, (), f"{share:.0%} of the labels are {largest!r}")
