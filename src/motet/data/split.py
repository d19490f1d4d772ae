"""Training, validation and test rows, such that nothing in one part was seen in another.

Everything here is a pure function of the rows' content, the columns and the seed.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from motet.data.columns import Columns
from motet.data.folder import SPLITS
from motet.data.groups import group_rows
from motet.data.paths import shorten
from motet.data.table import Table
from motet.errors import ConfigError, DataError

PARTS = ("train", "val", "test")


def split_rows(
    table: Table,
    columns: Columns,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    retrieval: bool | None = None,
    groups: Sequence[str] | None = None,
) -> dict[str, list[int]]:
    """Row numbers of "train", "val" and "test", ascending.

    A split column is honoured as it stands; where it names no validation rows, some groups of the
    training rows become them. Otherwise whole groups (see `group_rows`, also for `retrieval`) are
    dealt out, in about the given fractions of every class. With three groups or more no wanted part is empty.
    `groups` are those of `group_rows`, where they are known already.

    Raises:
        ConfigError: fractions that are negative or do not add up to 1.
        DataError: a cell of the split column that names no part.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or not fractions[0]:
        raise ConfigError(f"data.fractions: {fractions} must be shares of train, val, test that add up to 1.")
    groups = group_rows(table, columns, retrieval=retrieval) if groups is None else groups
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
    for i, (cell,) in enumerate(table.iterate([column])):
        part = SPLITS.get(str(cell).strip().lower())
        if part is None:
            raise DataError(
                f"{table.where(i)}: column {column!r} holds {shorten(cell)}, which is no part of the data. "
                f"Use train, val or test in every row, or --set columns.{column}=ignore for a seeded split."
            )
        parts[part].append(i)
    return parts


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
    order = sorted(sizes, key=lambda group: (strata.get(group, ""), _digest(f"{seed}/{group}"), group))
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
    seen: dict[str, dict[str, int]] = {}
    if columns.label and columns.task == "classes":
        for group, (cell,) in zip(groups, table.iterate([columns.label]), strict=True):
            if cell is not None:
                count, word = seen.setdefault(group, {}), str(cell)
                count[word] = count.get(word, 0) + 1
    return {
        group: next(iter(count)) if len(count) == 1 else min(count, key=lambda w: (-count[w], w))
        for group, count in seen.items()
    }


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
