"""Who may look at whom: the rule of every layer as a small picture, with its density."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from motet.explain.capture import Capture
from motet.explain.views import View


@dataclasses.dataclass(frozen=True, eq=False)
class Pattern(View):
    """Which tokens may look at which in some layers, packed by modality.

    density: the share of all pairs; share: (cells, cells), the same for runs of neighbouring tokens.
    """

    layers: tuple[int, ...]
    density: float
    share: np.ndarray


def patterns(captured: Capture, *, most: int = 48) -> tuple[Pattern, ...]:
    """Who may look at whom, layer by layer; layers of one pattern come once."""
    total = captured.layout.tokens
    cells = min(most, total)
    place = torch.arange(total) * cells // max(1, total)
    spread = torch.nn.functional.one_hot(place, cells).float()
    size = spread.sum(0)
    found: dict[bytes, Pattern] = {}
    step = max(1, 2**22 // max(1, total))
    for layer in range(len(captured.layers)):
        sums = torch.zeros(cells, cells)
        for rows in torch.arange(total).split(step):
            sums.index_add_(0, place[rows], captured.mask(layer, rows).float().cpu() @ spread)
        density = float(sums.sum()) / total**2
        share = (sums / size[:, None] / size[None, :]).numpy()
        key = share.tobytes()
        before = found[key].layers if key in found else ()
        found[key] = Pattern((*before, layer), density, share)
    return tuple(found.values())
