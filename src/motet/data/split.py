"""Training, validation and test rows, such that nothing in one part was seen in another.

Everything here is a pure function of the rows' content, the columns and the seed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from motet.data.columns import Columns
from motet.data.folder import SPLITS
from motet.data.paths import resolve_media, shorten
from motet.data.table import Table
from motet.errors import ConfigError, DataError

PARTS = ("train", "val", "test")
# A text in this share of the rows, and in more than CATEGORY_ROWS, is a category ("dog"), not a caption.
CATEGORY_SHARE, CATEGORY_ROWS = 0.05, 20


def split_rows(
    table: Table,
    columns: Columns,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    retrieval: bool | None = None,
) -> dict[str, list[int]]:
    """Row numbers of "train", "val" and "test", ascending.

    A split column is honoured as it stands; where it names no validation rows, some groups of the
    training rows become them. Otherwise whole groups (see `group_rows`, also for `retrieval`) are
    dealt out, in about the given fractions of every class. With three groups or more no wanted part is empty.

    Raises:
        ConfigError: fractions that are negative or do not add up to 1.
        DataError: a cell of the split column that names no part.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or not fractions[0]:
        raise ConfigError(f"data.fractions: {fractions} must be shares of train, val, test that add up to 1.")
    groups = group_rows(table, columns, retrieval=retrieval)
    strata = _strata(table, columns, groups)
    if columns.split is None:
        part_of = deal_groups(groups, strata, seed=seed, fractions=fractions)
        return {part: [i for i, g in enumerate(groups) if part_of[g] == part] for part in PARTS}
    parts = given_split(table, columns.split)
    if not parts["val"] and fractions[1]:
        kept = fractions[0] + fractions[1]
        inner = [groups[i] for i in parts["train"]]
        part_of = deal_groups(
            inner, strata, seed=seed, fractions=(fractions[0] / kept, fractions[1] / kept, 0.0)
        )
        rows = parts["train"]
        parts["train"] = [i for i, g in zip(rows, inner, strict=True) if part_of[g] == "train"]
        parts["val"] = [i for i, g in zip(rows, inner, strict=True) if part_of[g] == "val"]
    return parts


def given_split(table: Table, column: str) -> dict[str, list[int]]:
    """Rows of each part as the split column says.

    Raises:
        DataError: a cell that names no part, or no training rows.
    """
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    for i, cell in enumerate(table.column(column)):
        part = SPLITS.get(str(cell).strip().lower())
        if part is None:
            raise DataError(
                f"{table.where(i)}: column {column!r} holds {shorten(cell)}, which is no part of the data. "
                f"Use train, val or test in every row, or --set columns.{column}=ignore for a seeded split."
            )
        parts[part].append(i)
    return parts


def group_rows(table: Table, columns: Columns, *, retrieval: bool | None = None) -> list[str]:
    """The group of every row: rows that must stay on one side of a split.

    Rows are united that share a value in the group column; the bytes of a media file or a list of
    features; a text, where rows are to be told apart by it: for `retrieval` (default: where there
    is no label), since a repeated caption is one answer to a search, or where it is all that the row
    has. Otherwise a text that repeats, such as "yes", is no duplicate; and texts of a good share of
    all rows are categories, not captions. Texts are compared without case and with single spaces.
    A group is called by its value in the group column, or else by a hash of a row's cells.
    """
    searched = columns.label is None if retrieval is None else retrieval
    texts = [name for name, kind in columns.modalities.items() if kind == "text"]
    media = content_keys(table, [name for name in columns.modalities if name not in texts])
    rows = list(zip(*([_text_key(cell) for cell in table.column(name)] for name in texts), strict=True))
    words = [[text for text in row if text] for row in rows] or [[] for _ in range(len(table))]
    count = Counter(text for row in words for text in row)
    many = max(CATEGORY_ROWS, CATEGORY_SHARE * len(table))
    named = table.column(columns.group) if columns.group else [None] * len(table)
    keys: list[list[str]] = []
    for i in range(len(table)):
        mine = list(media[i])
        if words[i] and not media[i]:
            mine.append("texts=" + json.dumps(words[i]))
        if searched:
            mine += [f"text={text}" for text in words[i] if count[text] <= many]
        if named[i] is not None:
            mine.append(f"group={named[i]}")
        keys.append(mine)
    roots = _unite(keys)
    names: dict[int, str] = {}
    for i, root in enumerate(roots):
        row = table.row(i)
        cells = [row[name] for name in columns.modalities]
        own = str(named[i]) if named[i] is not None else "~" + _digest(json.dumps(cells))
        names[root] = min(names.get(root, own), own)  # the least, so that the order of rows does not matter
    return [names[root] for root in roots]


def deal_groups(
    groups: Sequence[str],
    strata: Mapping[str, str],
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
) -> dict[str, str]:
    """Group -> part. `groups` names each row's group, `strata` the class of each group.

    Groups are shuffled by a hash of seed and name, and within each stratum dealt so that the counts
    of groups follow the fractions. A group larger than the smallest wanted part is for training.
    """
    sizes = Counter(groups)
    order = sorted(sizes, key=lambda group: (_digest(f"{seed}/{group}"), group))
    order.sort(key=lambda group: str(strata.get(group)))  # stable: shuffled within a stratum
    smallest = min(share for share in fractions if share) * len(groups)
    part_of: dict[str, str] = {}
    owed = dict.fromkeys(PARTS, 0.0)
    for group in order:
        part = "train"
        if sizes[group] <= max(1, smallest):
            for name, share in zip(PARTS, fractions, strict=True):
                owed[name] += share
            part = max(PARTS, key=owed.__getitem__)
            owed[part] -= 1
        part_of[group] = part
    wanted = [part for part, share in zip(PARTS, fractions, strict=True) if share]
    for part in wanted[: len(order)]:
        if part not in part_of.values():
            count = Counter(part_of.values())
            largest = max(PARTS, key=lambda name: count[name])
            moved = min((g for g in order if part_of[g] == largest), key=sizes.__getitem__)
            part_of[moved] = part
    return part_of


def _strata(table: Table, columns: Columns, groups: Sequence[str]) -> dict[str, str]:
    """Group -> the most common class in it, "" where it has none."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    if columns.label and columns.task == "classes":
        for group, cell in zip(groups, table.column(columns.label), strict=True):
            if cell is not None:
                seen[group][str(cell)] += 1
    return {
        group: min(seen[group], key=lambda word: (-seen[group][word], word), default="")
        for group in set(groups)
    }


def _text_key(cell: object) -> str:
    return "" if cell is None else " ".join(str(cell).casefold().split())


def content_keys(table: Table, names: Iterable[str]) -> list[list[str]]:
    """For each row, what equals the same of another row where both hold the same content.

    Files are read only where another has the same size: files of different size differ. A cell that
    names no usable file is like no other; it is quarantined when it is read.
    """
    keys: list[list[str]] = [[] for _ in range(len(table))]
    files: list[tuple[int, str]] = []
    for name in names:
        for i, cell in enumerate(table.column(name)):
            if isinstance(cell, list):
                keys[i].append(f"{name}={json.dumps(cell)}")
            elif isinstance(cell, str):
                try:
                    files.append((i, str(resolve_media(cell, table.root, table.where(i)))))
                except DataError:
                    keys[i].append(f"{name} of row {i}")
    sizes = {path: os.stat(path).st_size for _, path in files}
    count = Counter(sizes.values())
    content = {path: _file_digest(path) if count[size] > 1 else path for path, size in sizes.items()}
    for i, path in files:
        keys[i].append(content[path])
    return keys


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return path


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _unite(keys: Sequence[Sequence[str]]) -> list[int]:
    """For each row, one row of the set of rows that are linked by shared keys (union-find)."""
    parent = list(range(len(keys)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    first: dict[str, int] = {}
    for i, mine in enumerate(keys):
        for key in mine:
            parent[root(i)] = root(first.setdefault(key, i))
    return [root(i) for i in range(len(keys))]
