"""Tables in front of a model: which column is which modality, and which rows are meant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from motet.data.columns import Columns, infer_columns, modality_name
from motet.data.context import Near, neighbours
from motet.data.folder import SPLITS
from motet.data.processor import Processor
from motet.data.table import Table
from motet.errors import DataError
from motet.predictor.inputs import MEDIA, Entry


class TableEntries:
    """The rows of a table as a model sees them: by the names of its columns, else by their kinds.

    known: the columns that the model was trained with, whose ids, conversations and order are looked for.
    """

    def __init__(self, table: Table, processors: Mapping[str, Processor], known: Columns) -> None:
        self.table = table
        self.columns = columns_in(table, processors)
        self.kinds = {m: p.kind for m, p in processors.items()}
        self.id = known.id if known.id in table.columns else named_as(table, "id")
        self.near = _near(table, known)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, i: int) -> Entry:
        entry = self._alone(i)
        if self.near is None:
            return entry
        before, after = (tuple(map(self._alone, rows)) for rows in self.near[i])
        return replace(entry, around=(before, after))

    def _alone(self, i: int) -> Entry:
        row = self.table.row(i)
        cells = {m: row[column] for m, column in self.columns.items() if row[column] is not None}
        fields = {name: cell for name, cell in row.items() if cell is not None and name != self.id}
        for m, column in self.columns.items():
            cell = row[column]
            if self.kinds[m] == "features":
                fields.pop(column, None)
            elif self.kinds[m] in MEDIA and isinstance(cell, str):
                fields[column] = str(self.table.root.resolve() / cell)
        id = None if self.id is None or row[self.id] is None else str(row[self.id])
        return Entry(
            self.table.where(i), cells, self.table.root, id, fields, self.columns, self.table.line(i)
        )

    def __iter__(self) -> Iterator[Entry]:
        return (self[i] for i in range(len(self)))


def _near(table: Table, known: Columns) -> list[Near] | None:
    """For each row its neighbours, where the model sees them and the table says whose they are."""
    if known.context not in table.columns or known.context is None or not known.before + known.after:
        return None
    order = known.order if known.order in table.columns else None
    return neighbours(table, known.context, order, known.before, known.after)


def columns_in(table: Table, processors: Mapping[str, Processor]) -> dict[str, str]:
    """modality -> the column of this table that holds it."""
    named = {modality_name(column): column for column in table.columns}
    named |= {f"{name}_sound": column for name, column in named.items()}  # the sound track of a clip
    columns = {m: named[m] for m in processors if m in named}
    if len(columns) < len(processors):
        label = named_as(table, "label")  # may be empty where it is to be predicted
        found = infer_columns(table, overrides={label: "ignore"} if label else None).modalities
        for m, processor in processors.items():  # the only column of its kind that is left
            free = [c for c, kind in found.items() if kind == processor.kind and c not in columns.values()]
            if m not in columns and len(free) == 1:
                columns[m] = free[0]
        sounds = {f"{m}_sound": column for m, column in columns.items() if processors[m].kind == "video"}
        columns |= {m: column for m, column in sounds.items() if m in processors and m not in columns}
    if not columns:
        wanted = ", ".join(f"{m} ({p.kind})" for m, p in processors.items())
        raise DataError(
            f"{table.path}: has no column for this model, which knows {wanted}; the table has "
            f"{', '.join(table.columns)}. Rename a column."
        )
    return columns


def named_as(table: Table, role: str) -> str | None:
    return next((column for column in table.columns if column.lower() == role), None)


def rows_of(table: Table, columns: Columns, part: str | None) -> tuple[list[int], str]:
    """The rows of one part, and its name."""
    column = columns.split or named_as(table, "split")
    cells = ["all"] * len(table) if column is None else table.column(column)
    said = [SPLITS.get(str(cell).strip().lower(), str(cell)) for cell in cells]
    part = part or ("test" if "test" in said else "all")
    rows = [i for i, name in enumerate(said) if part in (name, "all")]
    if not rows:
        raise DataError(
            f"{table.path}: no row of the part {part!r}; there are {', '.join(sorted(set(said)))}. "
            "Choose one of them with --part, or all."
        )
    return rows, part
