"""Feature columns: a vector, a list of vectors, or an `.npy` file, as tokens on a clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from motet.data.blob import Blob
from motet.data.media import broken, described, digest, open_media
from motet.errors import ConfigError, DataError
from motet.types import Kind, ModalitySpec, Piece


@dataclass(frozen=True)
class FeaturesConfig:
    """Token i has time i * `step` seconds. More than `max_tokens` are cut off."""

    step: float = 0.1
    max_tokens: int = 4096
    normalise: bool = True


def read_features(cell: Any, root: Path) -> np.ndarray | None:
    """(n, d) float32; None for an empty cell or an empty list.

    Raises:
        DataError: not numbers, ragged, NaN or infinite, or a file that is no plain `.npy`.
    """
    if cell is None or (isinstance(cell, str | list) and not cell):
        return None
    if isinstance(cell, list | np.ndarray):
        name = str(cell)[:40]
        try:
            with np.errstate(over="ignore"):
                values = np.asarray(cell, np.float32)
        except (ValueError, TypeError, OverflowError):
            raise broken(name, "not numbers", "expected a list of numbers, or lists of one length") from None
    else:
        name, path = str(cell), open_media(cell, root)
        assert path is not None
        values = _read_npy(path, name)
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or not values.shape[1]:
        raise broken(name, "shape", f"expected (tokens, numbers), found the shape {values.shape}")
    if not np.isfinite(values).all():
        raise broken(name, "NaN", "numbers that are NaN, infinite or beyond float32")
    return values if len(values) else None


def _read_npy(path: Path | Blob, name: str) -> np.ndarray:
    try:
        with path.open("rb") as file:
            head = file.read(6)
        if head != b"\x93NUMPY":
            raise broken(name, "not npy", "not an .npy file; pickles and archives are not read")
        values = _npy_in_memory(path) if isinstance(path, Blob) else _npy_mapped(path)
    except (ValueError, OSError, EOFError, SyntaxError, OverflowError) as error:
        raise broken(name, "damaged", f"the .npy file cannot be read: {str(error).splitlines()[0]}") from None
    if values.dtype.kind not in "fiu":
        raise broken(name, "not numbers", f"expected real numbers, found {values.dtype}")
    with np.errstate(over="ignore"):
        return np.array(values, np.float32)


def _npy_mapped(path: Path) -> np.ndarray:
    # mapped, so that a header that lies about its shape allocates nothing
    return cast(np.ndarray, np.load(path, mmap_mode="r", allow_pickle=False))


def _npy_in_memory(blob: Blob) -> np.ndarray:
    """The array over the blob's own bytes, for the same reason."""
    file = blob.open()
    major, _ = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(file)
    if dtype.hasobject:
        raise ValueError("Object arrays are not read")
    values = np.frombuffer(file.getbuffer(), dtype, math.prod(shape), file.tell())
    return values.reshape(shape, order="F" if fortran else "C")


class FeaturesProcessor:
    """Rows of d numbers to tokens, normalised by dimension. mean, std: (d,) over the training part."""

    kind: Kind = "features"
    encoder = None

    def __init__(
        self, name: str, config: FeaturesConfig, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        if not mean or len(mean) != len(std) or min(std) <= 0:
            raise ConfigError(f"features {name!r}: mean and std must be of one length, std above 0.")
        self.name, self.config = name, config
        self.mean, self.std = np.asarray(mean, np.float64), np.asarray(std, np.float64)
        self.spec = ModalitySpec(name, "features", "vectors", len(mean))
        self.fingerprint = digest(self.to_dict())

    def read(self, cell: Any, root: Path) -> np.ndarray | None:
        """(n, d) float32; None for an empty cell.

        Raises:
            DataError: see `read_features`; or another number of dimensions than in training.
        """
        values = read_features(cell, root)
        if values is not None and values.shape[1] != self.spec.size:
            raise broken(
                str(cell)[:40],
                "shape",
                f"{values.shape[1]} numbers a token, where training had {self.spec.size}",
            )
        return None if values is None else values[: self.config.max_tokens]

    def pieces(self, raws: Sequence[np.ndarray]) -> list[Piece]:
        out = []
        for raw in raws:
            values = ((raw - self.mean) / self.std).astype(np.float32)
            time = np.arange(len(values), dtype=np.float32) * np.float32(self.config.step)
            out.append(Piece(values, time, labels=tuple(f"{t:.2f} s" for t in time)))
        return out

    def to_dict(self) -> dict[str, Any]:
        return described(self, mean=self.mean.tolist(), std=self.std.tolist())


def fit_features(values: Iterable[np.ndarray], config: FeaturesConfig, name: str) -> dict[str, list[float]]:
    """Mean and standard deviation of each dimension; 0 and 1 where not asked to normalise.

    Raises:
        DataError: no usable cell, or cells of different width.
    """
    count, total, square = 0, np.zeros(1), np.zeros(1)
    for one in values:
        if count and one.shape[1] != total.shape[0]:
            raise DataError(
                f"column {name!r}: vectors of {total.shape[0]} and of {one.shape[1]} numbers. "
                "A column holds vectors of one width."
            )
        wide = one.astype(np.float64)
        count, total, square = count + len(one), total + wide.sum(0), square + (wide**2).sum(0)
    if not count:
        raise DataError(f"column {name!r}: not one usable list of numbers or .npy file in the training part.")
    mean = total / count
    std = np.sqrt(np.maximum(square / count - mean**2, 1e-12))
    std[std < 1e-5] = 1.0  # a constant stays 0
    if not config.normalise:
        mean, std = np.zeros_like(mean), np.ones_like(std)
    return {"mean": mean.tolist(), "std": std.tolist()}
