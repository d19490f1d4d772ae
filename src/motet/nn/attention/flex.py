"""FlexAttention (CUDA): any rule as a block mask, compiled into one kernel."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from motet.nn.attention.permute import permute
from motet.nn.attention.sequences import Sequences
from motet.nn.rules import Rule
from motet.types import Layout

TILE = 128  # of FlexAttention's kernels
SMALLEST = 16  # head size that they take


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
        tokens, test = sequences.tokens(layout), rule.bind(layout)

        def mask_mod(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return test(tokens.at(q), tokens.at(k))

        partial, full = _visited(rule, sequences, layout)
        block_mask = BlockMask.from_kv_blocks(
            *_listed(partial),
            *_listed(full),
            BLOCK_SIZE=TILE,
            mask_mod=mask_mod,
            seq_lengths=(layout.tokens, layout.tokens),
        )
        return Flex(sequences.order, sequences.inverse, block_mask, sequences.in_place)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not self.in_place:
            q, k, v = (permute(t, self.order, self.inverse) for t in (q, k, v))
        size = q.shape[-1]
        if size < SMALLEST:
            q, k, v = (F.pad(t, (0, SMALLEST - size)) for t in (q, k, v))
        run: Any = flex_attention if torch.compiler.is_compiling() else _compiled()
        q_, k_, v_ = (t.unsqueeze(0).transpose(1, 2) for t in (q, k, v))  # (1, H, T, K)
        out = run(q_, k_, v_, block_mask=self.block_mask, scale=size**-0.5, enable_gqa=True)
        heard = out.squeeze(0).transpose(0, 1)[..., :size]
        return heard if self.in_place else permute(heard, self.inverse, self.order)


def _visited(rule: Rule, sequences: Sequences, layout: Layout) -> tuple[Tensor, Tensor]:
    """Tiles of which a part is seen, and tiles that are seen whole, each (rows, columns) bool.

    As `create_block_mask` finds them, but a row of tiles at a time, and only within the row's
    sequences: never tokens x tokens.
    """
    size = -(-layout.tokens // TILE)
    partial, full = torch.zeros(2, size, size, dtype=torch.bool, device=layout.device)
    for i, (first, by_tile) in enumerate(sequences.tiles(rule, layout, TILE)):
        there, seen = slice(first, first + len(by_tile)), by_tile.flatten(1)
        full[i, there] = seen.all(1)
        partial[i, there] = seen.any(1) & ~full[i, there]
    return partial, full


def _listed(tiles: Tensor) -> tuple[Tensor, Tensor]:
    """How many tiles each row visits, and which come first: (1, 1, rows), (1, 1, rows, columns) int32."""
    tiles = tiles[None, None]
    order = torch.argsort(tiles.byte(), dim=-1, descending=True, stable=True)
    return tiles.sum(-1, dtype=torch.int32), order.to(torch.int32)
