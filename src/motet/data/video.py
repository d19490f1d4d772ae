"""Clips to patches of their frames, with time, row and column.

The sound track of a clip is a modality of its own: an `AudioProcessor` reads it from the same file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from motet.data.frames import Clip, VideoConfig
from motet.data.image import encode_pictures, grid_places
from motet.data.isolate import load_video
from motet.data.media import described, digest, open_media
from motet.types import Encoder, Kind, ModalitySpec, Piece


class VideoProcessor:
    """Clips to patches of their frames, or to the token grid of a frozen picture encoder."""

    kind: Kind = "video"

    def __init__(self, name: str, config: VideoConfig, encoder: Encoder | None = None) -> None:
        self.name, self.config, self.encoder = name, config, encoder
        self.size: int = encoder.size if encoder else config.size  # type: ignore[attr-defined]
        width = encoder.width if encoder else 3 * config.patch**2
        self.spec = ModalitySpec(name, "video", "vectors", width, encoder.name if encoder else None)
        self.fingerprint = digest(self.to_dict())

    def read(self, cell: Any, root: Path) -> Clip | None:
        """The chosen frames; None for an empty cell or a file that has sound only.

        Raises:
            DataError: outside `root`, missing, or not a whole and usable clip.
        """
        path = open_media(cell, root)
        return None if path is None else load_video(path, str(cell), self.config, size=self.size)

    def pieces(self, raws: Sequence[Clip]) -> list[Piece]:
        """One Piece a clip: frames x rows x columns tokens, in order of time."""
        frames = [frame for clip in raws for frame in clip.frames]
        grids = iter(encode_pictures(frames, self.config.patch, self.encoder))
        return [self._piece(clip, [next(grids) for _ in clip.frames]) for clip in raws]

    @staticmethod
    def _piece(clip: Clip, grids: list[np.ndarray]) -> Piece:
        rows, cols, width = grids[0].shape
        row, col = grid_places(rows, cols)
        count = len(grids)
        labels = tuple(
            f"{t:.2f} s, row {r}, column {c}"
            for t in clip.times
            for r in range(1, rows + 1)
            for c in range(1, cols + 1)
        )
        return Piece(
            np.concatenate([grid.reshape(-1, width) for grid in grids]),
            np.repeat(clip.times, rows * cols),
            row=np.tile(row, count),
            col=np.tile(col, count),
            labels=labels,
        )

    def to_dict(self) -> dict[str, Any]:
        return described(self)
