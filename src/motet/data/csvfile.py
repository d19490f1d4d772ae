"""CSV and TSV, strictly: no row is swallowed by an unclosed quote, none is padded or cut."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from motet.config import parse_json
from motet.data.paths import shorten
from motet.data.rows import Cell, TextRows, looks_like_list
from motet.errors import ConfigError, DataError

MAX_CELL = 16 * 2**20  # characters; the csv module's own limit is 128 KB
BOM = b"\xef\xbb\xbf"
csv.field_size_limit(max(csv.field_size_limit(), MAX_CELL))


class CsvRows(TextRows):
    """Rows of a CSV file. A column in `lists` holds JSON lists in every row that has a value."""

    def __init__(
        self,
        path: Path,
        names: Sequence[str],
        places: np.ndarray,
        lines: np.ndarray,
        delimiter: str,
        lists: Sequence[int],
    ) -> None:
        super().__init__(path, names, places, lines)
        self.delimiter, self.lists = delimiter, tuple(lists)

    def parse(self, text: str) -> Iterator[Sequence[Cell]]:
        for cells in _reader(io.StringIO(text, newline=""), self.delimiter):
            if not cells:
                continue
            plain: list[Cell] = [cell if cell.strip() else None for cell in cells]
            for k in self.lists:
                cell = plain[k]
                plain[k] = None if cell is None else parse_json(str(cell), where="list")
            yield plain


class _Lines:
    """The lines of a file as texts, counting bytes. `row` is the place and line of the row being read."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.file, self.place = file, start
        self.row = start, 1

    def __iter__(self) -> Iterator[str]:
        for raw in self.file:
            self.place += len(raw)
            yield raw.decode()


def read_csv(path: Path, *, tabs: bool = False) -> CsvRows:
    """Where each row starts. Every row is checked once; none is kept. Blank lines are skipped.

    The delimiter is a tab, or else a comma; a semicolon where the header has those and no comma.

    Raises:
        DataError: no header, a column twice, an unclosed quote (naming the line where it opened), a
            row with more or fewer cells than the header, bytes that are no UTF-8.
    """
    with path.open("rb") as file:
        begin = len(BOM) if file.read(len(BOM)) == BOM else 0
        file.seek(begin)
        head = file.readline(MAX_CELL)
        delimiter = "\t" if tabs else ";" if b";" in head and b"," not in head else ","
        file.seek(begin)
        lines = _Lines(file, begin)
        reader = _reader(lines, delimiter)
        try:
            return _index(path, reader, lines, delimiter)
        except csv.Error as error:
            raise _unreadable(path, file, lines, delimiter, error) from None
        except UnicodeDecodeError:
            raise DataError(
                f"{path}, line {reader.line_num + 1}: not UTF-8 text. Save the table again as UTF-8."
            ) from None


def _index(path: Path, reader: Any, source: _Lines, delimiter: str) -> CsvRows:
    cells = next((cells for cells in reader if cells), None)
    if cells is None:
        raise DataError(f"{path}: empty. The first line of a table names its columns.")
    names = [name.strip() or f"unnamed_{i}" for i, name in enumerate(cells)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise DataError(f"{path}, line 1: the column {twice!r} stands twice. Rename one.")
    width, lists, filled = len(names), set(range(len(names))), set()
    places, lines = array("q"), array("q")
    place, line = source.place, reader.line_num + 1
    source.row = place, line
    for cells in reader:
        if cells:
            if len(cells) != width:
                raise DataError(
                    f"{path}, line {line}: {len(cells)} cells where the header has {width} columns. "
                    "Put quotes around cells that hold a delimiter or a line break."
                )
            places.append(place)
            lines.append(line)
            if lists:
                found = {k for k in lists if cells[k].strip()}
                lists -= {k for k in found if not _is_list(cells[k])}
                filled |= found
        place, line = source.place, reader.line_num + 1
        source.row = place, line
    places.append(place)
    return CsvRows(path, names, np.array(places), np.array(lines), delimiter, sorted(lists & filled))


def _is_list(text: str) -> bool:
    if not looks_like_list(text):
        return False
    try:
        parse_json(text, where="list")
    except ConfigError:
        return False  # "[music]" is a text
    return True


def _reader(lines: Iterable[str], delimiter: str) -> Any:
    return csv.reader(lines, delimiter=delimiter, strict=True)


def _unreadable(path: Path, file: BinaryIO, lines: _Lines, delimiter: str, error: csv.Error) -> DataError:
    place, line = lines.row
    file.seek(place)
    text = file.read(lines.place - place).decode()
    if "new-line character" in str(error) and '"' not in text:
        return DataError(
            f"{path}, line {line}: a carriage return without a line feed. Save it with usual line ends."
        )
    opened, beginning = _open_quote(text, line, delimiter)
    return DataError(
        f"{path}, line {opened}: the quote that opens before {shorten(beginning, 40)} is not closed "
        f"properly ({error}). Close it, or write a quote inside a quoted cell twice."
    )


def _open_quote(text: str, start: int, delimiter: str) -> tuple[int, str]:
    """The line where the last quoted cell opened, in the row `text` that starts at line `start`, and
    its first characters. Scans as the csv module does, up to where that one gives up."""
    opened, beginning = start, ""
    quoted = False
    for number, line in enumerate(io.StringIO(text, newline="\n"), start):  # as the reader counts them
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
