"""Pictures to tokens that know their row and column."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motet.data.half import half
from motet.data.isolate import load_image
from motet.data.media import described, digest, open_media, square
from motet.data.picture import ImageConfig
from motet.types import Encoder, Kind, ModalitySpec, Piece


def patches(pictures: np.ndarray, patch: int) -> np.ndarray:
    """(n, S, S, 3) uint8 -> (n, (S/patch)^2, 3*patch^2) uint8, row by row."""
    n, size = pictures.shape[:2]
    grid = size // patch
    x = pictures.reshape(n, grid, patch, grid, patch, 3).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, grid * grid, 3 * patch * patch)


def encode_pictures(pictures: Sequence[np.ndarray], patch: int, encoder: Encoder | None) -> list[np.ndarray]:
    """Each (S, S, 3) uint8 picture to (rows, cols, width): patches, or what the frozen encoder says."""
    if not len(pictures):
        return []
    if encoder is None:
        grid = pictures[0].shape[0] // patch
        return [patches(one[None], patch).reshape(grid, grid, -1) for one in pictures]
    mean, std = (np.asarray(v, np.float32).reshape(3, 1, 1) for v in (encoder.mean, encoder.std))  # type: ignore[attr-defined]
    inputs = [(p.transpose(2, 0, 1).astype(np.float32) / 255 - mean) / std for p in pictures]
    return [half(one) for one in encoder(inputs)]


@functools.lru_cache(maxsize=64)
def grid_places(rows: int, cols: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each of rows*cols tokens, each (rows*cols,) float32; shared and read-only."""
    row, col = (place.astype(np.float32) for place in np.divmod(np.arange(rows * cols), cols))
    row.flags.writeable = col.flags.writeable = False
    return row, col


@functools.lru_cache(maxsize=64)
def _grid_labels(rows: int, cols: int) -> tuple[str, ...]:
    return tuple(f"row {r}, column {c}" for r in range(1, rows + 1) for c in range(1, cols + 1))


class ImageProcessor:
    """Pictures to patches, or to the token grid of a frozen encoder. Time is 0."""

    kind: Kind = "image"

    def __init__(self, name: str, config: ImageConfig, encoder: Encoder | None = None) -> None:
        self.name, self.config, self.encoder = name, config, encoder
        self.size: int = encoder.size if encoder else config.size  # type: ignore[attr-defined]
        width = encoder.width if encoder else 3 * config.patch**2
        self.spec = ModalitySpec(name, "image", "vectors", width, encoder.name if encoder else None)
        self.fingerprint = digest(self.to_dict())

    def read(self, cell: Any, root: Path) -> np.ndarray | None:
        """The picture that `cell` names, (size, size, 3) uint8; None for an empty cell.

        Raises:
            DataError: outside `root`, missing, or not a whole picture.
        """
        path = open_media(cell, root)
        if path is None:
            return None
        return square(load_image(path, str(cell), self.config, least=2 * self.size), self.size)

    def pieces(self, raws: Sequence[np.ndarray]) -> list[Piece]:
        """One Piece a picture: n = rows * cols tokens, row by row."""
        out = []
        for grid in encode_pictures(raws, self.config.patch, self.encoder):
            rows, cols, width = grid.shape
            row, col = grid_places(rows, cols)
            labels = _grid_labels(rows, cols)
            out.append(
                Piece(
                    grid.reshape(-1, width),
                    np.zeros(rows * cols, np.float32),
                    row=row,
                    col=col,
                    labels=labels,
                )
            )
        return out

    def to_dict(self) -> dict[str, Any]:
        return described(self)
