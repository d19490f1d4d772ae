"""From the tokens of a batch to one vector a sample: five ways, and three of other papers, one interface.

Every fusion is called as fusion(x (T, D), layout) -> (B, D) and takes every subset of modalities
in every sample; a sample without any token gives zeros. What belongs to one modality is kept
under its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.nn import rules
from motet.nn.attention import AttentionPlan, make_plan
from motet.nn.peers import CrossModalFusion, LowRankFusion, TensorFusion
from motet.nn.segments import segment_max, segment_mean, segment_softmax, segment_sum
from motet.types import Layout

FusionName = Literal["early", "late", "hierarchical", "attention", "mean", "tensor", "lowrank", "mult"]
FUSIONS: tuple[str, ...] = get_args(FusionName)


def make_fusion(
    fusion: str | nn.Module,
    width: int,
    modalities: Sequence[str],
    *,
    heads: int = 4,
    queries: int = 4,
    ticks: int = 8,
    order: Sequence[str] | None = None,
) -> nn.Module:
    """The fusion of this name, or the module itself where one is given.

    `heads` is used by "attention", "hierarchical" and "mult", `queries` by "attention", `ticks` by
    "early", `order` by "hierarchical" (default: the order of `modalities`).

    Raises:
        ConfigError: no such name; a width that `heads` do not divide; an `order` that does not
            name every modality once; no tick or query.
    """
    made: nn.Module
    match fusion:
        case nn.Module():
            made = fusion
        case "early":
            made = EarlyFusion(width, modalities, ticks=ticks)
        case "late":
            made = LateFusion(width, modalities)
        case "hierarchical":
            made = HierarchicalFusion(width, modalities, heads=heads, order=order)
        case "attention":
            made = AttentionFusion(width, heads=heads, queries=queries)
        case "mean":
            made = MeanFusion()
        case "tensor":
            made = TensorFusion(width, modalities)
        case "lowrank":
            made = LowRankFusion(width, modalities)
        case "mult":
            made = CrossModalFusion(width, modalities, heads=heads)
        case _:
            raise ConfigError(
                f"fusion: there is no {fusion!r}. Use one of {', '.join(FUSIONS)}, or pass an nn.Module."
            )
    return made


class MeanFusion(nn.Module):
    """The mean of a sample's tokens."""

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        return segment_mean(x, layout.sample, layout.samples)


class AttentionFusion(nn.Module):
    """The mean of a sample's tokens, and what learned queries gather from them, mapped to one vector.

    The map starts at zero, so that training starts from the mean and departs from it as far as it
    pays: on few labels, random queries alone learn slower and generalise worse.

    Source: Lee et al. 2019 (pooling by multi-head attention), arXiv:1810.00825.
    """

    def __init__(self, width: int, *, heads: int = 4, queries: int = 4) -> None:
        super().__init__()
        if queries < 1:
            raise ConfigError(f"attention fusion: queries={queries}; at least one must look.")
        self.heads = _checked_heads(width, heads)
        self.query = nn.Parameter(torch.randn(queries, heads, width // heads))
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(queries * width, width, bias=False)  # no bias: nothing gathered stays nothing
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        key = self.key(x).unflatten(-1, (self.heads, -1))  # (T, H, K)
        value = self.value(x).unflatten(-1, (self.heads, -1))
        scores = torch.einsum("thk,qhk->tqh", key, self.query.to(key.dtype)) * key.shape[-1] ** -0.5
        share = segment_softmax(scores, layout.sample, layout.samples)  # (T, Q, H)
        # Query by query, so that no (T, Q, D) tensor is ever held.
        gathered = [
            segment_sum(part[..., None] * value, layout.sample, layout.samples) for part in share.unbind(1)
        ]
        mean = segment_mean(x, layout.sample, layout.samples)
        return mean + self.out(torch.stack(gathered, dim=1).flatten(1))


class LateFusion(nn.Module):
    """A vector per modality from its own tokens alone, then a learned weighted mean of those present.

    A linear head on the result is the weighted mean of the same head on each modality, so
    `weights` says how much each modality's opinion counts.
    """

    def __init__(self, width: int, modalities: Sequence[str]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.head = nn.ModuleDict({name: nn.Linear(width, width) for name in modalities})
        self.weight = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in modalities})

    def per_modality(self, x: Tensor, layout: Layout) -> Tensor:
        """(T, D) -> (B, M, D); zeros where a sample lacks the modality."""
        pooled = segment_mean(x, *_by_modality(layout)).unflatten(0, (len(self.modalities), -1))  # (M, B, D)
        vectors = [self.head[name](pooled[m]) for m, name in enumerate(self.modalities)]
        return torch.stack(vectors, dim=1) * layout.present()[..., None]

    def weights(self, layout: Layout) -> Tensor:
        """(B, M): the share of each modality, softmax over the present ones; 0 for absent ones."""
        present = layout.present()
        logits = torch.stack([self.weight[name] for name in self.modalities]).expand(present.shape)
        # A finite floor: where all are absent, -inf would make NaN.
        return logits.masked_fill(~present, torch.finfo(logits.dtype).min).softmax(dim=1) * present

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        vectors = self.per_modality(x, layout)
        return torch.einsum("bm,bmd->bd", self.weights(layout).to(vectors.dtype), vectors)


class EarlyFusion(nn.Module):
    """All modalities side by side on one clock of `ticks` steps, then an MLP, then the mean of the steps.

    The ticks share out the sample's time, from its first token's to its last one's, whatever the
    modalities' lengths; see `resample`. A modality that a sample lacks is a learned vector.
    """

    def __init__(self, width: int, modalities: Sequence[str], *, ticks: int = 8) -> None:
        super().__init__()
        if ticks < 1:
            raise ConfigError(f"early fusion: ticks={ticks}; the common clock needs at least one.")
        self.modalities, self.ticks = tuple(modalities), ticks
        self.project = nn.ModuleDict({name: nn.Linear(width, width) for name in modalities})
        self.absent = nn.ParameterDict({name: nn.Parameter(torch.randn(width) * 0.02) for name in modalities})
        self.mlp = nn.Sequential(
            nn.Linear(len(modalities) * width, width), nn.GELU(), nn.Linear(width, width)
        )

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        present = layout.present()
        resampled = resample(x, layout, self.ticks)  # (M, B, ticks, D)
        beside = []
        for m, name in enumerate(self.modalities):
            projected = F.gelu(self.project[name](resampled[m]))
            beside.append(
                torch.where(present[:, m, None, None], projected, self.absent[name].to(projected.dtype))
            )
        fused = self.mlp(torch.cat(beside, dim=-1)).mean(dim=1)
        return fused * present.any(dim=1, keepdim=True)


class HierarchicalFusion(nn.Module):
    """The first modality asks the second, the result asks the third, and so on; then self-attention.

    In each sample, the first modality of `order` that is present leads: its tokens ask the others
    in turn, and their mean after a last self-attention is the result. Missing ones are skipped.
    """

    def __init__(
        self, width: int, modalities: Sequence[str], *, heads: int = 4, order: Sequence[str] | None = None
    ) -> None:
        super().__init__()
        self.order = tuple(modalities if order is None else order)
        if sorted(self.order) != sorted(modalities):
            raise ConfigError(
                f"hierarchical fusion: order={', '.join(self.order)} must name each of "
                f"{', '.join(modalities)} once."
            )
        self.ask = nn.ModuleDict({name: _Asking(width, heads) for name in self.order[1:]})
        self.reflect = _Asking(width, heads)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        rank, leader = self._leaders(layout)
        own = rules.same_sample & rules.own_modality
        for step, name in enumerate(self.order[1:], start=1):
            asked = layout.modalities.index(name)
            asks = (rank == leader) & (rank < step) & layout.present()[layout.sample, asked]
            may_ask: rules.Rule = rules.SelfWhere(~asks)  # the others need some key; their answer is not used
            for before in self.order[:step]:
                may_ask = may_ask | rules.across(before, name)
            x = self.ask[name](x, asks, make_plan(rules.same_sample & may_ask, layout))
        leads = rank == leader
        x = self.reflect(x, leads, make_plan(own, layout))
        led = segment_sum(leads.to(x.dtype), layout.sample, layout.samples).clamp(min=1)
        return segment_sum(x * leads[:, None], layout.sample, layout.samples) / led[:, None]

    def _leaders(self, layout: Layout) -> tuple[Tensor, Tensor]:
        """Each token's place in the order, and the lowest place in its sample. (T,), (T,)"""
        places = torch.tensor([self.order.index(name) for name in layout.modalities])
        rank = places.to(layout.device, non_blocking=True)[layout.modality]
        return rank, -segment_max(-rank, layout.sample, layout.samples)[layout.sample]


class _Asking(nn.Module):
    """x + attention(norm(x)) for the tokens that ask; the others stay as they are."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = _checked_heads(width, heads)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, asks: Tensor, plan: AttentionPlan) -> Tensor:  # (T, D), (T,) bool -> (T, D)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(1)  # (T, H, K) each
        heard = plan.attend(q, k, v).flatten(1)
        return x + self.out(heard) * asks[:, None]


def resample(x: Tensor, layout: Layout, ticks: int) -> Tensor:
    """Every modality of every sample at `ticks` steps of the sample's time. (T, D) -> (M, B, ticks, D)

    Between its tokens a modality runs linearly, before the first and after the last it stays, and
    tokens of one instant (the patches of a picture) count as their mean. A step is the mean of
    this curve over its share of the time, so that no token is skipped where tokens are denser than
    ticks. Absent modalities are zeros.
    """
    weight = _tick_weights(layout, ticks)
    key, groups = _by_modality(layout)
    steps = [segment_sum(weight[:, k, None].to(x.dtype) * x, key, groups) for k in range(ticks)]
    return torch.stack(steps, dim=1).unflatten(0, (len(layout.modalities), -1))


@torch.no_grad()
def _tick_weights(layout: Layout, ticks: int) -> Tensor:
    """(T, ticks): how much each token gives to each step; a modality's tokens add up to 1."""
    key, _ = _by_modality(layout)
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


def _by_modality(layout: Layout) -> tuple[Tensor, int]:
    """Segments of one modality of one sample, sorted as (M, B), and how many there are."""
    return layout.modality * layout.samples + layout.sample, len(layout.modalities) * layout.samples


def _checked_heads(width: int, heads: int) -> int:
    if heads < 1 or width % heads:
        raise ConfigError(f"fusion: {heads} heads cannot share a width of {width}; choose a divisor of it.")
    return heads
