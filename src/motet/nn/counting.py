"""Parameters and floating-point operations of a stack, by closed form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from motet.nn.attention import AttentionPlan
from motet.nn.mot import MixtureOfTransformers
from motet.nn.untied import SHARED
from motet.types import Layout


@dataclass(frozen=True)
class ParameterCount:
    """`total` parameters; `by_modality` those of one modality alone, "shared" the rest.

    `active[m]`: what one token of modality m passes through, its own and the shared.
    """

    total: int
    by_modality: dict[str, int]
    active: dict[str, int]


@dataclass(frozen=True)
class FlopCount:
    """Operations of matrix products in one forward, a multiply-add being 2.

    `by_modality[m]`: the linear maps that m's tokens pass. `attention`: scores and weighted sums
    over the pairs that the rules allow; `attention_dense`: over all pairs of the batch, as the
    dense reference computes. `total` = linear + attention.
    """

    total: int
    by_modality: dict[str, int]
    attention: int
    attention_dense: int


def owner(name: str, modalities: Sequence[str]) -> str:
    """The modality that a parameter belongs to, by its dotted name, or "shared"."""
    return next((part for part in name.split(".") if part in modalities), SHARED)


def count_parameters(model: nn.Module, modalities: Sequence[str]) -> ParameterCount:
    """Parameters of any module whose untied weights are named by modality."""
    found = dict.fromkeys((*modalities, SHARED), 0)
    for name, parameter in model.named_parameters():
        found[owner(name, modalities)] += parameter.numel()
    active = {m: found[m] + found[SHARED] for m in modalities}
    return ParameterCount(sum(found.values()), found, active)


def count_flops(
    model: MixtureOfTransformers, layout: Layout, plans: Sequence[AttentionPlan] | None = None
) -> FlopCount:
    """Operations of one forward of `model` over a batch of this layout.

    Linear maps: 2 x weights x tokens; untying changes none of it, every token passes one weight
    (Liang et al. 2024, section 2). Attention: 4 x pairs x width a layer.
    """
    plans = model.plans(layout) if plans is None else plans
    config = model.config.block
    linear = config.width * ((config.heads + 2 * config.groups) * config.head_size + config.width)
    linear += config.width * config.inner * (3 if config.mlp == "swiglu" else 2)
    per_token = 2 * linear * model.config.depth
    by_modality = {m: per_token * n for m, n in zip(layout.modalities, layout.counts, strict=True)}
    pairs = layout.tokens**2
    density = {plan: plan.density for plan in dict.fromkeys(plans)}
    attention = sum(round(4 * pairs * density[plan] * config.width) for plan in plans)
    dense = 4 * pairs * config.width * len(plans)
    return FlopCount(sum(by_modality.values()) + attention, by_modality, attention, dense)
