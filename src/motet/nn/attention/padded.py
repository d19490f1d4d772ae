"""Sequences bucketed by length and handed to PyTorch's fused attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from motet.nn.attention.permute import permute
from motet.nn.attention.sequences import Sequences
from motet.nn.rules import Rule, Tokens
from motet.types import Layout

MAX_BUCKETS = 16


@dataclass(frozen=True, eq=False)
class Padded:
    """Padded attention. P padded tokens; P == T and no mask where all lengths in a bucket agree.

    index (P,): packed token at each padded place (padding repeats some token); inverse (T,): the
    padded place of each token; valid (P,) bool. shapes (MAX_BUCKETS, 2) on the CPU: sequences and
    length of each bucket, zeros after the last. masks: the buckets' masks one after the other,
    each (n, 1, L, L) or (n, 1, 1, L), flat; `mask_rows` tells which. `plain` is the (n, L) of the
    only bucket where it needs neither padding nor mask.
    """

    index: Tensor
    inverse: Tensor
    valid: Tensor
    shapes: Tensor
    masks: Tensor
    mask_rows: int  # 0 no mask, 1 keys only, 2 queries x keys
    is_causal: bool
    plain: tuple[int, int] | None
    in_place: bool

    @staticmethod
    def of(sequences: Sequences, layout: Layout) -> Padded:
        lengths = sequences.lengths
        by_length = sorted(range(len(lengths)), key=lambda i: lengths[i])
        buckets = _buckets([lengths[i] for i in by_length])
        starts = [0]
        for n in lengths:
            starts.append(starts[-1] + n)
        index, valid, shapes, at = [], [], [], 0
        for size, longest in buckets:
            chosen = by_length[at : at + size]
            at += size
            first = torch.tensor([starts[i] for i in chosen]).unsqueeze(1)
            length = torch.tensor([lengths[i] for i in chosen]).unsqueeze(1)
            step = torch.arange(longest).unsqueeze(0)
            valid.append((step < length).flatten())
            index.append((first + torch.minimum(step, length - 1)).flatten())
            shapes.append((size, longest))
        device = sequences.order.device
        place = torch.cat(index or [torch.zeros(0, dtype=torch.int64)])
        known = torch.cat(valid or [torch.zeros(0, dtype=torch.bool)])
        inverse = torch.empty(layout.tokens, dtype=torch.int64)
        inverse[place[known]] = torch.arange(len(place))[known]
        full = bool(known.all())
        plain = shapes[0] if len(shapes) == 1 and full and sequences.rest is None else None
        gather = sequences.order[place.to(device)]
        rows = 2 if sequences.rest is not None else 0 if full or sequences.is_causal else 1
        valid_here = known.to(device)
        masks = _masks(sequences.rest, layout, gather, valid_here, shapes, rows)
        in_order = bool((place == torch.arange(len(place))).all())
        return Padded(
            index=gather,
            inverse=inverse.to(device)[sequences.inverse],
            valid=valid_here,
            shapes=torch.tensor(shapes + [(0, 0)] * (MAX_BUCKETS - len(shapes))),
            masks=masks,
            mask_rows=rows,
            is_causal=sequences.is_causal,
            plain=plain,
            in_place=plain is not None and in_order and sequences.in_place,
        )

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # On the CPU a compiled block gains nothing from seeing inside, and would compile anew for
        # every number of sequences.
        opaque = torch.compiler.is_compiling() and not q.is_cuda
        if not opaque and self.plain is not None:
            return self._attend_plain(q, k, v)
        run = torch.ops.motet.attend_buckets if torch.compiler.is_compiling() else _attend_buckets
        return run(
            q,
            k,
            v,
            self.index,
            self.inverse,
            self.valid,
            self.shapes,
            self.masks,
            self.mask_rows,
            self.is_causal,
        )

    def _attend_plain(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, length = self.plain or (0, 0)
        if self.in_place:
            return _fused(q, k, v, n, length, None, self.is_causal)
        q, k, v = (permute(t, self.index, self.inverse) for t in (q, k, v))
        return permute(_fused(q, k, v, n, length, None, self.is_causal), self.inverse, self.index)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, n: int, length: int, mask: Tensor | None, is_causal: bool
) -> Tensor:
    """(n*L, H, K) -> (n*L, H, K)"""
    q, k, v = (t.view(n, length, *t.shape[1:]).transpose(1, 2) for t in (q, k, v))
    if q.shape[1] == k.shape[1]:  # an if, since a compiled `!=` of sizes is no plain bool
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal)
    else:
        heard = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=True)
    return heard.transpose(1, 2).reshape(n * length, q.shape[1], q.shape[3])


def _attend_buckets(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    index: Tensor,
    inverse: Tensor,
    valid: Tensor,
    shapes: Tensor,
    masks: Tensor,
    mask_rows: int,
    is_causal: bool,
) -> Tensor:
    q, k, v = (permute(t, index, inverse) for t in (q, k, v))
    heard, at, mask_at = [], 0, 0
    for n, length in shapes.tolist():
        if n == 0:
            break
        mask = None
        if mask_rows:
            mask_shape = (n, 1, length if mask_rows == 2 else 1, length)
            mask_size = n * mask_shape[2] * length
            mask = masks[mask_at : mask_at + mask_size].view(mask_shape)
            mask_at += mask_size
        part = slice(at, at + n * length)
        heard.append(_fused(q[part], k[part], v[part], n, length, mask, is_causal))
        at += n * length
    together = torch.cat(heard) if heard else q
    return permute(together, inverse, index, valid)


_ARGS = (
    "Tensor index, Tensor inverse, Tensor valid, Tensor shapes, Tensor masks, int mask_rows, bool is_causal"
)
torch.library.define("motet::attend_buckets", f"(Tensor q, Tensor k, Tensor v, {_ARGS}) -> Tensor")
torch.library.define(
    "motet::attend_buckets_backward",
    f"(Tensor grad, Tensor q, Tensor k, Tensor v, {_ARGS}) -> (Tensor, Tensor, Tensor)",
)


@torch.library.impl("motet::attend_buckets", "CompositeExplicitAutograd")
def _forward(q: Tensor, k: Tensor, v: Tensor, *plan: Tensor | int) -> Tensor:
    """Opaque to the compiler, which would otherwise compile anew for every new set of buckets."""
    return _attend_buckets(q, k, v, *plan)  # type: ignore[arg-type]


@torch.library.register_fake("motet::attend_buckets")
def _forward_shape(q: Tensor, k: Tensor, v: Tensor, *plan: Tensor | int) -> Tensor:
    return torch.empty_like(q, memory_format=torch.contiguous_format)


@torch.library.impl("motet::attend_buckets_backward", "CompositeExplicitAutograd")
def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *plan: Tensor | int
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.enable_grad():
        inputs = [t.detach().requires_grad_() for t in (q, k, v)]
        out = _attend_buckets(*inputs, *plan)  # type: ignore[arg-type]
        return torch.autograd.grad(out, inputs, grad)  # type: ignore[return-value]


@torch.library.register_fake("motet::attend_buckets_backward")
def _backward_shape(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *plan: Tensor | int
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.mask_rows, ctx.is_causal = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    grads = torch.ops.motet.attend_buckets_backward(grad, *ctx.saved_tensors, ctx.mask_rows, ctx.is_causal)
    return *grads, *[None] * 7


torch.library.register_autograd("motet::attend_buckets", _differentiate, setup_context=_save)


def _buckets(lengths: list[int]) -> list[tuple[int, int]]:
    """(sequences, padded length) of buckets over ascending lengths.

    A bucket takes lengths up to a quarter (or 8 tokens) above its shortest: one call more costs
    about as much as that padding. The allowance doubles until the buckets are few enough.
    """
    ratio, slack = 1.25, 8
    while True:
        buckets: list[list[int]] = []
        for length in lengths:
            if buckets and length <= max(buckets[-1][0] * ratio, buckets[-1][0] + slack):
                buckets[-1].append(length)
            else:
                buckets.append([length])
        if len(buckets) <= MAX_BUCKETS:
            return [(len(b), b[-1]) for b in buckets]
        ratio, slack = ratio * ratio, slack * 2


def _masks(
    rest: Rule | None, layout: Layout, gather: Tensor, valid: Tensor, shapes: list[tuple[int, int]], rows: int
) -> Tensor:
    """The buckets' masks, flat; at least 2 entries, since compilers treat 0 and 1 as special sizes."""
    parts = [torch.zeros(2, dtype=torch.bool, device=gather.device)]
    if rows:
        test = rest.bind(layout) if rest is not None else None
        tokens, at = Tokens.of(layout).at(gather) if test else None, 0
        here = []
        for n, length in shapes:
            part = slice(at, at + n * length)
            at += n * length
            keys = valid[part].view(n, 1, length)
            if test is None or tokens is None:
                here.append(keys.flatten())
                continue
            mine = torch.arange(part.start, part.stop, device=gather.device).view(n, length)
            seen = test(tokens.at(mine[:, :, None]), tokens.at(mine[:, None, :])) & keys
            # A row of padding sees itself, so that its softmax stays finite; nobody reads it.
            itself = torch.eye(length, dtype=torch.bool, device=gather.device) & ~keys.transpose(1, 2)
            here.append((seen | itself).flatten())
        parts = here + parts
    return torch.cat(parts)
