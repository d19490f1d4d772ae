"""Rounding to float16 by torch, against numpy's casts."""

import numpy as np

from motet.data.half import compact, expanded, half
from motet.types import Piece


def test_every_kind_of_float_is_rounded_as_numpy_does():
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, np.uint32)
    values = bits.view(np.float32)
    values[:4] = 65504, 65519.99, -1e30, np.inf
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = np.clip(values, -65504, 65504).astype(np.float16).astype(np.float32)
    assert np.array_equal(half(values), wanted, equal_nan=True) and half(values).dtype == np.float32


def test_only_what_loses_nothing_is_made_small():
    time = np.zeros(3, np.float32)
    exact = Piece(np.array([[1.5], [-0.25], [6e-8]], np.float32).round(4), time)
    small = compact(exact)
    assert small.values.dtype == np.float16 and np.array_equal(expanded(small).values, exact.values)
    for odd in (0.1, 1e6, np.nan):
        piece = Piece(np.array([[1], [2], [odd]], np.float32), time)
        assert compact(piece) is piece and expanded(piece) is piece
    locked = np.ones((2, 2), np.float16)
    locked.flags.writeable = False  # as in a file
    assert expanded(Piece(locked, time[:2])).values.flags.writeable
