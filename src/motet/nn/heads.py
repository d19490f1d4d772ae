"""From states to answers: pooling one modality, the shared embedding space, and task predictions."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motet.nn.segments import segment_mean, segment_softmax, segment_sum


class SequencePool(nn.Module):
    """One vector a sample from the tokens of one modality; zeros for a sample without any.

    "attention": one learned query a head weighs the tokens (Lee et al. 2019, arXiv:1810.00825); the
    queries start at zero, so that training starts from "mean".
    """

    def __init__(
        self, width: int, *, heads: int = 4, kind: Literal["attention", "mean"] = "attention"
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, heads, bias=False) if kind == "attention" else None
        if self.score is not None:
            nn.init.zeros_(self.score.weight)

    def forward(self, x: Tensor, sample: Tensor, samples: int) -> Tensor:  # (n, D), (n,) -> (B, D)
        x = self.norm(x)
        if self.score is None:
            return segment_mean(x, sample, samples)
        share = segment_softmax(self.score(x), sample, samples)  # (n, H)
        weighed = share[..., None] * x.unflatten(-1, (share.shape[1], -1))  # (n, H, D/H)
        return segment_sum(weighed.flatten(1), sample, samples)


class EmbeddingHead(nn.Module):
    """A modality's pooled states to the shared space, rows of unit length.

    With `direct`, features of a pretrained encoder also reach the space by one linear map of their
    mean over the tokens, and the states' part is added through a gate that starts small. In training
    that part is left out for a share `dropout` of the rows: on few rows the linear map generalises
    better than anything deeper, and it must not come to lean on what the states have learned by heart.

    Source of leaving it out: stochastic depth, Huang et al. 2016, arXiv:1603.09382.
    """

    def __init__(
        self, width: int, embedding: int, *, direct: int | None = None, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.project = nn.Linear(width, embedding)
        self.dropout = nn.Dropout(dropout)
        self.norm = None if direct is None else nn.LayerNorm(direct)
        self.direct = None if direct is None else nn.Linear(direct, embedding)
        self.gate = None if direct is None else nn.Parameter(torch.tensor(0.1))

    def forward(self, pooled: Tensor, features: Tensor | None, present: Tensor) -> Tensor:
        """pooled (B, D), features (B, direct) or None, present (B,) bool -> (B, E); absent rows are zero."""
        return self.each(pooled, features) * present[:, None]

    def each(self, states: Tensor, features: Tensor | None) -> Tensor:
        """Every row by itself: states (n, D), features (n, direct) or None -> (n, E) of unit length."""
        y = self.project(self.dropout(states))
        if self.direct is not None and self.norm is not None and features is not None:
            if self.training:
                y = y * (torch.rand(len(y), 1, device=y.device) < 1.0 - self.dropout.p)
            y = self.gate * y + self.direct(self.dropout(self.norm(features)))
        # Half precision would spoil the length.
        return F.normalize(y if y.dtype == torch.float64 else y.float(), dim=-1)


class TaskHead(nn.Module):
    """One vector a sample to one task's logits (B, classes) or, with `outputs=1`, numbers (B,).

    A number is `mean + std * output`, so that the layer works in units of the task's spread.
    """

    def __init__(
        self, width: int, outputs: int, *, dropout: float = 0.1, mean: float = 0.0, std: float = 1.0
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, outputs)
        self.outputs, self.mean, self.std = outputs, mean, std

    def forward(self, x: Tensor) -> Tensor:
        y = self.out(self.dropout(self.norm(x)))
        return self.mean + self.std * y.squeeze(-1) if self.outputs == 1 else y


class OrdinalHead(nn.Module):
    """One vector a sample to log-probabilities (B, C) of classes that have an order, lowest first.

    One number a sample is compared with C - 1 rising thresholds: P(class <= k) is the sigmoid of
    threshold k minus the number. Cross-entropy of the result is the model's negative log-likelihood,
    and everything that reads logits can read it.

    Source: the proportional odds model, McCullagh 1980, "Regression Models for Ordinal Data".
    """

    def __init__(self, width: int, classes: int, *, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(width, 1, bias=False)
        even = torch.arange(1, classes) / classes  # thresholds that give every class the same share
        start = torch.logit(even)
        self.first = nn.Parameter(start[:1].clone())
        self.gaps = nn.Parameter(torch.expm1(start.diff()).log())  # softplus of these are the gaps

    def forward(self, x: Tensor) -> Tensor:
        number = self.out(self.dropout(self.norm(x)))  # (B, 1)
        number = number if number.dtype == torch.float64 else number.float()
        gaps = F.softplus(self.gaps)
        above = torch.cat([self.first, self.first + gaps.cumsum(0)]) - number  # (B, C - 1)
        # log(sigmoid(a) - sigmoid(b)) = logsigmoid(a) + logsigmoid(-b) + log(1 - exp(b - a))
        upper = F.pad(F.logsigmoid(above), (0, 1))
        lower = F.pad(F.logsigmoid(-above), (1, 0))
        return upper + lower + F.pad(torch.log(-torch.expm1(-gaps)), (1, 1))
