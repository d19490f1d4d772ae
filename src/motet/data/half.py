"""Vectors that float16 can hold. The casts are torch's: numpy's take ten times as long."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from motet.types import Piece

LIMIT = 65504.0  # the largest float16


def half(values: np.ndarray) -> np.ndarray:
    """Rounded to what float16 can hold, as float32.

    Vectors are kept as float16 in caches; rounding them when they are made gives the same values
    with a cache, without one, and at prediction.
    """
    given = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    return given.clamp(-LIMIT, LIMIT).half().float().numpy()


def compact(piece: Piece) -> Piece:
    """The same piece, its vectors as float16 where that loses nothing."""
    if piece.values.dtype != np.float32:
        return piece
    given = torch.from_numpy(np.ascontiguousarray(piece.values))
    small = given.half()
    return replace(piece, values=small.numpy()) if torch.equal(small.float(), given) else piece


def expanded(piece: Piece) -> Piece:
    """Vectors as float32 again."""
    if piece.values.dtype != np.float16:
        return piece
    values = np.require(piece.values, requirements=["C", "W"])  # what lies in a file is read-only
    return replace(piece, values=torch.from_numpy(values).float().numpy())
