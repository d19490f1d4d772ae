"""All modalities of a sample on one clock, whatever their lengths and rates."""

from __future__ import annotations

import torch
from torch import Tensor

from motet.nn.segments import by_modality, segment_max, segment_sum
from motet.types import Layout


def resample(x: Tensor, layout: Layout, ticks: int) -> Tensor:
    """Every modality of every sample at `ticks` steps of the sample's time. (T, D) -> (M, B, ticks, D)

    Between its tokens a modality runs linearly, before the first and after the last it stays, and
    tokens of one instant (the patches of a picture) count as their mean. A step is the mean of
    this curve over its share of the time, so that no token is skipped where tokens are denser than
    ticks. Absent modalities are zeros.
    """
    weight = _tick_weights(layout, ticks)
    key, groups = by_modality(layout)
    steps = [segment_sum(weight[:, k, None].to(x.dtype) * x, key, groups) for k in range(ticks)]
    return torch.stack(steps, dim=1).unflatten(0, (len(layout.modalities), -1))


@torch.no_grad()
def _tick_weights(layout: Layout, ticks: int) -> Tensor:
    """(T, ticks): how much each token gives to each step; a modality's tokens add up to 1."""
    key, _ = by_modality(layout)
    time, total = layout.time.double(), layout.tokens
    order = torch.argsort(time, stable=True)
    order = order[torch.argsort(key[order], stable=True)]
    t, k = time[order], key[order]
    new = torch.ones_like(k, dtype=torch.bool)
    new[1:] = (k[1:] != k[:-1]) | (t[1:] != t[:-1])
    knot = new.long().cumsum(0) - 1  # tokens of one modality, sample and instant
    # One place more at both ends, which belongs to no key, so that every knot has neighbours.
    knot_time, knot_key = t.new_zeros(total + 2), k.new_full((total + 2,), -1)
    knot_time[knot + 1], knot_key[knot + 1] = t, k
    to_left = _reach(t, k, knot_time[knot], knot_key[knot])
    to_right = _reach(t, k, knot_time[knot + 2], knot_key[knot + 2])

    start = -segment_max(-time, layout.sample, layout.samples)
    length = segment_max(time, layout.sample, layout.samples) - start
    length = torch.where(length > 0, length, torch.ones_like(length))  # a picture alone: any length does
    edges = torch.linspace(0, 1, ticks + 1, dtype=t.dtype, device=t.device)
    sample = layout.sample[order]
    distance = start[sample, None] + length[sample, None] * edges - t[:, None]  # (T, ticks + 1)
    area = _hat_area(distance, to_left[:, None], to_right[:, None]).diff(dim=1) * ticks / length[sample, None]
    same = segment_sum(torch.ones_like(t), knot, total)[knot]
    weight = torch.empty_like(area)
    weight[order] = area / same[:, None]
    return weight


def _reach(t: Tensor, key: Tensor, other_t: Tensor, other_key: Tensor) -> Tensor:
    """Seconds to the neighbouring knot; infinite where that belongs to others."""
    return torch.where(other_key == key, (other_t - t).abs(), torch.inf)


def _hat_area(distance: Tensor, to_left: Tensor, to_right: Tensor) -> Tensor:
    """Integral, from a token's time to `distance` seconds after it, of its weight in linear interpolation.

    The weight falls from 1 at the token to 0 at its neighbours, and stays 1 where it has none.
    """
    reach = torch.where(distance < 0, to_left, to_right)
    share = (distance.abs() / reach).clamp(max=1)
    within = reach * (share - share.square() / 2) * distance.sign()
    return torch.where(reach.isinf(), distance, within)
