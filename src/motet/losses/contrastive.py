"""Alignment of two modalities: what belongs together lies close, what does not lies apart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from motet.losses.supervised import at_least_float


def contrastive_loss(
    a: Tensor,
    b: Tensor,
    temperature: Tensor | float,
    *,
    group: Tensor | None = None,
    both: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Symmetric multi-positive InfoNCE in nats, the mean over rows and both directions.

    a, b: (B, E) of unit length; row i of `a` belongs to row i of `b`. `temperature` divides the
    cosines. group: (B,) integers; rows of one group (>= 0) are positives of each other, and the loss
    of a row is the mean of its positives' log-probabilities. both: (B,) bool; only rows having both
    modalities take part. weight: (B,), how much a row counts as a query. Fewer than two rows: exactly 0.

    Source: Radford et al. 2021, figure 3, arXiv:2103.00020; several positives: L_out of Khosla et
    al. 2020, equation 2, arXiv:2004.11362.
    """
    with torch.autocast(a.device.type, enabled=False):
        scores = at_least_float(a) @ at_least_float(b).T / temperature  # (B, B)
        use, positive = _pairs(scores, group, both)
        share = _share(use, weight, scores)
        # A finite lowest number: rows and columns that take no part stay free of NaN.
        scores = scores.masked_fill(~(use[:, None] & use[None, :]), torch.finfo(scores.dtype).min)
        rows = 0.5 * (_positive_nll(scores, positive) + _positive_nll(scores.T, positive.T))
        loss = (rows * share).sum()
        return torch.where(use.sum() >= 2, loss, torch.zeros_like(loss))


def sigmoid_loss(
    a: Tensor,
    b: Tensor,
    temperature: Tensor | float,
    bias: Tensor | float,
    *,
    group: Tensor | None = None,
    both: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Every pair of rows is a yes/no question; the sum over the gallery, the mean over rows, in nats.

    Arguments as for `contrastive_loss`, both directions counted alike; the logit of a pair is
    cosine / temperature + bias.

    Source: Zhai et al. 2023, algorithm 1, arXiv:2303.15343.
    """
    with torch.autocast(a.device.type, enabled=False):
        scores = at_least_float(a) @ at_least_float(b).T / temperature + bias
        use, positive = _pairs(scores, group, both)
        share = _share(use, weight, scores)
        sign = torch.where(positive, 1.0, -1.0).to(scores.dtype)
        loss = -F.logsigmoid(sign * scores) * (use[:, None] & use[None, :])
        return 0.5 * ((loss.sum(1) + loss.sum(0)) * share).sum() * (use.sum() >= 2)


def _pairs(scores: Tensor, group: Tensor | None, both: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which rows take part (B,), and which pairs of them are positives (B, B)."""
    rows = len(scores)
    use = torch.ones(rows, dtype=torch.bool, device=scores.device) if both is None else both
    positive = torch.eye(rows, dtype=torch.bool, device=scores.device)
    if group is not None:
        positive = positive | ((group[:, None] == group[None, :]) & (group >= 0)[:, None])
    return use, positive & use[:, None] & use[None, :]


def _share(use: Tensor, weight: Tensor | None, scores: Tensor) -> Tensor:
    """Each row's part of the mean, (B,); they add up to 1 where any row counts."""
    share = use.to(scores.dtype) if weight is None else use * weight.to(scores.dtype)
    total = share.sum()
    return share / torch.where(total > 0, total, torch.ones_like(total))


def _positive_nll(scores: Tensor, positive: Tensor) -> Tensor:
    log_share = scores.log_softmax(dim=1).masked_fill(~positive, 0.0)
    return -log_share.sum(dim=1) / positive.sum(dim=1).clamp(min=1)
