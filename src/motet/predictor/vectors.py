"""Vectors made smaller: fewer dimensions, 8-bit integers, single bits; and cosines between any of them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from motet.errors import ConfigError

Precision = Literal["fp32", "int8", "binary"]


def smaller(vectors: np.ndarray, *, dims: int | None = None, precision: Precision = "fp32") -> np.ndarray:
    """Unit vectors (..., E) in another form.

    dims: only the first so many of E, again of unit length; good where the model was trained for it
    (Matryoshka). precision: "fp32"; "int8", each vector scaled so that its largest entry is 127;
    "binary", the signs packed into bytes (..., ceil(dims / 8)) uint8.

    Raises:
        ConfigError: dims out of range, an unknown precision.

    Source: Kusupati et al. 2022, arXiv:2205.13147, for the first dimensions.
    """
    if dims is not None:
        if not 1 <= dims <= vectors.shape[-1]:
            raise ConfigError(f"dims={dims}: the vectors have {vectors.shape[-1]} dimensions.")
        vectors = vectors[..., :dims]
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    match precision:
        case "fp32":
            return vectors.astype(np.float32)
        case "int8":
            largest = np.maximum(np.abs(vectors).max(axis=-1, keepdims=True), 1e-12)
            return np.rint(vectors / largest * 127).astype(np.int8)
        case "binary":
            return np.packbits(vectors > 0, axis=-1)
        case _:
            raise ConfigError(f"precision {precision!r}: unknown. There are fp32, int8 and binary.")


def similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines (N, M) of vectors (N, E) and (M, E) of one precision; of binary ones an estimate.

    Of two packed sign vectors it is cos(pi * h), with h the share of bits that differ: what that
    share says of the angle (Charikar 2002, doi:10.1145/509907.509965).
    """
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    if a.dtype != b.dtype or a.shape[1] != b.shape[1]:
        raise ConfigError(
            f"similarity: {a.shape[1]} x {a.dtype} and {b.shape[1]} x {b.dtype} cannot be compared. "
            "Encode both with the same dims and precision."
        )
    if a.dtype == np.uint8:
        differ = np.bitwise_count(a[:, None] ^ b[None]).sum(axis=-1, dtype=np.int64)
        return np.cos(np.pi * differ / (8 * a.shape[1])).astype(np.float32)
    if a.dtype == np.int8:
        a, b = a.astype(np.float32), b.astype(np.float32)
        a /= np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
        b /= np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-12)
    return a @ b.T
