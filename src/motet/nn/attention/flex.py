"""FlexAttention (CUDA): any rule as a block mask, compiled into one kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from motet.nn.attention.permute import permute
from motet.nn.attention.sequences import Sequences
from motet.nn.rules import Rule
from motet.types import Layout


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    return torch.compile(flex_attention)


@dataclass(frozen=True, eq=False)
class Flex:
    """Tokens in the order of their sequences; `block_mask` tells which tiles to visit."""

    order: Tensor
    inverse: Tensor
    block_mask: BlockMask
    in_place: bool

    @staticmethod
    def of(rule: Rule, sequences: Sequences, layout: Layout) -> Flex:
        tokens, test, total = sequences.tokens(layout), rule.bind(layout), layout.tokens

        def mask_mod(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return test(tokens.at(q), tokens.at(k))

        block_mask = create_block_mask(mask_mod, None, None, total, total, device=str(layout.device))
        return Flex(sequences.order, sequences.inverse, block_mask, sequences.in_place)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.in_place:
            q, k, v = (permute(t, self.order, self.inverse) for t in (q, k, v))
        run: Any = flex_attention if torch.compiler.is_compiling() else _compiled()
        q_, k_, v_ = (t.unsqueeze(0).transpose(1, 2) for t in (q, k, v))  # (1, H, T, K)
        out = run(q_, k_, v_, block_mask=self.block_mask, enable_gqa=True)
        heard = out.squeeze(0).transpose(0, 1)
        return heard if self.in_place else permute(heard, self.inverse, self.order)
