"""Utterances in their conversation: what was said before and after them, as modalities of their own.

A neighbour's tokens are made as ever, and stand on the utterance's clock: below 0 for what came earlier,
behind its end for what comes later. So "text" gets a "text_before", which has its own weights, may be
missing, and takes part in every attention rule, fusion, subset and explanation as any modality does.
Compare the contextual utterances of Poria et al. 2017 (bc-LSTM), doi:10.18653/v1/P17-1081.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.data.labels import number_in
from motet.data.table import Table
from motet.errors import ConfigError
from motet.types import ModalitySpec, Piece

if TYPE_CHECKING:
    from motet.data.columns import Columns

SIDES = ("before", "after")
GAP = 0.5  # seconds from the end of an utterance to the next one's start

Near = tuple[tuple[int, ...], tuple[int, ...]]


def context_specs(specs: Sequence[ModalitySpec], before: int, after: int) -> tuple[ModalitySpec, ...]:
    """The modalities with those of their context: "text", then "text_before" and "text_after".

    Raises:
        ConfigError: a modality already has such a name; a negative number of neighbours.
    """
    if before < 0 or after < 0:
        raise ConfigError(f"context: before={before} and after={after} must be at least 0.")
    sides = [side for side, count in zip(SIDES, (before, after), strict=True) if count]
    made = [replace(spec, name=f"{spec.name}_{side}") for side in sides for spec in specs]
    taken = {spec.name for spec in specs} & {spec.name for spec in made}
    if taken:
        raise ConfigError(
            f"context: there is a column for {', '.join(sorted(taken))} already, which is what the context "
            "would be called. Rename it."
        )
    return (*specs, *made)


def context_names(names: Sequence[str], columns: Columns) -> set[str]:
    """Those of a model's modalities that are the context of another."""
    if not columns.context:
        return set()
    sides = [side for side in SIDES if getattr(columns, side)]
    return {name for name in names if any(name == f"{own}_{side}" for own in names for side in sides)}


def is_conversation(cells: Sequence[Any]) -> bool:
    """Whether a column of this name holds the conversation of each row: single words that repeat."""
    given = [str(cell).strip() for cell in cells if cell is not None]
    return len(set(given)) < len(given) and not any(len(cell.split()) > 4 for cell in given)


def neighbours(table: Table, context: str, order: str | None, before: int, after: int) -> list[Near]:
    """For every row the rows of its conversation before it, and those after it, in their order.

    The order is that of the numbers in the column `order`, else of the table; rows without a
    conversation have no neighbours.
    """
    talks: dict[str, list[tuple[float, int]]] = {}
    places = table.column(order) if order else None
    for row, cell in enumerate(table.column(context)):
        if cell is not None:
            number = None if places is None else number_in(places[row])
            talks.setdefault(str(cell), []).append((float(row) if number is None else number, row))
    near: list[Near] = [((), ())] * len(table)
    for talk in talks.values():
        rows = [row for _, row in sorted(talk)]
        for i, row in enumerate(rows):
            near[row] = tuple(rows[max(0, i - before) : i]), tuple(rows[i + 1 : i + 1 + after])
    return near


def in_context(
    own: Mapping[str, Piece], before: Sequence[Mapping[str, Piece]], after: Sequence[Mapping[str, Piece]]
) -> dict[str, Piece]:
    """modality -> Piece of an utterance with its context: `own`, and "<modality>_before" and "_after".

    before, after: the neighbours' pieces, in their order.
    """
    earlier = np.cumsum([_seconds(pieces) + GAP for pieces in reversed(before)])[::-1]
    later = np.cumsum([_seconds(own) + GAP, *(_seconds(pieces) + GAP for pieces in after)])
    sides = (zip(before, -earlier, strict=True), zip(after, later[: len(after)], strict=True))
    made: dict[str, list[Piece]] = {}
    for side, placed in zip(SIDES, sides, strict=True):
        for pieces, start in placed:
            for name, piece in pieces.items():
                moved = replace(piece, time=piece.time + np.float32(start))
                made.setdefault(f"{name}_{side}", []).append(moved)
    return {**own, **{name: _joined(pieces) for name, pieces in made.items()}}


def _seconds(pieces: Mapping[str, Piece]) -> float:
    return max((float(piece.time.max()) for piece in pieces.values() if len(piece)), default=0.0)


def _joined(pieces: Sequence[Piece]) -> Piece:
    def all_of(name: str) -> Any:
        parts = [getattr(piece, name) for piece in pieces]
        return None if any(part is None for part in parts) else np.concatenate(parts)

    labels = None
    if all(piece.labels is not None for piece in pieces):
        labels = tuple(label for piece in pieces for label in piece.labels or ())
    return Piece(
        all_of("values"),
        all_of("time"),
        row=all_of("row"),
        col=all_of("col"),
        labels=labels,
        estimated=any(piece.estimated for piece in pieces),
    )
