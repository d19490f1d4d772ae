"""An exponential moving average of a model's weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """`decay` is that of late steps; early ones forget faster, so that the start does not linger.

    With `decay` 0 nothing is kept, and `swapped` leaves the model as it is.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.tensors = {k: v.detach().clone() for k, v in model.state_dict().items()} if decay > 0 else {}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (from 1)."""
        if not self.tensors:
            return
        decay = min(self.decay, (1 + step) / (10 + step))
        for key, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.tensors[key].lerp_(value, 1.0 - decay)
            else:
                self.tensors[key].copy_(value)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        for key, kept in self.tensors.items():
            kept.copy_(tensors[key])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within it, the model has the averaged weights."""
        if not self.tensors:
            yield
            return
        own = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.tensors)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
