"""The Mixture-of-Transformers: a stack of blocks over one packed batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from motet.errors import ConfigError
from motet.nn.attention import AttentionPlan, Backend, make_plan
from motet.nn.block import Block, BlockConfig, Component
from motet.nn.positions import Rotary, RotaryConfig
from motet.nn.rules import Rule, causal, own_modality, same_sample
from motet.nn.untied import SHARED, UntiedNorm
from motet.types import Layout

Attend = Literal["own", "global"]


@dataclass(frozen=True)
class MoTConfig:
    """A stack of `depth` blocks.

    attend: one entry a layer, "own" (a modality encoder) or "global" (all modalities listen to
    each other); a shorter tuple repeats its last entry. untie_layers: how many of the last layers
    are untied, None for all; the others are dense. rotary: None for no rotation (give positions
    with the embedding then). recompute: trade time for memory by activation checkpointing.
    """

    block: BlockConfig = field(default_factory=BlockConfig)
    depth: int = 4
    attend: tuple[Attend, ...] = ("global",)
    untie_layers: int | None = None
    rotary: RotaryConfig | None = field(default_factory=RotaryConfig)
    causal: bool = False
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.depth < 1 or not self.attend or len(self.attend) > self.depth:
            raise ConfigError(
                f"stack: depth {self.depth} with attend {self.attend}: needs 1 to {self.depth} entries."
            )

    @property
    def layers(self) -> tuple[Attend, ...]:
        """What each layer attends to."""
        return self.attend + (self.attend[-1],) * (self.depth - len(self.attend))

    def block_of(self, layer: int) -> BlockConfig:
        tied = self.untie_layers is not None and layer < self.depth - self.untie_layers
        return replace(self.block, untie=()) if tied else self.block


class MixtureOfTransformers(nn.Module):
    """Blocks over packed tokens: (T, D) -> (T, D).

    Source: Liang et al. 2024, arXiv:2411.04996. With `untie=()` it is a dense transformer.
    """

    def __init__(self, config: MoTConfig, modalities: Sequence[str]) -> None:
        super().__init__()
        self.config, self.modalities = config, tuple(modalities)
        block = config.block
        self.blocks = nn.ModuleList(Block(config.block_of(i), modalities) for i in range(config.depth))
        self.rotary = Rotary(config.rotary, block.head_size) if config.rotary else None
        self.final_norm = UntiedNorm(
            modalities, block.width, kind=block.norm, eps=block.norm_eps, untie="norm" in block.untie
        )
        scale = (2 * config.depth) ** -0.5  # keeps the residual stream's size at any depth
        with torch.no_grad():
            for layer in self.blocks:
                assert isinstance(layer, Block)
                for weight in (*layer.out.weight.values(), *layer.mlp.down.weight.values()):
                    weight.mul_(scale)

    @property
    def leading_own(self) -> int:
        """How many layers, from the first, hear only their own modality."""
        layers = self.config.layers
        return next((i for i, attend in enumerate(layers) if attend == "global"), len(layers))

    def plans(
        self, layout: Layout, *, own_only: bool = False, rule: Rule | None = None, backend: Backend = "auto"
    ) -> list[AttentionPlan]:
        """One plan a layer, layers of one rule sharing theirs. `rule` is set on top of the config's."""
        base = same_sample & causal if self.config.causal else same_sample
        if rule is not None:
            base = base & rule
        kinds = ["own" if own_only else attend for attend in self.config.layers]
        made = {
            kind: make_plan(base & own_modality if kind == "own" else base, layout, backend=backend)
            for kind in sorted(set(kinds))
        }
        return [made[kind] for kind in kinds]

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        plans: Sequence[AttentionPlan] | None = None,
        start: int = 0,
        stop: int | None = None,
    ) -> Tensor:
        """Layers start..stop (all, if not said; the final norm comes after the last). (T, D) -> (T, D)"""
        plans = self.plans(layout) if plans is None else plans
        wide = torch.float64 if x.dtype == torch.float64 else torch.float32
        rotation = self.rotary(layout, wide) if self.rotary is not None else None
        for block, plan in zip(self.blocks[start:stop], plans[start:stop], strict=True):
            if self.config.recompute and self.training:
                x = checkpoint(block, x, layout, plan, rotation, use_reentrant=False)
            else:
                x = block(x, layout, plan, rotation)
        return self.final_norm(x, layout) if stop is None else x

    @classmethod
    def from_dense(
        cls, dense: MixtureOfTransformers, modalities: Sequence[str], untie: tuple[Component, ...]
    ) -> MixtureOfTransformers:
        """A MoT whose every modality starts from the weights of `dense` (a stack with `untie=()`).

        At step 0 its outputs are those of `dense`. `motet.nn.convert` makes `dense` from other
        libraries' models.
        """
        config = replace(dense.config, block=replace(dense.config.block, untie=untie), untie_layers=None)
        model = cls(config, modalities)
        source = dense.state_dict()
        model.load_state_dict(
            {name: source[_shared_name(name, source, modalities)] for name in model.state_dict()}
        )
        return model


def _shared_name(name: str, source: dict[str, Tensor], modalities: Sequence[str]) -> str:
    stem, _, key = name.rpartition(".")
    if name in source:
        return name
    if key in modalities and f"{stem}.{SHARED}" in source:
        return f"{stem}.{SHARED}"
    raise ConfigError(f"from_dense: {name} has no counterpart; the source must be a stack with untie=().")
