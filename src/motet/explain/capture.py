"""Record what every attention layer was asked, and recompute its weights in pieces.

The model runs as it always does: forward hooks on each block's `attend` keep the queries and keys
it used, and nothing of size tokens x tokens is made until somebody asks for some rows of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.types import Layout, Output, TokenBatch

Score = Callable[[Output], Tensor]
"""What is explained: an Output in, one number a sample out, (B,)."""

ATTEND = re.compile(r"(?:^|\.)blocks\.\d+\.attend$")
PIECE = 2**24  # weights held at once, in numbers: 64 MiB of float32


class Plan(Protocol):
    """What explanations need of an attention plan."""

    def mask(self, rows: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Layer:
    """One attention layer as it was used. q (T, H, K); k, v (T, G, K); G divides H.

    `v` and `gradient` (T, H, K), the gradient of the score with respect to what the layer heard,
    are there only if `capture` was given a score.
    """

    q: Tensor
    k: Tensor
    plan: Plan
    v: Tensor | None = None
    gradient: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Capture:
    """Everything the views need: the layers, who every token is, and what the model said."""

    layers: tuple[Layer, ...]
    layout: Layout
    labels: Mapping[str, tuple[str, ...]]
    output: Output
    token_gradient: Tensor | None = None  # (T, D), of the score with respect to output.tokens

    @property
    def heads(self) -> int:
        return self.layers[0].q.shape[1]

    def tokens_of(self, sample: int | None, modality: str | None = None) -> Tensor:
        """Indices of one sample's (or every sample's) tokens, of one modality or of all. (t,)"""
        keep = torch.ones_like(self.layout.sample, dtype=torch.bool)
        if sample is not None:
            keep &= self.layout.sample == sample
        if modality is not None:
            if modality not in self.layout.modalities:
                raise ConfigError(
                    f"explain: no modality {modality!r} in this model; "
                    f"it has {', '.join(self.layout.modalities)}."
                )
            keep &= self.layout.modality == self.layout.modalities.index(modality)
        return keep.nonzero().squeeze(1)

    def present(self, sample: int | None = None) -> tuple[str, ...]:
        """The modalities that have tokens, in the model's order."""
        seen = self.layout.modality[self.tokens_of(sample)].unique().tolist()
        return tuple(self.layout.modalities[m] for m in sorted(seen))

    def label(self, token: int) -> str:
        """What a person would call this token: its word, its second, its patch."""
        modality = int(self.layout.modality[token])
        name = self.layout.modalities[modality]
        within = token - int(self.layout.offsets[modality])
        if name in self.labels:
            return self.labels[name][within]
        row, col = float(self.layout.row[token]), float(self.layout.col[token])
        same = self.layout.modality == modality
        if bool((self.layout.row[same] != 0).any() | (self.layout.col[same] != 0).any()):
            return f"row {row:g}, column {col:g}"
        return f"{float(self.layout.time[token]):.2f} s"

    def mask(self, layer: int, rows: Tensor) -> Tensor:
        """Which keys each of these queries may look at. (R,) -> (R, T) bool"""
        return self.layers[layer].plan.mask(rows.to(self.layout.device))

    def weights(self, layer: int, rows: Tensor) -> Tensor:
        """Attention of some queries over all tokens, as the model used it. (R,) -> (R, H, T)

        Each row adds up to one over its T keys. Ask for few rows at a time where T is large, or
        use `pieces`.
        """
        record = self.layers[layer]
        rows = rows.to(record.q.device)
        precision = torch.promote_types(record.q.dtype, torch.float32)
        q, k = record.q[rows].to(precision), record.k.to(precision)
        heads, groups, size = q.shape[1], k.shape[1], q.shape[2]
        grouped = q.reshape(len(rows), groups, heads // groups, size)
        scores = torch.einsum("rghk,tgk->rght", grouped, k).flatten(1, 2) * size**-0.5
        scores = scores.masked_fill(~record.plan.mask(rows).unsqueeze(1), -torch.inf)
        return scores.softmax(-1).nan_to_num(0.0)  # a query that may look nowhere hears nothing

    def pieces(self, layer: int, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(rows, weights) again and again until all rows are done, never more than PIECE numbers."""
        step = max(1, PIECE // max(1, self.heads * self.layout.tokens))
        for piece in rows.split(step):
            if len(piece):
                yield piece, self.weights(layer, piece)

    def layers_between(self, query: str, key: str, sample: int | None = None) -> tuple[int, ...]:
        """The layers in which some token of `query` may look at some token of `key`."""
        rows, keys = self.tokens_of(sample, query), self.tokens_of(sample, key)
        step = max(1, PIECE // max(1, self.layout.tokens))
        return tuple(
            index
            for index in range(len(self.layers))
            if any(bool(self.mask(index, piece)[:, keys].any()) for piece in rows.split(step) if len(piece))
        )

    @property
    def mixing_layers(self) -> tuple[int, ...]:
        """The layers in which modalities may hear each other; of a purely own stack, none."""
        names = self.present()
        pairs = [(a, b) for a in names for b in names if a != b]
        found = {layer for a, b in pairs for layer in self.layers_between(a, b)}
        return tuple(sorted(found))


def capture(model: nn.Module, batch: TokenBatch, score: Score | None = None) -> Capture:
    """Run the model once, in eval mode, and keep every attention layer's queries and keys.

    With `score`, the pass also keeps values and the gradients of `score(output).sum()` with
    respect to what each layer heard: what gradient-weighted rollout needs.

    Raises:
        ConfigError: the model has no attention block, or the batch no token.
    """
    modules = [module for name, module in model.named_modules() if ATTEND.search(name)]
    if not modules:
        raise ConfigError("explain: this model has no attention blocks (no module named blocks.N.attend).")
    if not batch.layout.tokens:
        raise ConfigError("explain: the input has no tokens: every modality is missing.")
    passes: list[dict[int, tuple[Any, ...]]] = []

    def record(module: nn.Module, args: tuple[Any, ...], heard: Tensor) -> Tensor:
        if score is not None and not heard.requires_grad:
            heard = heard.requires_grad_()  # every weight is frozen: gradients begin here
        if not passes or id(module) in passes[-1]:
            passes.append({})
        passes[-1][id(module)] = (*args, heard)
        return heard

    training = model.training
    handles = [module.register_forward_hook(record) for module in modules]
    try:
        model.eval()
        with torch.set_grad_enabled(score is not None):
            output = model(batch)
            used = _fullest(
                [[calls[id(m)] for m in modules if id(m) in calls] for calls in passes], batch.layout
            )
            gradients = _gradients(score, output, used)
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    keep_values = score is not None
    layers = tuple(
        Layer(q.detach(), k.detach(), plan, v.detach() if keep_values else None, gradient)
        for (q, k, v, plan, _), gradient in zip(used, gradients[1:], strict=True)
    )
    return Capture(layers, batch.layout, batch.labels, _detached(output), gradients[0])


def _gradients(score: Score | None, output: Output, used: Sequence[tuple[Any, ...]]) -> list[Tensor | None]:
    """Of the score, with respect to the last tokens and to what each layer heard."""
    if score is None:
        return [None] * (len(used) + 1)
    targets = [output.tokens, *(call[-1] for call in used)]
    found = torch.autograd.grad(score(output).sum(), targets, allow_unused=True)
    return [torch.zeros_like(t) if g is None else g for t, g in zip(targets, found, strict=True)]


def _fullest(passes: list[list[tuple[Any, ...]]], layout: Layout) -> list[tuple[Any, ...]]:
    """The pass in which modalities hear each other most.

    A model without leading own layers runs its stack a second time for modality-pure embeddings;
    that pass is not the one that answers.
    """
    if len(passes) == 1:
        return passes[0]
    rows = torch.linspace(0, layout.tokens - 1, min(256, layout.tokens), device=layout.device).long()
    other = layout.modality[rows][:, None] != layout.modality[None, :]

    def heard(calls: list[tuple[Any, ...]]) -> tuple[int, int]:
        return sum(int((call[3].mask(rows) & other).sum()) for call in calls), len(calls)

    return max(passes, key=heard)


def _detached(output: Output) -> Output:
    return Output(
        tokens=output.tokens.detach(),
        fused=output.fused.detach(),
        present=output.present,
        embeddings={name: value.detach() for name, value in output.embeddings.items()},
        predictions={name: value.detach() for name, value in output.predictions.items()},
        modality_predictions={
            name: {task: value.detach() for task, value in tasks.items()}
            for name, tasks in output.modality_predictions.items()
        },
    )
