"""Tokens by the second at which they are: what lies within a window of a longer clip."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from motet.types import Piece


def cut_piece(piece: Piece, start: float, end: float) -> Piece | None:
    """The tokens with start <= time < end, in seconds, their times counted from `start`; None for none.

    Right for every modality with a clock, features included: each token keeps what was made of it in
    the whole clip. A picture (all times 0) has no place in time and is not for this.
    """
    inside = (piece.time >= start) & (piece.time < end)
    if not inside.any():
        return None
    return replace(
        piece,
        values=piece.values[inside],
        time=piece.time[inside] - np.float32(start),
        row=None if piece.row is None else piece.row[inside],
        col=None if piece.col is None else piece.col[inside],
        labels=None
        if piece.labels is None
        else tuple(label for label, kept in zip(piece.labels, inside, strict=True) if kept),
    )
