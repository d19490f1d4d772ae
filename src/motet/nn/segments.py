"""Sums, means and softmax over the ragged segments of a packed batch.

`segment` (T,) int64 names the segment (a sample, say) of every row; rows of one segment need not
be neighbours. Nothing here waits for the device. Half precision is summed in fp32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from motet.types import Layout


def segment_sum(x: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Sum of the rows of each segment; 0 for a segment without rows. (T, ...) -> (segments, ...)"""
    wide = _wide(x)
    total = wide.new_zeros((segments, *x.shape[1:])).index_add(0, segment, wide)
    return total.to(x.dtype)


def segment_mean(x: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Mean of the rows of each segment; 0 for a segment without rows. (T, ...) -> (segments, ...)"""
    wide = _wide(x)
    count = segment_sum(wide.new_ones(len(x)), segment, segments).clamp(min=1)
    total = segment_sum(wide, segment, segments)
    return (total / count.view(-1, *[1] * (x.ndim - 1))).to(x.dtype)


def segment_max(x: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Largest row value of each segment; 0 for a segment without rows. (T, ...) -> (segments, ...)"""
    index = segment.view(-1, *[1] * (x.ndim - 1)).expand_as(x)
    return x.new_zeros((segments, *x.shape[1:])).scatter_reduce(0, index, x, "amax", include_self=False)


def segment_softmax(scores: Tensor, segment: Tensor, segments: int) -> Tensor:
    """Softmax over the rows of each segment, column by column. (T, ...) -> (T, ...)"""
    wide = _wide(scores)
    # The shift cancels in the quotient, so no gradient has to pass through it.
    shift = segment_max(wide.detach(), segment, segments).index_select(0, segment)
    grown = (wide - shift).exp()
    return (grown / segment_sum(grown, segment, segments).index_select(0, segment)).to(scores.dtype)


def by_modality(layout: Layout) -> tuple[Tensor, int]:
    """Segments of one modality of one sample, sorted as (M, B), and how many there are."""
    return layout.modality * layout.samples + layout.sample, len(layout.modalities) * layout.samples


def even_shares(x: Tensor, layout: Layout) -> Tensor:
    """Each token's share where a sample's modalities count alike, and a modality's tokens alike. (T,)

    A sample's shares add up to 1. They have the dtype of x, or fp32 where that is half precision.
    """
    key, groups = by_modality(layout)
    count = segment_sum(_wide(x.new_ones(len(x))), key, groups)[key]
    return 1 / (count * layout.present().sum(1)[layout.sample])


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
