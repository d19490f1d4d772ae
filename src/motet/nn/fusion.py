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
from motet.nn.resample import resample
from motet.nn.segments import (
    by_modality,
    even_shares,
    segment_max,
    segment_mean,
    segment_softmax,
    segment_sum,
)
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
    """The mean over the sample's modalities of the mean of each one's tokens."""

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
        return _even_mean(x, layout)


class AttentionFusion(nn.Module):
    """The mean of the modalities' means, and what learned queries gather from all tokens, mapped to a vector.

    The map starts at zero, so that training starts from the mean and departs from it as far as it
    pays: on few labels, random queries alone learn slower and generalise worse. The logarithm of how
    many tokens the token's modality has in its sample is taken from its score: where the queries have
    no preference, every modality gets the same share, however few its tokens.

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
        scores = scores + even_shares(scores, layout).log()[:, None, None]
        share = segment_softmax(scores, layout.sample, layout.samples).to(value.dtype)  # (T, Q, H)
        # Query by query, so that no (T, Q, D) tensor is ever held.
        gathered = [
            segment_sum(part[..., None] * value, layout.sample, layout.samples) for part in share.unbind(1)
        ]
        return _even_mean(x, layout) + self.out(torch.stack(gathered, dim=1).flatten(1))


class LateFusion(nn.Module):
    """A vector per modality from its own tokens alone, then a learned weighted mean of those present.

    The vector is an MLP of the mean token: a linear map was behind where one modality decides and the
    others have nothing to tell, see docs/decisions/fusions.md. A linear head on the result is the weighted
    mean of the same head on each modality, so `weights` says how much each modality's opinion counts.

    Source: Baltrusaitis et al. 2019, section 5.1 (late fusion by weighting), arXiv:1705.09406.
    """

    def __init__(self, width: int, modalities: Sequence[str]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.head = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
                for name in modalities
            }
        )
        self.weight = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in modalities})

    def per_modality(self, x: Tensor, layout: Layout) -> Tensor:
        """(T, D) -> (B, M, D); zeros where a sample lacks the modality."""
        pooled = segment_mean(x, *by_modality(layout)).unflatten(0, (len(self.modalities), -1))  # (M, B, D)
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
    `inner` (default: half the width): the size of queries, keys and values.
    """

    def __init__(
        self,
        width: int,
        modalities: Sequence[str],
        *,
        heads: int = 4,
        order: Sequence[str] | None = None,
        inner: int | None = None,
    ) -> None:
        super().__init__()
        self.order = tuple(modalities if order is None else order)
        if sorted(self.order) != sorted(modalities):
            raise ConfigError(
                f"hierarchical fusion: order={', '.join(self.order)} must name each of "
                f"{', '.join(modalities)} once."
            )
        inner = _checked_heads(width, heads) * max(1, width // (2 * heads)) if inner is None else inner
        self.ask = nn.ModuleDict({name: _Asking(width, heads, inner) for name in self.order[1:]})
        self.reflect = _Asking(width, heads, inner)

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

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.heads = _checked_heads(inner, heads)
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, asks: Tensor, plan: AttentionPlan) -> Tensor:  # (T, D), (T,) bool -> (T, D)
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, self.heads, -1)).unbind(1)  # (T, H, K) each
        heard = plan.attend(q, k, v).flatten(1)
        return x + self.out(heard) * asks[:, None]


def _even_mean(x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (B, D)
    return segment_sum(even_shares(x, layout)[:, None] * x, layout.sample, layout.samples).to(x.dtype)


def _checked_heads(width: int, heads: int) -> int:
    if heads < 1 or width % heads:
        raise ConfigError(f"fusion: {heads} heads cannot share a width of {width}; choose a divisor of it.")
    return heads
