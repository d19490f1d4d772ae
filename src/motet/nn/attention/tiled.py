"""Attention that only visits the tiles that a rule leaves: saves time as well as memory.

For long sequences under sparse rules where FlexAttention cannot serve (the CPU, fp64). The
softmax is recomputed in the backward, so memory is tokens x (keys of one tile row), never
tokens x tokens (Dao 2023, arXiv:2307.08691, without the kernel).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from motet.nn.attention.permute import permute
from motet.nn.attention.sequences import Sequences
from motet.nn.rules import Rule
from motet.types import Layout

TILE = 128


@dataclass(frozen=True, eq=False)
class Tiled:
    """Which tiles to visit, in the order of the sequences; all but `masks` and the orders on the CPU.

    Tile row i looks at the key tiles keys[starts[i]:starts[i+1]]. mask_at, as long as keys: the
    tile's place in masks (n, TILE, TILE) bool, or -1 where all of it is seen.
    """

    order: Tensor
    inverse: Tensor
    keys: Tensor
    starts: Tensor
    masks: Tensor
    mask_at: Tensor

    @staticmethod
    def of(rule: Rule, sequences: Sequences, layout: Layout) -> Tiled:
        total = layout.tokens
        keys, starts, masks, mask_at, stored = [], [0], [], [], 0
        for i, (first, by_tile) in enumerate(sequences.tiles(rule, layout, TILE)):
            rows = total - i * TILE
            for j in by_tile.any(-1).any(-1).nonzero().flatten().tolist():
                mask = by_tile[j]
                full = bool(mask[:rows, : total - (first + j) * TILE].all())
                keys.append(first + j)
                mask_at.append(-1 if full else stored)
                if not full:
                    masks.append(mask)
                    stored += 1
            starts.append(len(keys))
        empty = torch.zeros(0, TILE, TILE, dtype=torch.bool, device=layout.device)
        return Tiled(
            order=sequences.order,
            inverse=sequences.inverse,
            keys=torch.tensor(keys, dtype=torch.int64),
            starts=torch.tensor(starts, dtype=torch.int64),
            masks=torch.stack(masks) if masks else empty,
            mask_at=torch.tensor(mask_at, dtype=torch.int64),
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (permute(t, self.order, self.inverse) for t in (q, k, v))
        out, _ = torch.ops.motet.attend_tiles(q, k, v, self.keys, self.starts, self.masks, self.mask_at)
        return permute(out, self.inverse, self.order)


_PLAN = "Tensor keys, Tensor starts, Tensor masks, Tensor mask_at"
torch.library.define("motet::attend_tiles", f"(Tensor q, Tensor k, Tensor v, {_PLAN}) -> (Tensor, Tensor)")
torch.library.define(
    "motet::attend_tiles_backward",
    "(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, "
    f"{_PLAN}) -> (Tensor, Tensor, Tensor)",
)


def _rows(
    total: int, keys: Tensor, starts: Tensor, masks: Tensor, mask_at: Tensor
) -> Iterator[tuple[slice, list[slice], list[tuple[slice, Tensor]]]]:
    """For each tile row: its queries, its runs of keys, and the masks with the columns they cover."""
    bounds, key_list, at_list = starts.tolist(), keys.tolist(), mask_at.tolist()
    for i in range(len(bounds) - 1):
        mine = slice(i * TILE, min(total, (i + 1) * TILE))
        runs: list[list[int]] = []
        partial: list[tuple[slice, Tensor]] = []
        column = 0
        for j, at in zip(
            key_list[bounds[i] : bounds[i + 1]], at_list[bounds[i] : bounds[i + 1]], strict=True
        ):
            start, stop = j * TILE, min(total, (j + 1) * TILE)
            if runs and runs[-1][1] == start:
                runs[-1][1] = stop
            else:
                runs.append([start, stop])
            if at >= 0:
                mask = masks[at][: mine.stop - mine.start, : stop - start]
                partial.append((slice(column, column + stop - start), ~mask))
            column += stop - start
        yield mine, [slice(*run) for run in runs], partial


def _take(x: Tensor, runs: list[slice]) -> Tensor:  # (H, T, K) -> (H, keys, K)
    return x[:, runs[0]] if len(runs) == 1 else torch.cat([x[:, run] for run in runs], 1)


def _heads_first(*tensors: Tensor) -> list[Tensor]:
    """(T, H, K) -> (H, T, K) in fp32 at least, contiguous, so that tiles are plain matrices."""
    return [(t if t.dtype.itemsize >= 4 else t.float()).transpose(0, 1).contiguous() for t in tensors]


@torch.library.impl("motet::attend_tiles", "CompositeExplicitAutograd")
def _forward(
    q: Tensor, k: Tensor, v: Tensor, keys: Tensor, starts: Tensor, masks: Tensor, mask_at: Tensor
) -> tuple[Tensor, Tensor]:
    """Output (T, H, K) and log-sum-exp (H, T)."""
    total, heads, size = q.shape
    groups, scale = k.shape[1], size**-0.5
    qh, kh, vh = _heads_first(q * scale, k, v)
    out = torch.empty_like(qh)
    lse = qh.new_empty(heads, total)
    for mine, runs, partial in _rows(total, keys, starts, masks, mask_at):
        rows = mine.stop - mine.start
        score = _fold(qh[:, mine], groups) @ _take(kh, runs).transpose(1, 2)  # (G, R*rows, keys)
        score = score.view(heads, rows, -1)
        for columns, hidden in partial:
            score[:, :, columns].masked_fill_(hidden, float("-inf"))
        top = torch.logsumexp(score, -1)
        lse[:, mine] = top
        weight = score.sub_(top.unsqueeze(-1)).exp_()
        out[:, mine] = (_fold(weight, groups) @ _take(vh, runs)).view(heads, rows, size)
    return out.transpose(0, 1).to(q.dtype).contiguous(), lse


def _fold(x: Tensor, groups: int) -> Tensor:
    """Query heads that share a key head side by side: (H, rows, n) -> (G, H/G * rows, n)"""
    return x.reshape(groups, -1, x.shape[-1])


@torch.library.impl("motet::attend_tiles_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    keys: Tensor,
    starts: Tensor,
    masks: Tensor,
    mask_at: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    total, heads, size = q.shape
    groups, scale = k.shape[1], size**-0.5
    qh, kh, vh, oh, gh = _heads_first(q * scale, k, v, out, grad)
    delta = (oh * gh).sum(-1, keepdim=True)  # (H, T, 1)
    dq, dk, dv = torch.empty_like(qh), torch.zeros_like(kh), torch.zeros_like(vh)
    for mine, runs, partial in _rows(total, keys, starts, masks, mask_at):
        rows = mine.stop - mine.start
        keys_here, values_here = _take(kh, runs), _take(vh, runs)
        q_here, g_here = _fold(qh[:, mine], groups), _fold(gh[:, mine], groups)
        weight = (q_here @ keys_here.transpose(1, 2)).view(heads, rows, -1)
        for columns, hidden in partial:
            weight[:, :, columns].masked_fill_(hidden, float("-inf"))
        weight.sub_(lse[:, mine].unsqueeze(-1)).exp_()
        slope = (g_here @ values_here.transpose(1, 2)).view(heads, rows, -1)
        slope.sub_(delta[:, mine]).mul_(weight)
        weight, slope = _fold(weight, groups), _fold(slope, groups)
        dq[:, mine] = (slope @ keys_here).view(heads, rows, size)
        _put(dk, runs, slope.transpose(1, 2) @ q_here)
        _put(dv, runs, weight.transpose(1, 2) @ g_here)
    dq.mul_(scale)
    dq, dk, dv = (d.transpose(0, 1).to(like.dtype).contiguous() for d, like in ((dq, q), (dk, k), (dv, v)))
    return dq, dk, dv


def _put(into: Tensor, runs: list[slice], value: Tensor) -> None:
    column = 0
    for run in runs:
        size = run.stop - run.start
        into[:, run] += value[:, column : column + size]
        column += size


@torch.library.register_fake("motet::attend_tiles")
def _forward_shape(q: Tensor, k: Tensor, v: Tensor, *plan: Tensor) -> tuple[Tensor, Tensor]:
    wide = q.dtype if q.dtype.itemsize >= 4 else torch.float32
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(q.shape[1], q.shape[0], dtype=wide)


@torch.library.register_fake("motet::attend_tiles_backward")
def _backward_shape(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *rest: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    like = torch.contiguous_format
    return tuple(torch.empty_like(t, memory_format=like) for t in (q, k, v))  # type: ignore[return-value]


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    q, k, v, *plan = inputs
    ctx.save_for_backward(q, k, v, *output, *plan)


def _differentiate(ctx, grad, _lse_grad):  # type: ignore[no-untyped-def]
    grads = torch.ops.motet.attend_tiles_backward(grad.contiguous(), *ctx.saved_tensors)
    return *grads, *[None] * 4


torch.library.register_autograd("motet::attend_tiles", _differentiate, setup_context=_save)
