"""Rows that cannot be used: named, written down, left out, counted; never replaced by others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from motet.errors import DataError, StorageError

SHOWN = 20  # on stderr; the file has them all


class Quarantine:
    """Collects broken rows. `path` is a JSON Lines file, begun anew; `limit` a share of the rows."""

    def __init__(self, path: Path | None = None, limit: float = 0.01) -> None:
        self.path = path
        self.limit = limit
        self.rows: list[dict[str, Any]] = []
        self._seen: set[tuple[Any, ...]] = set()
        if path is not None:
            path.unlink(missing_ok=True)

    def add(
        self, table: str | Path, line: int, column: str, file: str | None, rule: str, message: str
    ) -> None:
        """Note one broken cell: `rule` is the kind of damage, `message` says it in words.

        Raises:
            StorageError: the file cannot be written.
        """
        entry = {
            "table": str(table),
            "line": line,
            "column": column,
            "file": file,
            "rule": rule,
            "message": message,
        }
        if tuple(entry.values()) in self._seen:
            return
        self._seen.add(tuple(entry.values()))
        self.rows.append(entry)
        if len(self.rows) <= SHOWN:
            print(f"left out: {table}, line {line}, column {column!r}: {message}", file=sys.stderr)
        elif len(self.rows) == SHOWN + 1:
            print(f"left out: more rows; all are in {self.path or 'the summary'}", file=sys.stderr)
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as out:
                    out.write(json.dumps(entry) + "\n")
            except OSError as error:
                raise StorageError(
                    f"{self.path}: cannot write the list of broken rows: {error.strerror}."
                ) from None

    @property
    def count(self) -> int:
        """Distinct rows, however many of their cells are broken."""
        return len({(row["table"], row["line"]) for row in self.rows})

    def check(self, total: int) -> None:
        """Raises DataError where more than `limit` of `total` rows are here."""
        if total and self.count > self.limit * total:
            first = self.rows[0]
            raise DataError(
                f"{first['table']}: {self.count} of {total} rows cannot be used, more than {self.limit:.1%}. "
                f"First: line {first['line']}, column {first['column']!r}: {first['message']} "
                f"`motet check` lists them; --set data.quarantine_limit=0.5 goes on without them."
            )

    def check_table(self, table: str | Path, total: int) -> None:
        """`check` for the `total` rows of one table, whatever else is here."""
        mine = {entry["line"] for entry in self.rows if entry["table"] == str(table)}
        if len(mine) > self.limit * total:
            self.check(total)
