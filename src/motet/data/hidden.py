"""What modality dropout hides, kept as something to guess."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from motet.types import ModalitySpec, Sample


def hidden_features(
    samples: Sequence[Sample], specs: Sequence[ModalitySpec], drop: np.ndarray | None
) -> dict[str, Tensor]:
    """ "hidden/<modality>" -> (B, size): the mean features of each dropped modality, NaN where none was.

    Of modalities with features of a pretrained encoder; `drop` (B, M) bool says what was dropped.
    """
    found = {}
    for m, spec in enumerate(specs):
        if spec.pretrained is None or spec.input != "vectors":
            continue
        target = np.full((len(samples), spec.size), np.nan, np.float32)
        for b in np.flatnonzero(drop[:, m]) if drop is not None else ():
            piece = samples[int(b)].pieces.get(spec.name)
            if piece is not None and len(piece):
                target[b] = piece.values.mean(0)
        found[f"hidden/{spec.name}"] = torch.from_numpy(target)
    return found
