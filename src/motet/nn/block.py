"""The one block of Motet: every modality its own weights, one attention for all.

A modality encoder is this block under the rule `own_modality`, the dense twin is this block with
`untie=()`; neither is another class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.nn.attention import AttentionPlan
from motet.nn.elementwise import swiglu
from motet.nn.positions import Rotation, apply_rotary
from motet.nn.untied import UntiedLinear, UntiedNorm
from motet.types import Layout

Component = Literal["attention", "mlp", "norm"]


@dataclass(frozen=True)
class BlockConfig:
    """Sizes and choices of a block.

    kv_heads: key/value heads, None for as many as heads. mlp_width: None for 8/3 width (swiglu)
    or 4 width (gelu), rounded up to 8. norm_place "pre": x + f(norm(x)); "post": x + norm(f(x)),
    as the paper has it. untie: which components have weights per modality; () is the dense twin.
    """

    width: int = 256
    heads: int = 4
    kv_heads: int | None = None
    mlp: Literal["swiglu", "gelu"] = "swiglu"
    mlp_width: int | None = None
    norm: Literal["rms", "layer"] = "rms"
    norm_place: Literal["pre", "post"] = "pre"
    norm_eps: float = 1e-6
    qk_norm: bool = False
    untie: tuple[Component, ...] = ("attention", "mlp", "norm")
    bias: bool = False
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        if self.width % self.heads or self.heads % self.groups:
            raise ConfigError(
                f"block: width {self.width} must be a multiple of heads {self.heads}, and heads of kv_heads "
                f"{self.groups}."
            )

    @property
    def groups(self) -> int:
        return self.kv_heads or self.heads

    @property
    def head_size(self) -> int:
        return self.width // self.heads

    @property
    def inner(self) -> int:
        """Width inside the MLP."""
        return (
            self.mlp_width or -(-(self.width * 8 // 3 if self.mlp == "swiglu" else self.width * 4) // 8) * 8
        )


class Attend(nn.Module):
    """The only step where tokens meet. A module without weights, so that hooks can listen to it."""

    def forward(self, q: Tensor, k: Tensor, v: Tensor, plan: AttentionPlan) -> Tensor:
        return plan.attend(q, k, v)


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202) or GELU, untied."""

    def __init__(self, config: BlockConfig, modalities: Sequence[str]) -> None:
        super().__init__()
        untie, gates = "mlp" in config.untie, 2 if config.mlp == "swiglu" else 1
        self.gated = config.mlp == "swiglu"
        self.up = UntiedLinear(modalities, config.width, gates * config.inner, bias=config.bias, untie=untie)
        self.down = UntiedLinear(modalities, config.inner, config.width, bias=config.bias, untie=untie)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (T, D)
        inner = self.up(x, layout)
        return self.down(swiglu(inner) if self.gated else F.gelu(inner), layout)


class Block(nn.Module):
    """Untied projections, MLP and norms around one attention call.

    Source: Liang et al. 2024, algorithm 1, arXiv:2411.04996.
    """

    def __init__(self, config: BlockConfig, modalities: Sequence[str]) -> None:
        super().__init__()
        self.config = config
        attention, norm = "attention" in config.untie, "norm" in config.untie
        heads = config.heads + 2 * config.groups

        def make_norm(width: int) -> UntiedNorm:
            return UntiedNorm(modalities, width, kind=config.norm, eps=config.norm_eps, untie=norm)

        self.norm_in = make_norm(config.width)
        self.qkv = UntiedLinear(
            modalities, config.width, heads * config.head_size, bias=config.bias, untie=attention
        )
        self.norm_q = make_norm(config.head_size) if config.qk_norm else None
        self.norm_k = make_norm(config.head_size) if config.qk_norm else None
        self.attend = Attend()
        self.out = UntiedLinear(modalities, config.width, config.width, bias=config.bias, untie=attention)
        self.norm_mlp = make_norm(config.width)
        self.mlp = MLP(config, modalities)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, layout: Layout, plan: AttentionPlan, rotation: Rotation | None = None
    ) -> Tensor:  # (T, D) -> (T, D)
        pre = self.config.norm_place == "pre"
        heard = self._listen(self.norm_in(x, layout) if pre else x, layout, plan, rotation)
        x = x + self._drop(heard if pre else self.norm_in(heard, layout), layout)
        thought = self.mlp(self.norm_mlp(x, layout) if pre else x, layout)
        return x + self._drop(thought if pre else self.norm_mlp(thought, layout), layout)

    def _listen(self, x: Tensor, layout: Layout, plan: AttentionPlan, rotation: Rotation | None) -> Tensor:
        config = self.config
        qkv = self.qkv(x, layout).unflatten(-1, (-1, config.head_size))  # (T, H + 2G, K)
        q, k, v = qkv.split([config.heads, config.groups, config.groups], dim=1)
        if self.norm_q is not None and self.norm_k is not None:
            q, k = self.norm_q(q, layout), self.norm_k(k, layout)
        if rotation is not None:
            q, k = apply_rotary(q, rotation), apply_rotary(k, rotation)
        return self.out(self.attend(q, k, v, plan).flatten(1), layout)

    def _drop(self, x: Tensor, layout: Layout) -> Tensor:
        """Dropout per number, and stochastic depth per sample (Huang et al. 2016, arXiv:1603.09382)."""
        x = self.dropout(x)
        if self.training and self.config.drop_path:
            keep = 1 - self.config.drop_path
            kept = torch.rand(layout.samples, device=x.device) < keep
            x = x * (kept.to(x.dtype) / keep).index_select(0, layout.sample).unsqueeze(-1)
        return x
