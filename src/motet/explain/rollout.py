"""What reached the answer: attention rollout, gradient-weighted rollout, integrated gradients.

The products of attention matrices are taken from the answer backwards, as one vector through every
layer, so that nothing of size tokens x tokens is held.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.explain.capture import ATTEND, Capture, Score
from motet.explain.views import View
from motet.types import Layout, TokenBatch


@dataclasses.dataclass(frozen=True, eq=False)
class Importance(View):
    """How much each token of one sample reached the answer.

    token: (t,) indices into the packed batch; modality: (t,) the name of each; signed: (t,) what each
    brought, below zero where it spoke against the answer (integrated gradients: in units of the score);
    value: (t,) each token's part of all that spoke for it, not negative and adding up to one. Methods
    without a sign have `signed` equal to `value`.
    """

    method: str
    sample: int
    token: np.ndarray
    modality: tuple[str, ...]
    labels: tuple[str, ...]
    value: np.ndarray
    signed: np.ndarray

    def by_modality(self) -> dict[str, float]:
        """Each modality's part of the whole; the parts add up to one."""
        names = np.array(self.modality)
        return {name: float(self.value[names == name].sum()) for name in dict.fromkeys(self.modality)}

    def of(self, modality: str) -> np.ndarray:
        """The values of one modality's tokens, in order."""
        return self.value[np.array(self.modality) == modality]


def rollout(captured: Capture, *, sample: int = 0) -> Importance:
    """Attention rollout: attention, mixed half and half with the residual, multiplied through layers.

    The answer is taken to read all last tokens alike.

    Source: Abnar & Zuidema 2020, arXiv:2005.00928.
    """
    tokens = _tokens(captured, sample)
    flow = torch.full((len(tokens),), 1 / len(tokens), dtype=torch.float64)
    for layer in reversed(range(len(captured.layers))):
        heard = torch.zeros_like(flow)
        for start, weights in _sample_pieces(captured, layer, tokens):
            attention = weights.mean(1).double().cpu()
            attention = attention / attention.sum(1, keepdim=True).clamp(min=1e-12)
            heard += flow[start : start + len(attention)] @ attention
        flow = 0.5 * heard + 0.5 * flow
    return _importance("rollout", captured, sample, tokens, flow)


def gradient_rollout(captured: Capture, *, sample: int = 0) -> Importance:
    """Rollout in which only attention that raised the score counts, mixed half and half with the residual.

    `captured` must come from `capture(model, batch, score)`. The gradient with respect to a weight
    is the heard vector's gradient times the value it would bring, so no weights have to be kept.

    Source: Chefer et al. 2021, arXiv:2103.15679, equation 5. Their update adds the weighted attention
    to an identity; where many tokens are pooled, gradients are small and nothing but the identity would
    remain, so each token's weighted attention is brought to a sum of one, as in `rollout`. The answer
    reads the last tokens by gradient x what sets each apart from its modality's mean, where the paper
    has a class token.
    """
    if captured.token_gradient is None:
        raise ConfigError("explain: gradient rollout needs capture(model, batch, score=...).")
    tokens = _tokens(captured, sample)
    read = (captured.token_gradient[tokens] * _apart(captured, tokens)).sum(-1).abs().double().cpu()
    flow = read / read.sum() if float(read.sum()) > 0 else torch.full_like(read, 1 / len(read))
    for index in reversed(range(len(captured.layers))):
        layer, brought = captured.layers[index], torch.zeros_like(flow)
        assert layer.gradient is not None and layer.v is not None
        heads, groups = layer.q.shape[1], layer.v.shape[1]
        values = layer.v[tokens].repeat_interleave(heads // groups, dim=1)
        for start, weights in _sample_pieces(captured, index, tokens):
            rows = slice(start, start + len(weights))
            gradient = torch.einsum("rhk,thk->rht", layer.gradient[tokens[rows]], values)
            raised = (gradient * weights).clamp(min=0).mean(1).double().cpu()
            total = raised.sum(1)
            brought += (flow[rows] / total.where(total > 0, torch.inf)) @ raised
            brought[rows] += flow[rows].where(total <= 0, 0.0)  # nothing heard raised the score
        flow = 0.5 * flow + 0.5 * brought
    return _importance("gradient rollout", captured, sample, tokens, flow)


def input_gradient(
    model: nn.Module,
    batch: TokenBatch,
    score: Score,
    *,
    at: Callable[[Tensor], Tensor] = Tensor.detach,
) -> tuple[Tensor, Tensor]:
    """What enters the stack, (T, D), and there the gradient of each token's own sample's score, (T, D).

    at: where the gradient is taken instead, as a function of what enters.
    """
    prefix = next(name for name, _ in model.named_modules() if ATTEND.search(name))
    stack = model.get_submodule(prefix[: prefix.rindex("blocks")].rstrip("."))
    entered: list[Tensor] = []

    def replaced(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs.get("start", args[3] if len(args) > 3 else 0):
            return None  # a continuation: its input already comes from the replaced one
        if not entered:
            entered.append(at(args[0].detach()).requires_grad_())
        return (entered[0], *args[1:]), kwargs

    training = model.training
    handle = stack.register_forward_pre_hook(replaced, with_kwargs=True)
    try:
        model.eval()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(score(model(batch)).sum(), entered)
    finally:
        handle.remove()
        model.train(training)
    return entered[0].detach(), gradient


def integrated_gradients(
    model: nn.Module, batch: TokenBatch, captured: Capture, score: Score, *, sample: int = 0, steps: int = 32
) -> Importance:
    """Integrated gradients on the embedded tokens, from their modality's mean token to what they are.

    The mean is over the batch: with only one sample in it, what is explained is why these tokens
    and not their own average. Zero would be no baseline: a stack that begins with a norm hardly
    sees the length of its input, and all change would hide in the last thousandth of the path.
    The signed values add up to score(input) - score(baseline), up to the error of `steps`
    midpoints.

    Source: Sundararajan et al. 2017, arXiv:1703.01365.
    """
    total = torch.zeros(())
    for step in range(steps):
        part = (step + 0.5) / steps

        def between(x: Tensor, part: float = part) -> Tensor:
            return torch.lerp(_modality_means(x, batch.layout), x, part)

        x, gradient = input_gradient(model, batch, score, at=between)
        # x less the mean is a `part` of the whole way
        total = total + (gradient * (x - _modality_means(x, batch.layout))).sum(-1) / (part * steps)
    return importance_of("integrated gradients", captured, sample, total)


def _modality_means(x: Tensor, layout: Layout) -> Tensor:
    """Each token replaced by the mean of its modality. (T, D) -> (T, D)"""
    return torch.cat([part.mean(0, keepdim=True).expand_as(part) for part in x.split(list(layout.counts))])


def _apart(captured: Capture, tokens: Tensor) -> Tensor:
    """The sample's last tokens, less the mean of their modality. (t, D); a token alone stays as it is."""
    states, modality = captured.output.tokens[tokens].clone(), captured.layout.modality[tokens]
    for m in modality.unique():
        here = modality == m
        if int(here.sum()) > 1:
            states[here] -= states[here].mean(0)
    return states


def _sample_pieces(captured: Capture, layer: int, tokens: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(index of the first row, (R, H, t) weights among the sample's tokens), piece by piece."""
    start = 0
    for piece, weights in captured.pieces(layer, tokens):
        yield start, weights[:, :, tokens]
        start += len(piece)


def _tokens(captured: Capture, sample: int) -> Tensor:
    tokens = captured.tokens_of(sample)
    if not len(tokens):
        raise ConfigError(f"explain: sample {sample} has no tokens, so nothing reached its answer.")
    return tokens


def importance_of(method: str, captured: Capture, sample: int, values: Tensor) -> Importance:
    """One sample's importance from a signed value a token of the whole batch, (T,)."""
    tokens = _tokens(captured, sample)
    return _importance(method, captured, sample, tokens, values.cpu()[tokens.cpu()].double())


def _importance(method: str, captured: Capture, sample: int, tokens: Tensor, signed: Tensor) -> Importance:
    spoke_for = signed.clamp(min=0)
    total = float(spoke_for.sum())
    value = spoke_for / total if total > 0 else torch.full_like(spoke_for, 1 / len(spoke_for))
    names = captured.layout.modalities
    return Importance(
        method=method,
        sample=sample,
        token=tokens.cpu().numpy(),
        modality=tuple(names[m] for m in captured.layout.modality[tokens].tolist()),
        labels=tuple(captured.label(int(i)) for i in tokens),
        value=value.numpy(),
        signed=signed.numpy(),
    )
