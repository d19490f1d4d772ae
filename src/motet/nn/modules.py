"""Attention ready for use in other people's models: one modality asks another; sparse blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.nn.attention import make_plan
from motet.nn.rules import across, block_sparse, own_modality, same_sample
from motet.nn.untied import UntiedLinear
from motet.types import Layout


class CrossModalAttention(nn.Module):
    """Tokens of `query` listen to tokens of `key` in the same sample; all others stay as they are.

    Returns x with the answer added to the query's tokens (Tsai et al. 2019, MulT, equation 1,
    arXiv:1906.00295, on packed tokens). A query whose sample has no key token is left as it is.
    """

    def __init__(self, width: int, heads: int, query: str, key: str, *, bias: bool = False) -> None:
        super().__init__()
        if query == key or width % heads:
            raise ConfigError(
                f"cross-modal attention from {query!r} to {key!r}, width {width}, {heads} heads: "
                "the modalities must differ and the width must be a multiple of the heads."
            )
        self.query, self.key, self.heads = query, key, heads
        self.ask = nn.Linear(width, width, bias=bias)
        self.tell = nn.Linear(width, 2 * width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (T, D)
        asking, telling = layout.slice_of(self.query), layout.slice_of(self.key)
        q = F.pad(self.ask(x[asking]), (0, 0, asking.start, len(x) - asking.stop))
        kv = F.pad(self.tell(x[telling]), (0, 0, telling.start, len(x) - telling.stop))
        q, k, v = (t.unflatten(-1, (self.heads, -1)) for t in (q, *kv.chunk(2, dim=-1)))
        plan = make_plan(same_sample & across(self.query, self.key), layout, on_empty="self")
        # Whoever was given itself, for want of a key, has a zero value there and so hears nothing.
        heard = plan.attend(q, k, v).flatten(1)[asking]
        return torch.cat([x[: asking.start], x[asking] + self.out(heard), x[asking.stop :]])


class SparseAttention(nn.Module):
    """Self-attention over a packed batch under a block-sparse rule, untied by modality.

    block, density, seed, global_tokens: see `motet.nn.rules.block_sparse`. `own`: stay within the
    token's modality.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        width: int,
        heads: int,
        *,
        block: int = 64,
        density: float = 0.2,
        seed: int = 0,
        global_tokens: int = 0,
        own: bool = False,
        untie: bool = True,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"sparse attention: width {width} must be a multiple of heads {heads}.")
        self.heads = heads
        rule = same_sample & block_sparse(block, density, seed=seed, global_tokens=global_tokens)
        self.rule = rule & own_modality if own else rule
        self.qkv = UntiedLinear(modalities, width, 3 * width, untie=untie)
        self.out = UntiedLinear(modalities, width, width, untie=untie)

    def forward(self, x: Tensor, layout: Layout) -> Tensor:  # (T, D) -> (T, D)
        q, k, v = self.qkv(x, layout).unflatten(-1, (3, self.heads, -1)).unbind(1)
        heard = make_plan(self.rule, layout).attend(q, k, v)
        return self.out(heard.flatten(1), layout)
