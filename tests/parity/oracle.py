"""One block, token by token in plain loops, from the equations of Liang et al. 2024, arXiv:2411.04996.

    q_i, k_i, v_i = W_Q^m x_i, W_K^m x_i, W_V^m x_i            m: the modality of token i
    a_i = W_O^m sum_j softmax_j(q_i . k_j / sqrt(K)) v_j       j: every token that i may look at
    h_i = x_i + norm_attn^m(a_i)
    y_i = h_i + norm_ffn^m(FFN^m(h_i))

and the same with each norm before its sublayer instead. Nothing is sorted, sliced, batched or
masked, and nothing is imported from Motet: slow, and easy to check against the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Table = Mapping[str, Tensor]  # modality (or the one key "shared") -> its weight


@dataclass(frozen=True)
class Weights:
    """What a block has learned. Linear maps are (d_out, d_in); norms are (width,)."""

    qkv: Table  # rows: H * K of queries, G * K of keys, G * K of values
    out: Table
    up: Table  # rows: the gate, then the value that it gates (SwiGLU); the value alone (GELU)
    down: Table
    norm_in: Table
    norm_mlp: Table
    norm_q: Table = field(default_factory=dict)  # without entries: no QK norm
    norm_k: Table = field(default_factory=dict)
    bias: Mapping[str, Table] = field(default_factory=dict)  # by the names above


@dataclass(frozen=True)
class Shape:
    heads: int
    kv_heads: int
    swiglu: bool
    rms: bool
    pre_norm: bool
    eps: float


def block(
    x: Tensor,
    modality: Sequence[str],
    allowed: Callable[[int, int], bool],
    weights: Weights,
    shape: Shape,
    *,
    angles: Callable[[int], Sequence[float]] | None = None,
) -> Tensor:
    """x (T, D), the modality of each token, who may look at whom -> (T, D).

    angles(i): by how much token i's K/2 pairs (j, j + K/2) turn, in radians.
    """
    tokens = range(len(modality))

    def normed(name: str, i: int, value: Tensor) -> Tensor:
        return _norm(weights, name, modality[i], value, shape)

    def linear(name: str, i: int, value: Tensor) -> Tensor:
        return _linear(weights, name, modality[i], value)

    seen = [normed("norm_in", i, x[i]) if shape.pre_norm else x[i] for i in tokens]
    q, k, v = [], [], []
    for i in tokens:
        queries, keys, values = _heads(linear("qkv", i, seen[i]), shape)
        if weights.norm_q:
            queries = [normed("norm_q", i, head) for head in queries]
            keys = [normed("norm_k", i, head) for head in keys]
        if angles is not None:
            queries = [_turn(head, angles(i)) for head in queries]
            keys = [_turn(head, angles(i)) for head in keys]
        q.append(queries)
        k.append(keys)
        v.append(values)

    result = []
    for i in tokens:
        others = [j for j in tokens if allowed(i, j)]
        heard = linear("out", i, _attend(q[i], [k[j] for j in others], [v[j] for j in others], shape))
        h = x[i] + (heard if shape.pre_norm else normed("norm_in", i, heard))
        inner = normed("norm_mlp", i, h) if shape.pre_norm else h
        thought = linear("down", i, _activate(linear("up", i, inner), shape))
        result.append(h + (thought if shape.pre_norm else normed("norm_mlp", i, thought)))
    return torch.stack(result)


def _attend(
    queries: list[Tensor], keys: list[list[Tensor]], values: list[list[Tensor]], shape: Shape
) -> Tensor:
    """What one token hears from those that it may look at, head beside head: (H * K,)."""
    heard = []
    for head, query in enumerate(queries):
        group = head // (shape.heads // shape.kv_heads)
        score = torch.stack([query @ key[group] for key in keys]) / math.sqrt(len(query))
        share = (score - score.max()).exp()
        share = share / share.sum()
        heard.append(sum(part * value[group] for part, value in zip(share, values, strict=True)))
    return torch.cat(heard)


def _heads(qkv: Tensor, shape: Shape) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    parts = list(qkv.split(len(qkv) // (shape.heads + 2 * shape.kv_heads)))
    h, g = shape.heads, shape.kv_heads
    return parts[:h], parts[h : h + g], parts[h + g :]


def _turn(head: Tensor, angle: Sequence[float]) -> Tensor:
    first, second = head.split(len(angle))
    cos = head.new_tensor([math.cos(a) for a in angle])
    sin = head.new_tensor([math.sin(a) for a in angle])
    return torch.cat((first * cos - second * sin, first * sin + second * cos))


def _activate(inner: Tensor, shape: Shape) -> Tensor:
    if shape.swiglu:
        gate, value = inner.split(len(inner) // 2)
        return gate / (1 + torch.exp(-gate)) * value
    return inner * (1 + torch.erf(inner / math.sqrt(2))) / 2


def _linear(weights: Weights, name: str, modality: str, value: Tensor) -> Tensor:
    result = _of(getattr(weights, name), modality) @ value
    bias = weights.bias.get(name)
    return result + _of(bias, modality) if bias else result


def _norm(weights: Weights, name: str, modality: str, value: Tensor, shape: Shape) -> Tensor:
    if not shape.rms:
        value = value - value.mean()
    value = value / torch.sqrt((value * value).mean() + shape.eps) * _of(getattr(weights, name), modality)
    bias = weights.bias.get(name)
    return value + _of(bias, modality) if bias else value


def _of(table: Table, modality: str) -> Tensor:
    return table["shared"] if "shared" in table else table[modality]
