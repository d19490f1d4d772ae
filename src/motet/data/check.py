"""An audit of a table before training: what is broken, odd, repeated, nearly so, out of balance, leaking."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from motet.data.columns import Columns, infer_columns
from motet.data.findings import Finding, Report
from motet.data.groups import content_keys, group_rows
from motet.data.labels import class_word, label_words
from motet.data.near import MEDIA, THREADS, merged, near_pairs
from motet.data.probe import Level, Look, probe
from motet.data.split import given_split
from motet.data.table import Table, open_table

FEW, MOST = 5, 0.9  # rows of the smallest class; share of the largest
CHUNK = 64  # rows looked at together
NEAR_ROWS = 100_000  # rows whose media are compared for being nearly the same: their prints are in memory
TIMED = ("audio", "video")  # beside which words may stand
_ORDER = {"error": 0, "warning": 1, "note": 2}


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
    return check_opened(table, infer_columns(table, label=label, overrides=columns), progress=progress)


def check_opened(
    table: Table, found: Columns, *, progress: Callable[[int, int, str], None] | None = None
) -> Report:
    """The same for an open table whose columns are understood."""
    oddities: dict[tuple[Level, str, str], list[tuple[int, str]]] = defaultdict(list)
    broken: set[int] = set()
    prints: dict[str, list[np.ndarray | None]] = {
        name: [] for name, kind in found.modalities.items() if kind in MEDIA
    }
    for level, rule, column, row, message in _odd_cells(table, found, prints, progress):
        oddities[level, rule, column].append((row, message))
        if level == "error":
            broken.add(row)
    findings = [
        _finding(table, level, rule, column, [row for row, _ in cases], cases[0][1])
        for (level, rule, column), cases in oddities.items()
    ]
    parts = given_split(table, found.split) if found.split else {}
    near = {name: near_pairs(found.modalities[name], prints[name]) for name in prints}
    findings += [*_repeated(table, found), *_near(table, near), *_leaks(table, found, parts, near)]
    if prints and len(table) > NEAR_ROWS:
        why = f"near-duplicates were looked for in the first {NEAR_ROWS} of {len(table)} rows"
        findings.append(Finding("note", "not all compared", "", (), why))
    labels = _labels(table, found)
    findings += _balance(labels, found)
    findings.sort(key=lambda f: (_ORDER[f.level], -len(f.lines), f.column, f.rule))
    texts = [name for name, kind in found.modalities.items() if kind == "text"]
    lengths = {
        name: [len(str(cell).split()) for (cell,) in table.iterate([name]) if cell is not None]
        for name in texts
    }
    return Report(
        table=str(table.path),
        rows=len(table),
        columns=tuple(found.describe()),
        broken=len(broken),
        filled={n: sum(cell is not None for (cell,) in table.iterate([n])) for n in found.modalities},
        labels=labels,
        words={name: (float(statistics.median(n)), max(n)) for name, n in lengths.items() if n},
        parts={part: len(rows) for part, rows in parts.items()},
        findings=tuple(findings),
    )


def _finding(
    table: Table, level: Level, rule: str, column: str, rows: Sequence[int], message: str
) -> Finding:
    return Finding(level, rule, column, tuple(table.line(i) for i in sorted(set(rows))), message, tuple(rows))


def _odd_cells(
    table: Table,
    columns: Columns,
    prints: dict[str, list[np.ndarray | None]],
    progress: Callable[[int, int, str], None] | None,
) -> Iterator[tuple[Level, str, str, int, str]]:
    """(level, rule, column, row, message) of everything wrong with single cells and rows.

    Media are decoded by two threads. `prints` is filled on the way.
    """
    names, kinds = tuple(columns.modalities), tuple(columns.modalities.values())
    widths: dict[str, int] = {}
    nothing = Look((), None)

    def look(cells: Sequence[Any]) -> list[Look]:
        said = any(cell is not None for cell, kind in zip(cells, kinds, strict=True) if kind == "text")
        return [
            nothing if cell is None else probe(cell, kind, table.root, words=kind in TIMED and not said)
            for cell, kind in zip(cells, kinds, strict=True)
        ]

    with ThreadPoolExecutor(THREADS) as pool:
        for start, chunk in _chunks(table.iterate(names)):
            for i, (cells, looks) in enumerate(zip(chunk, pool.map(look, chunk), strict=True), start):
                if all(cell is None for cell in cells):
                    yield "error", "empty row", "", i, "every modality is missing"
                for name, cell, (found, print) in zip(names, cells, looks, strict=True):
                    for level, rule, message in found:
                        yield level, rule, name, i, message
                    if name in prints and i < NEAR_ROWS:
                        prints[name].append(print)
                    if isinstance(cell, list) and cell:
                        width = len(cell[0]) if isinstance(cell[0], list) else len(cell)
                        if width != widths.setdefault(name, width):
                            why = f"{width} numbers where the first row has {widths[name]}"
                            yield "error", "shape", name, i, why
            if progress is not None:
                progress(start + len(chunk), len(table), "checking")


def _chunks(rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    start = 0
    while chunk := list(islice(rows, CHUNK)):
        yield start, chunk
        start += len(chunk)


def _repeated(table: Table, columns: Columns) -> Iterator[Finding]:
    for name, kind in columns.modalities.items():
        if kind == "text":
            known: dict[str, int] = {}
            keys = np.array(
                [
                    -1
                    if cell is None
                    else known.setdefault(" ".join(str(cell).casefold().split()), len(known))
                    for (cell,) in table.iterate([name])
                ]
            )
        else:
            keys = content_keys(table, [name])[0]
        rows: dict[int, list[int]] = defaultdict(list)
        often = np.bincount(keys[keys >= 0], minlength=1) > 1
        for i in np.flatnonzero((keys >= 0) & often[keys]).tolist():
            rows[int(keys[i])].append(i)
        if rows:
            alike = sorted(rows.values())
            yield _finding(
                table,
                "note" if kind == "text" else "warning",
                "repeated",
                name,
                [i for same in alike for i in same],
                f"{sum(len(same) - 1 for same in alike)} repeat another row, "
                f"such as line {table.line(alike[0][1])} that of line {table.line(alike[0][0])}",
            )


def _near(table: Table, near: Mapping[str, Sequence[tuple[int, int]]]) -> Iterator[Finding]:
    """Media that are nearly the same, less those that are equal byte for byte."""
    for name, pairs in near.items():
        if not pairs:
            continue
        keys = content_keys(table, [name])[0]
        alike = merged([(i, j) for i, j in pairs if keys[i] != keys[j]])
        if alike:
            yield _finding(
                table,
                "note",
                "near-duplicate",
                name,
                [i for same in alike for i in same],
                f"{sum(len(same) - 1 for same in alike)} are nearly the same as another, such as line "
                f"{table.line(alike[0][1])} as line {table.line(alike[0][0])}; "
                "--set data.near_duplicates=true keeps them in one part of a split",
            )


def _leaks(
    table: Table,
    columns: Columns,
    parts: Mapping[str, list[int]],
    near: Mapping[str, Sequence[tuple[int, int]]],
) -> Iterator[Finding]:
    """Sets of rows that the given split tears apart: equal ones, and nearly equal ones besides."""
    part_of = {i: part for part, rows in parts.items() for i in rows}
    if not part_of:
        return
    members: dict[str, list[int]] = defaultdict(list)
    groups = group_rows(table, columns)
    for i, group in enumerate(groups):
        members[group].append(i)
    apart = merged([(i, j) for pairs in near.values() for i, j in pairs if groups[i] != groups[j]])
    kinds = (
        ("leakage", "rows of one group or content stand", list(members.values())),
        ("near leakage", "rows with nearly the same picture, sound or clip stand", apart),
    )
    for rule, what, sets in kinds:
        torn = [rows for rows in sets if len({part_of[i] for i in rows}) > 1]
        if torn:
            first = torn[0][0]
            other = next(i for i in torn[0] if part_of[i] != part_of[first])
            yield _finding(
                table,
                "warning",
                rule,
                columns.split or "",
                [i for rows in torn for i in rows],
                f"{what} in two parts, such as line {table.line(first)} in {part_of[first]} and line "
                f"{table.line(other)} in {part_of[other]}; scores will be too good",
            )


def _labels(table: Table, columns: Columns) -> dict[str, int]:
    """Class -> rows, in the classes' order; {} without classes."""
    if columns.label is None or columns.task not in ("classes", "multilabel"):
        return {}
    counts = np.zeros(len(columns.classes), np.int64)
    index = {word: k for k, word in enumerate(columns.classes)}
    for (cell,) in table.iterate([columns.label]):
        if cell is not None:
            words = label_words(cell) if columns.task == "multilabel" else [class_word(cell)]
            counts[[index[word] for word in dict.fromkeys(words)]] += 1
    return dict(zip(columns.classes, counts.tolist(), strict=True))


def _balance(labels: Mapping[str, int], columns: Columns) -> Iterator[Finding]:
    if not labels:
        return
    column = columns.label or ""
    for word, count in labels.items():
        if count < FEW:
            yield Finding("warning", "few labels", column, (), f"the class {word!r} has {count} rows")
    largest = max(labels, key=lambda word: labels[word])
    share = labels[largest] / sum(labels.values())
    if share > MOST and columns.task == "classes":
        yield Finding("warning", "unbalanced", column, (), f"{share:.0%} of the labels are {largest!r}")
