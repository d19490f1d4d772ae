"""CSV and TSV, strictly: no row is swallowed by an unclosed quote, none is padded or cut."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from motet.data.paths import shorten
from motet.errors import DataError

MAX_CELL = 16 * 2**20  # characters; the csv module's own limit is 128 KB


def parse_csv(text: str, path: Path, *, tabs: bool = False) -> tuple[dict[str, list[str]], list[int]]:
    """Columns by name, and the line on which each row starts. Blank lines are skipped.

    The delimiter is a tab, or else a comma; a semicolon where the header has those and no comma.

    Raises:
        DataError: no header, a column twice, an unclosed quote (naming the line where it opened), a
            row with more or fewer cells than the header.
    """
    header_line = text.split("\n", 1)[0]
    delimiter = "\t" if tabs else ";" if ";" in header_line and "," not in header_line else ","
    rows = _rows(text, path, delimiter)
    if not rows:
        raise DataError(f"{path}: empty. The first line of a table names its columns.")
    names = [name.strip() or f"unnamed_{i}" for i, name in enumerate(rows[0][1])]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DataError(f"{path}, line 1: the column {twice!r} stands twice. Rename one.")
    columns: dict[str, list[str]] = {name: [] for name in names}
    for line, cells in rows[1:]:
        if len(cells) != len(names):
            raise DataError(
                f"{path}, line {line}: {len(cells)} cells where the header has {len(names)} columns. "
                "Put quotes around cells that hold a delimiter or a line break."
            )
        for name, cell in zip(names, cells, strict=True):
            columns[name].append(cell)
    return columns, [line for line, _ in rows[1:]]


def _rows(text: str, path: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    before = csv.field_size_limit(MAX_CELL)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows, start = [], 1
    try:
        for cells in reader:
            if cells:
                rows.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        opened, beginning = _open_quote(text, start, delimiter)
        raise DataError(
            f"{path}, line {opened}: the quote that opens before {shorten(beginning, 40)} is not closed "
            f"properly ({error}). Close it, or write a quote inside a quoted cell twice."
        ) from None
    finally:
        csv.field_size_limit(before)
    return rows


def _open_quote(text: str, start: int, delimiter: str) -> tuple[int, str]:
    """The line where the last quoted cell opened, in the row that starts at line `start`, and its
    first characters. Scans as the csv module does, up to where that one gives up."""
    lines = list(io.StringIO(text, newline=""))  # as the reader counts them
    opened, beginning = start, ""
    quoted = False
    for number, line in enumerate(lines[start - 1 :], start):
        at, fresh = 0, not quoted
        while at < len(line):
            char = line[at]
            if quoted and char == '"':
                if line[at + 1 : at + 2] == '"':
                    at += 1
                else:
                    quoted = False
                    if line[at + 1 : at + 2] not in ("", delimiter, "\n", "\r"):
                        return opened, beginning  # text after a closing quote: the open one was meant
            elif not quoted and char == '"' and fresh:
                quoted, opened, beginning = True, number, line[at + 1 : at + 41].rstrip("\r\n")
            fresh = char == delimiter
            at += 1
        if not quoted:
            break
    return opened, beginning
