"""Losses against targets: classes, several labels at once, numbers, and hidden features.

The mean of each is over known targets, weighted by `weight` (B,), how much a sample counts. Nothing
known: exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE = -100


def classification_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Cross-entropy in nats, the (class-weighted) mean over the rows whose target is not -100.

    logits: (B, C); target: (B,) int64; class_weights: (C,). Equals `F.cross_entropy`, but is 0 instead
    of NaN where every target is missing. `focal` is the exponent with which rows that the model is
    sure and right of lose weight: (1 - p)**focal, 0 for none.

    Source: Lin et al. 2017, equation 5, arXiv:1708.02002.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float(logits)
        known = target != IGNORE
        weights = None if class_weights is None else class_weights.to(logits)
        rows = F.cross_entropy(
            logits,
            target,
            weight=weights,
            ignore_index=IGNORE,
            label_smoothing=label_smoothing,
            reduction="none",
        )
        if focal > 0:
            right = logits.softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
            rows = rows * _ease(right, focal)
        share = _counts(known, weight, logits)
        total = share if weights is None else share * weights[target.clamp(min=0)]
        return _ratio((rows * share).sum(), total.sum())


def multilabel_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal: float = 0.0,
    weight: Tensor | None = None,
) -> Tensor:
    """Binary cross-entropy in nats, the mean over the entries of `target` that are not NaN.

    logits: (B, C), one yes/no question a class; target: (B, C) of 0 and 1. class_weights: (C,)
    multiplies the loss where the answer is yes, as rare labels need. `label_smoothing` moves targets
    towards one half; `focal` as for `classification_loss`.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = at_least_float(logits)
        known = ~target.isnan()
        yes = torch.where(known, target.to(logits.dtype), 0.5)
        smooth = yes * (1 - label_smoothing) + 0.5 * label_smoothing
        scale = None if class_weights is None else class_weights.to(logits)
        entries = F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=scale, reduction="none")
        if focal > 0:
            entries = entries * _ease(torch.where(yes > 0.5, logits, -logits).sigmoid(), focal)
        share = _counts(known, None if weight is None else weight[:, None], logits)
        return _ratio((entries * share).sum(), share.sum())


def regression_loss(
    prediction: Tensor,
    target: Tensor,
    *,
    kind: Literal["mse", "l1", "huber"] = "mse",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """The mean over the rows whose target is a number (not NaN).

    prediction, target: (B,), in the same unit; `delta` is where Huber's loss turns linear.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        prediction = at_least_float(prediction)
        known = ~target.isnan()
        target = torch.where(known, target.to(prediction.dtype), prediction.detach())
        match kind:
            case "mse":
                rows = F.mse_loss(prediction, target, reduction="none")
            case "l1":
                rows = F.l1_loss(prediction, target, reduction="none")
            case "huber":
                rows = F.huber_loss(prediction, target, delta=delta, reduction="none")
        share = _counts(known, weight, prediction)
        return _ratio((rows * share).sum(), share.sum())


def guess_loss(guess: Tensor, target: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """1 - cosine of guessed and true features, the mean over the rows of `target` without NaN.

    guess, target: (B, size).
    """
    with torch.autocast(guess.device.type, enabled=False):
        guess = at_least_float(guess)
        known = ~target.isnan().any(1)
        target = torch.where(known[:, None], target.to(guess.dtype), torch.ones_like(guess))
        share = _counts(known, weight, guess)
        return _ratio(((1 - F.cosine_similarity(guess, target, dim=1)) * share).sum(), share.sum())


def balanced_class_weights(counts: Mapping[int, int] | list[int]) -> tuple[float, ...]:
    """Weights inverse to the classes' counts, with mean 1 over the training rows; unseen classes get 0."""
    values = [counts[index] for index in range(len(counts))]
    seen = sum(1 for value in values if value)
    return tuple(sum(values) / (seen * value) if value else 0.0 for value in values)


def at_least_float(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _ease(right: Tensor, focal: float) -> Tensor:
    """(1 - p)**focal; the floor keeps its gradient finite at p = 1 for exponents below 1."""
    return (1 - right).clamp(min=torch.finfo(right.dtype).tiny) ** focal


def _counts(known: Tensor, weight: Tensor | None, like: Tensor) -> Tensor:
    share = known.to(like.dtype)
    return share if weight is None else share * weight.to(like.dtype)


def _ratio(total: Tensor, share: Tensor) -> Tensor:
    return total / torch.where(share > 0, share, torch.ones_like(share))
