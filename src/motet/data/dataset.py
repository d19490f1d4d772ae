"""Rows of a table as Samples: read once, broken rows named and left out, Pieces kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from motet.data.cache import FeatureCache, content_key
from motet.data.columns import Columns
from motet.data.context import Near, in_context, neighbours
from motet.data.groups import group_rows
from motet.data.half import expanded
from motet.data.labels import Label, Task
from motet.data.pairing import matched
from motet.data.processor import Processor, heard_by
from motet.data.quarantine import Quarantine
from motet.data.spoken import placed
from motet.data.store import Cells, PieceStore, is_cheap
from motet.data.table import Table
from motet.errors import DataError
from motet.types import Piece, Sample

Progress = Callable[[int, int, str], None]
CHUNK = 64  # cells decoded and encoded together
NOTHING = Piece(np.zeros((0, 1), np.float32), np.zeros(0, np.float32))  # stands in caches for "missing"


class Dataset:
    """Samples of `rows` of `table`, in that order.

    `processors`: modality name -> Processor; a modality whose column the table lacks is missing
    everywhere. "<clip>_sound" is the sound track of the video modality "<clip>", and a text with
    `spoken_in` lies on the clock of that sound or clip. Where the columns name a conversation, samples
    also hold what was said around them, see `motet.data.context`. `rows`, `fingerprint`
    and the length change once, in `prepare`, when broken rows are left out. Up to `memory_bytes` of
    Pieces stay in memory; the others come from `cache`, or are made anew.
    """

    def __init__(
        self,
        table: Table,
        columns: Columns,
        processors: Mapping[str, Processor],
        rows: Sequence[int],
        *,
        cache: FeatureCache | None = None,
        quarantine: Quarantine | None = None,
        memory_bytes: int = 2**30,
        groups: Sequence[str] | None = None,
    ) -> None:
        self.table, self.columns, self.processors = table, columns, dict(processors)
        self.rows = list(rows)
        self.quarantine = quarantine
        self.store = PieceStore(cache or FeatureCache(None), memory_bytes)
        self._groups = groups
        self._near: list[Near] | None = None
        self._fingerprint = -1, ""  # the number of rows that it is of, which only falls
        self._column_of, self._media_of = matched(self.columns.modalities, self.processors)
        self._known = Cells(self._column_of, len(table))

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, which names no broken rows."""
        return self.__dict__ | {"quarantine": None}

    @property
    def lengths(self) -> np.ndarray:
        """(n,) int64, tokens of each row; after `prepare` without reading anything."""
        out = np.zeros(len(self.rows), np.int64)
        for i, row in enumerate(self.rows):
            known = None if self._seen else self._known.tokens(row)
            out[i] = sum(map(len, self[i].pieces.values())) if known is None else known
        return out

    @property
    def targets(self) -> dict[str, Task]:
        """What `collate` should make of the label columns, under their names; {} without one."""
        return {label.name: label.task for label in self.columns.labels}

    @property
    def fingerprint(self) -> str:
        """sha256 of the table and the rows of it that are here."""
        if self._fingerprint[0] != len(self.rows):
            rows = np.asarray(self.rows, np.int64).tobytes()
            made = hashlib.sha256(self.table.fingerprint.encode() + rows).hexdigest()
            self._fingerprint = len(self.rows), made
        return self._fingerprint[1]

    @property
    def content(self) -> str:
        """sha256 of all that the rows hold, media included, and of the processors; after `prepare`."""
        digest = hashlib.sha256(self.fingerprint.encode())
        for row in self.rows:
            for modality in self._column_of:
                digest.update(str(self._known.key(modality, row)).encode())
        return digest.hexdigest()

    def __getitem__(self, i: int) -> Sample:
        return self.many([i])[0]

    def many(self, indices: Sequence[int]) -> list[Sample]:
        """self[i] of each; all pictures, then all sounds, which the processor's caches make faster. Raises
        DataError where a row is broken (after `prepare` only if its files changed since)."""
        rows = [self.rows[i] for i in indices]
        cells = [self.table.row(row) for row in rows]
        return [self._sample(*of) for of in zip(rows, cells, self._pieces(rows, cells), strict=True)]

    def _sample(self, row: int, cells: Mapping[str, Any], pieces: dict[str, Piece]) -> Sample:
        if self._seen:
            before, after = self._around(row)
            pieces = in_context(pieces, before, after)
        columns = self.columns
        found = {label.name: self._target(label, row, cells) for label in columns.labels}
        name = cells.get(columns.id) if columns.id else None
        return Sample(
            id=str(row if name is None else name),
            pieces=pieces,
            targets={label: target for label, target in found.items() if target is not None},
            group=self.groups[row],
            weight=columns.row_weight(cells.get(columns.weight), self.table.where(row))
            if columns.weight
            else 1.0,
        )

    @property
    def _seen(self) -> bool:
        """Whether rows are seen in the conversation around them."""
        return self.columns.context is not None and self.columns.before + self.columns.after > 0

    def _pieces(self, rows: Sequence[int], cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Piece]]:
        found: list[dict[str, Piece]] = [{} for _ in rows]
        for modality, column in self._column_of.items():
            for row, its, pieces in zip(rows, cells, found, strict=True):
                piece = self._piece(modality, column, row, self._cell(modality, its))
                if len(piece):
                    pieces[modality] = expanded(piece)
        return found

    def _around(self, row: int) -> tuple[list[dict[str, Piece]], list[dict[str, Piece]]]:
        """The pieces of the rows before and after, without those that are broken."""
        columns = self.columns
        if self._near is None:
            assert columns.context is not None  # `_seen`
            self._near = neighbours(self.table, columns.context, columns.order, columns.before, columns.after)
        found: tuple[list[dict[str, Piece]], list[dict[str, Piece]]] = ([], [])
        for side, rows in zip(found, self._near[row], strict=True):
            for near in rows:
                try:
                    side.extend(self._pieces([near], [self.table.row(near)]))
                except DataError:
                    continue
        return found

    @property
    def groups(self) -> Sequence[str]:
        """The group of every row of the table: those of `group_rows`, where none were given."""
        if self._groups is None:
            self._groups = group_rows(self.table, self.columns)
        return self._groups

    def prepare(self, progress: Progress | None = None) -> None:
        """Read every row once: fill memory and cache, leave broken rows out, name them.

        `progress(done, total, what)` is called with counts of rows, one modality after the other.

        Raises:
            DataError: a broken row where there is no quarantine; too many of them; no row left.
        """
        bad = set(self._bad_labels())
        for modality, column in self._column_of.items():
            bad |= self._read_all(modality, column, progress)
        bad |= {row for row in self.rows if row not in bad and self._is_empty(row)}
        self.rows = [row for row in self.rows if row not in bad]
        if self.quarantine is not None:
            self.quarantine.check_table(self.table.path, len(self.table))
        if not self.rows:
            raise DataError(
                f"{self.table.path}: no usable row is left. `motet check {self.table.path}` says why."
            )

    def _cell(self, modality: str, row: Mapping[str, Any]) -> Any:
        """What the processor of a modality reads in a row."""
        column, media = self._column_of[modality], self._media_of.get(modality)
        if self.processors[modality].kind != "text":
            return row[column]
        said = row[column] if column != media else None
        clip = None if media is None else row[media]
        return placed(said, clip, self.table.root, transcribe=heard_by(self.processors[modality]))

    def _cells(self, modality: str) -> Sequence[Any]:
        """`_cell` of every row."""
        column, media = self._column_of[modality], self._media_of.get(modality)
        cells = self.table.column(column)
        if self.processors[modality].kind != "text":
            return cells
        empty = [None] * len(cells)
        said, heard = cells if column != media else empty, self.table.column(media) if media else empty
        root, model = self.table.root, heard_by(self.processors[modality])
        return [placed(c, m, root, transcribe=model) for c, m in zip(said, heard, strict=True)]

    def _read_all(self, modality: str, column: str, progress: Progress | None) -> set[int]:
        """Make the Pieces of one modality that are not there yet, in chunks. Returns the broken rows."""
        processor, cells = self.processors[modality], self._cells(modality)
        bad: set[int] = set()
        for start in range(0, len(self.rows), CHUNK):
            raws: dict[str, Any] = {}
            keys: dict[int, str] = {}
            lengths: dict[str, int] = {}
            for row in self.rows[start : start + CHUNK]:
                try:
                    key = content_key(cells[row], self.table.root, processor)
                    self._known.learn(modality, row, key)
                    if key is None:
                        continue
                    keys[row] = key
                    if key in raws or key in lengths:
                        continue
                    known = self.store.length(key)
                    raw = processor.read(cells[row], self.table.root) if known is None else None
                except DataError as error:
                    self._leave_out(row, column, cells[row], error)
                    bad.add(row)
                    continue
                if raw is not None:
                    raws[key] = raw
                    continue
                lengths[key] = known or 0
                if known is None:
                    self.store.keep(key, NOTHING, cheap=False)
            for key, piece in zip(raws, processor.pieces(list(raws.values())) if raws else (), strict=True):
                self.store.keep(key, piece, cheap=is_cheap(processor))
                lengths[key] = len(piece)
            for row in keys.keys() - bad:
                self._known.count(modality, row, lengths[keys[row]])
            if progress:
                progress(min(start + CHUNK, len(self.rows)), len(self.rows), modality)
        return bad

    def _piece(self, modality: str, column: str, row: int, cell: Any) -> Piece:
        """From memory, the cache, or the cell itself."""
        processor, root = self.processors[modality], self.table.root
        try:
            if not self._known.knows(modality, row):
                self._known.learn(modality, row, content_key(cell, root, processor))
            key = self._known.key(modality, row)
            if key is None:
                return NOTHING
            found = self.store.get(key)
            if found is None:
                raw = processor.read(cell, root)
                found = NOTHING if raw is None else processor.pieces([raw])[0]
                self.store.keep(key, found, cheap=is_cheap(processor))
            return found
        except DataError as error:
            raise DataError(f"{self.table.where(row)}, column {column!r}: {error}", rule=error.rule) from None

    def _target(self, label: Label, row: int, cells: Mapping[str, Any]) -> int | float | np.ndarray | None:
        target = label.target(cells.get(label.name), self.table.where(row))
        if target is None and label.task == "multilabel":  # a batch without any still knows its width
            return np.full(len(label.classes), np.nan, np.float32)
        return target

    def _bad_labels(self) -> Iterator[int]:
        """Rows whose label or weight cannot be used; they are named and left out."""
        columns = self.columns
        labels = [(label.name, label.target) for label in columns.labels]
        for name, read in (*labels, (columns.weight, columns.row_weight)):
            if name is None or name not in self.table.columns:
                continue
            cells = self.table.column(name)
            for row in self.rows:
                where = self.table.where(row)
                try:
                    read(cells[row], where)
                except DataError as error:
                    why = str(error).removeprefix(f"{where}: ")
                    rule = "weight" if name == columns.weight else "label"
                    self._leave_out(row, name, None, DataError(why, rule=rule))
                    yield row

    def _is_empty(self, row: int) -> bool:
        """Whether no modality has anything in this row; such a row is named and left out."""
        if self._known.tokens(row) != 0:
            return False
        column = next(iter(self._column_of.values()), "")
        empty = DataError("every modality is empty in this row.", rule="empty row")
        self._leave_out(row, column, None, empty)
        return True

    def _leave_out(self, row: int, column: str, cell: Any, error: DataError) -> None:
        if self.quarantine is None:
            raise DataError(f"{self.table.where(row)}, column {column!r}: {error}", rule=error.rule)
        file = cell if isinstance(cell, str) and len(cell) < 1024 else None
        self.quarantine.add(self.table.path, self.table.line(row), column, file, error.rule, str(error))
