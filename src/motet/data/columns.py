"""Which column is what: found by name and content, said before anything runs, overridable."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from motet.data.context import is_conversation
from motet.data.labels import TASKS, Label, Task, label_task, number_in
from motet.data.paths import PICKLED, did_you_mean, extension_of, kind_of, shorten
from motet.data.table import Table, check_ids
from motet.errors import ConfigError, DataError

KINDS = ("text", "image", "audio", "video", "features")
ROLES = ("id", "group", "split", "weight", "label", "context", "order")
CHOICES = (*KINDS, *ROLES, *TASKS, "ignore")
WORDS = {
    "text": "text title caption name sentence review comment body description transcript question answer "
    "summary content message tweet headline prompt words",
    "image": "image images picture pictures photo photos img pic",
    "audio": "audio sound speech voice recording",
    "video": "video clip movie",
}
_NAMED = {word: kind for kind, words in WORDS.items() for word in words.split()}
LOOK_AT = 1000  # cells a column is judged by, spread over the table


@dataclass(frozen=True)
class Columns:
    """The part each column plays. `modalities`: column name -> kind, in the table's order.

    `task` is "classes" or "multilabel" (then `classes` are the sorted words) or "number". `others` are
    learned beside the label. `context` names the conversation of a row and `order` its place there; the
    model sees `before` earlier and `after` later rows of it. `notes` are the lines of `describe`.
    """

    modalities: dict[str, str]
    label: str | None = None
    task: Task | None = None
    classes: tuple[str, ...] = ()
    id: str | None = None
    group: str | None = None
    split: str | None = None
    weight: str | None = None
    context: str | None = None
    order: str | None = None
    before: int = 0
    after: int = 0
    others: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()

    def describe(self) -> list[str]:
        """One line a column, such as "image <- picture (png)", for people to see before training."""
        return list(self.notes)

    @property
    def labels(self) -> tuple[Label, ...]:
        """All that is learned, the first one first; empty without a label."""
        first = (Label(self.label, self.task, self.classes),) if self.label and self.task else ()
        return (*first, *self.others)

    def target(self, cell: Any, where: str) -> int | float | np.ndarray | None:
        """A cell of the first label as the model learns it, see `Label.target`; None without a label."""
        return self.labels[0].target(cell, where) if self.labels else None

    def row_weight(self, cell: Any, where: str) -> float:
        """A cell of the weight column: how much the row counts in training, 1 where it is empty.

        Raises:
            DataError: negative, or no finite number.
        """
        if cell is None:
            return 1.0
        number = number_in(cell)
        if number is None or number < 0:
            raise DataError(
                f"{where}: the weight {shorten(cell)} in column {self.weight!r} is no number from 0 on."
            )
        return number

    def bind(self, table: Table) -> Columns:
        """The same columns for another table, which may lack some: those are missing there.

        Raises:
            DataError: none of the modalities is in the table.
        """
        modalities = {name: kind for name, kind in self.modalities.items() if name in table.columns}
        if not modalities:
            raise DataError(
                f"{table.path}: none of the columns {', '.join(self.modalities)} is here; it has "
                f"{', '.join(table.columns)}. Rename its columns as they were in training."
            )
        roles = {role: getattr(self, role) for role in ROLES}
        kept: dict[str, Any] = {role: name if name in table.columns else None for role, name in roles.items()}
        others = tuple(label for label in self.others if label.name in table.columns)
        return replace(self, modalities=modalities, others=others, **kept)


def modality_name(column: str) -> str:
    """The model's name for a column: lower case, [a-z][a-z0-9_]*."""
    name = re.sub(r"[^a-z0-9_]", "_", column.lower())
    return name if re.match(r"[a-z]", name) else f"m_{name}"


def infer_columns(
    table: Table, *, label: str | None = None, overrides: Mapping[str, str] | None = None
) -> Columns:
    """Judge every column of `table`; `label` and `overrides` (column -> one of CHOICES) come first.

    label: a column, or several with commas between them, all of which one model learns.

    A label of words gives classes, one of numbers a regression, one of lists several labels at once;
    override it with "classes", "number" or "multilabel" (which also reads "a|b|c"). Numbers and words of
    few kinds are no modality: they are noted and left out. So is a column that is only called "label" and
    has one class, say, as in a table for prediction.

    Raises:
        ConfigError: a column that is not in the table, an unknown choice, two columns with one part
            or one model name, no modality at all.
        DataError: a label without values or with one class only, pickled files, an id twice.
    """
    overrides = dict(overrides or {})
    said = _said(table, label, overrides)
    parts = dict(said)
    for name in table.columns:
        role = name.lower()
        if name not in parts and role in ROLES and role not in parts.values():
            parts[name] = role
    _check_talk(table, parts, said)
    modalities, lines = {}, []
    for name in table.columns:
        cells = table.column(name)
        part = parts.get(name)
        if part is None:
            part, why = _judge(name, cells, table)
        else:
            why = _shown(cells) if part in KINDS else ""
        if part in KINDS:
            modalities[name] = part
        if part in (*KINDS, "ignore"):
            lines.append(f"{part} <- {name}" + (f" ({why})" if why else ""))
    roles: dict[str, Any] = {}
    for role in ROLES:
        named = [name for name, part in parts.items() if part == role]
        if len(named) > 1 and role != "label":
            raise ConfigError(
                f"{table.path}: both {named[0]!r} and {named[1]!r} are to be the {role}. Choose one."
            )
        roles[role] = named[0] if named else None
        if named and role != "label":
            lines.append(f"{role} <- {named[0]}")
    _check_modalities(table, modalities)
    check_ids(table, roles["id"])
    others = [name for name, part in parts.items() if part == "label" and name != roles["label"]]
    task, classes = _learned(table, roles, said=roles["label"] in said, lines=lines, how=overrides)
    more = []
    for name in others:
        roles_of_it = {"label": name}
        its_task, its_classes = _learned(table, roles_of_it, said=True, lines=lines, how=overrides)
        assert its_task is not None  # it was said, so that what will not do is an error
        more.append(Label(name, its_task, its_classes))
    return Columns(modalities, task=task, classes=classes, others=tuple(more), notes=tuple(lines), **roles)


def _check_talk(table: Table, parts: dict[str, str], said: Mapping[str, str]) -> None:
    """Columns that are only called "context" or "order" must look like it, and one needs the other."""
    for name in [n for n, part in parts.items() if part == "context" and n not in said]:
        if not is_conversation(_filled(table.column(name))):
            del parts[name]
    for name in [n for n, part in parts.items() if part == "order" and n not in said]:
        numbers = all(number_in(cell) is not None for cell in _filled(table.column(name)))
        if "context" not in parts.values() or not numbers:
            del parts[name]


def _learned(
    table: Table, roles: dict[str, Any], *, said: bool, lines: list[str], how: Mapping[str, str]
) -> tuple[Task | None, tuple[str, ...]]:
    """Task and classes of the label, and its line. One that nobody named and that will not do is no label."""
    name = roles["label"]
    if name is None:
        return None, ()
    try:
        said_task = how.get(name, "classes" if name in table.classes else None)
        task, classes, missing = label_task(table, name, said_task)
    except DataError as error:
        if said:
            raise
        roles["label"] = None
        lines.append(f"ignore <- {name} ({error})")
        return None, ()
    values = {"number": "number", "classes": f"{len(classes)} classes"}.get(task, f"any of {len(classes)}")
    lines.append(f"label <- {name} ({values}{f', {missing} rows without' if missing else ''})")
    return task, classes


def _said(table: Table, label: str | None, overrides: dict[str, str]) -> dict[str, str]:
    """Column -> part, as the user says; the tasks mean a label. The label comes first."""
    whole = label is None or label in table.columns
    labels = [] if label is None else [label] if whole else [part.strip() for part in label.split(",")]
    said: dict[str, str] = {}
    for name in labels:
        _known(table, name, "label")
        said[name] = "label"
    for name, choice in overrides.items():
        _known(table, name, f"--set columns.{name}={choice}")
        if choice not in CHOICES:
            raise ConfigError(
                f"--set columns.{name}={choice}: not a kind of column. Choose one of {', '.join(CHOICES)}."
                + did_you_mean(choice, CHOICES)
            )
        part = "label" if choice in TASKS else choice
        if said.get(name, part) != part:
            raise ConfigError(f"{table.path}: {name!r} is given as the label and as {choice}. Choose one.")
        said[name] = part
    return said


def _known(table: Table, name: str, what: str) -> None:
    if name not in table.columns:
        raise ConfigError(
            f"{what}: {table.path} has no column {name!r}. Its columns: {', '.join(table.columns)}."
            + did_you_mean(name, table.columns)
        )


def _filled(cells: Sequence[Any]) -> list[Any]:
    """LOOK_AT of the cells that are not empty, spread over the table."""
    step = max(1, len(cells) // (2 * LOOK_AT))
    filled = [cells[i] for i in range(0, len(cells), step)] if step > 1 else list(cells)
    filled = [cell for cell in filled if cell is not None]
    if step > 1 and len(filled) < LOOK_AT:  # mostly empty
        filled = [cell for cell in cells if cell is not None]
    return filled[:: max(1, len(filled) // LOOK_AT)][:LOOK_AT]


def _judge(name: str, cells: Sequence[Any], table: Table) -> tuple[str, str]:
    """The kind of a column that nobody named a part for, or "ignore" and why."""
    seen = _filled(cells)
    if not seen:
        return "ignore", "empty"
    endings = Counter(extension_of(cell) for cell in seen)
    if 2 * sum(endings[ending] for ending in PICKLED) > len(seen):
        raise DataError(
            f"{table.path}: column {name!r} names pickled files, which can run code when opened and are "
            f"never read. Save arrays as .npy, or leave the column out: --set columns.{name}=ignore."
        )
    kind, count = Counter(kind_of(cell) for cell in seen).most_common(1)[0]
    if kind not in (None, "text") and 2 * count >= len(seen):
        return kind, _shown(cells)
    if all(isinstance(cell, list) for cell in seen):
        return "features", f"lists of {len(seen[0])}"
    if not all(isinstance(cell, str | int | float) for cell in seen):
        return "ignore", "nested values"
    return _judge_words(name, [str(cell) for cell in seen])


def _judge_words(name: str, seen: list[str]) -> tuple[str, str]:
    """The same for a column of words and numbers without the endings of files."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    words = [word for word in words if word not in ("file", "path")]
    named = _NAMED.get(words[-1]) if words else None
    prose = 2 * sum(bool(re.search(r"\S\s+\S", cell)) for cell in seen) >= len(seen)
    distinct = len(set(seen))
    if named == "text" or (prose and 2 * distinct >= min(len(seen), 20)):
        return "text", ""
    if named in ("image", "audio", "video"):
        return named, "by its name"
    if all(number_in(cell) is not None for cell in seen):
        return "ignore", f"numbers; --label {name} would learn them"
    return "ignore", f"{distinct} different words; --label {name} or --set columns.{name}=text would use them"


def _shown(cells: Sequence[Any]) -> str:
    """The endings of a column's files, most common first."""
    endings = Counter(extension_of(cell) for cell in _filled(cells) if kind_of(cell))
    return ", ".join(ending for ending, _ in endings.most_common(3))


def _check_modalities(table: Table, modalities: Mapping[str, str]) -> None:
    if not modalities:
        raise ConfigError(
            f"{table.path}: no column holds text, pictures, sound, video or features. Its columns: "
            f"{', '.join(table.columns)}. Say what one is, such as --set columns.{table.columns[0]}=text."
        )
    names: dict[str, str] = {}
    for column in modalities:
        other = names.setdefault(modality_name(column), column)
        if other != column:
            raise ConfigError(
                f"{table.path}: the columns {other!r} and {column!r} would both be called "
                f"{modality_name(column)!r} in the model. Rename one."
            )
