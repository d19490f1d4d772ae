"""What a model is trained on: contrastive, classification and regression losses, masked where data miss.

All of them are computed in float32 at least, also under autocast, and give exactly 0 with zero
gradients where nothing is present.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motet.errors import ConfigError
from motet.model import MotetConfig, TaskSpec
from motet.types import Output, TokenBatch

IGNORE = -100
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 1.0  # 0.01: the clamp of Radford et al. 2021


@dataclass(frozen=True)
class LossConfig:
    """Which losses, and how they are mixed.

    `weights` multiplies parts by name: "contrastive", a task's name, or "late" (all per-modality
    heads); 1 where not given, 0.5 for "late". `class_weights[task]` has one number a class.
    """

    contrastive: Literal["infonce", "sigmoid"] = "infonce"
    temperature: float = 0.07
    learn_temperature: bool = True
    multi_positive: bool = True
    label_smoothing: float = 0.0
    class_weights: dict[str, tuple[float, ...]] = field(default_factory=dict)
    regression: Literal["mse", "l1", "huber"] = "huber"
    huber_delta: float = 1.0
    weights: dict[str, float] = field(default_factory=dict)


def contrastive_loss(
    a: Tensor,
    b: Tensor,
    temperature: Tensor | float,
    *,
    group: Tensor | None = None,
    both: Tensor | None = None,
) -> Tensor:
    """Symmetric multi-positive InfoNCE in nats, the mean over rows and both directions.

    a, b: (B, E) of unit length; row i of `a` belongs to row i of `b`. `temperature` divides the
    cosines. group: (B,) integers; rows of one group (>= 0) are positives of each other, and the loss
    of a row is the mean of its positives' log-probabilities. both: (B,) bool; only rows having both
    modalities take part. Fewer than two of them: exactly 0.

    Source: Radford et al. 2021, figure 3, arXiv:2103.00020; several positives: L_out of Khosla et
    al. 2020, equation 2, arXiv:2004.11362.
    """
    with torch.autocast(a.device.type, enabled=False):
        scores = _full(a) @ _full(b).T / temperature  # (B, B)
        use, positive = _pairs(scores, group, both)
        # A finite lowest number: rows and columns that take no part stay free of NaN.
        scores = scores.masked_fill(~(use[:, None] & use[None, :]), torch.finfo(scores.dtype).min)
        loss = 0.5 * (
            _mean_positive_nll(scores, positive, use) + _mean_positive_nll(scores.T, positive.T, use)
        )
        return torch.where(use.sum() >= 2, loss, torch.zeros_like(loss))


def sigmoid_loss(
    a: Tensor,
    b: Tensor,
    temperature: Tensor | float,
    bias: Tensor | float,
    *,
    group: Tensor | None = None,
    both: Tensor | None = None,
) -> Tensor:
    """Every pair of rows is a yes/no question; the sum over the gallery, the mean over rows, in nats.

    Arguments as for `contrastive_loss`; the logit of a pair is cosine / temperature + bias.

    Source: Zhai et al. 2023, algorithm 1, arXiv:2303.15343.
    """
    with torch.autocast(a.device.type, enabled=False):
        scores = _full(a) @ _full(b).T / temperature + bias
        use, positive = _pairs(scores, group, both)
        sign = torch.where(positive, 1.0, -1.0).to(scores.dtype)
        loss = -F.logsigmoid(sign * scores) * (use[:, None] & use[None, :])
        count = use.sum()
        return loss.sum() / count.clamp(min=1) * (count >= 2)


def classification_loss(
    logits: Tensor, target: Tensor, *, class_weights: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy in nats, the (class-weighted) mean over the rows whose target is not -100.

    logits: (B, C); target: (B,) int64; class_weights: (C,). Equals `F.cross_entropy`, but is 0 instead
    of NaN where every target is missing.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = _full(logits)
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
        share = known.to(logits.dtype)
        if weights is not None:
            share = share * weights[target.clamp(min=0)]
        total = share.sum()
        return rows.sum() / torch.where(total > 0, total, torch.ones_like(total))


def regression_loss(
    prediction: Tensor, target: Tensor, *, kind: Literal["mse", "l1", "huber"] = "mse", delta: float = 1.0
) -> Tensor:
    """The mean over the rows whose target is a number (not NaN); 0 where there is none.

    prediction, target: (B,), in the same unit; `delta` is where Huber's loss turns linear.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        prediction = _full(prediction)
        known = ~target.isnan()
        target = torch.where(known, target.to(prediction.dtype), prediction.detach())
        match kind:
            case "mse":
                rows = F.mse_loss(prediction, target, reduction="none")
            case "l1":
                rows = F.l1_loss(prediction, target, reduction="none")
            case "huber":
                rows = F.huber_loss(prediction, target, delta=delta, reduction="none")
        return (rows * known).sum() / known.sum().clamp(min=1)


class Objective(nn.Module):
    """The loss of one model: its parts, their weights, and the temperatures it learns.

    One temperature (and bias, for the sigmoid loss) for every pair of modalities.
    """

    def __init__(self, config: LossConfig, model: MotetConfig) -> None:
        super().__init__()
        self.config = config
        self.tasks = model.tasks
        names = [spec.name for spec in model.modalities]
        self.columns = {name: column for column, name in enumerate(names)}
        self.pairs = list(combinations(names, 2)) if model.contrastive else []
        _check(config, model)
        start = torch.full((len(self.pairs),), math.log(config.temperature))
        self.log_temperature = nn.Parameter(start, requires_grad=config.learn_temperature)
        if config.contrastive == "sigmoid":
            self.bias = nn.Parameter(torch.full((len(self.pairs),), -10.0))
        for task in self.tasks:
            weights = config.class_weights.get(task.name)
            value = None if weights is None else torch.tensor(weights)
            self.register_buffer(f"class_weights_{self.tasks.index(task)}", value, persistent=False)

    @property
    def temperature(self) -> Tensor:
        """(pairs,)"""
        return self.log_temperature.exp()

    def forward(self, output: Output, batch: TokenBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and every part unweighted and detached: "contrastive", "contrastive/a-b",
        a task's name, "late/modality/task"."""
        if (
            self.training
        ):  # the parameter itself: a clamp in the graph would leave it without gradient outside
            with torch.no_grad():
                self.log_temperature.clamp_(math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
        parts: dict[str, Tensor] = {}
        total = output.fused.new_zeros((), dtype=torch.float32)
        if self.pairs:
            total = total + self._weight("contrastive") * self._contrastive(output, batch, parts)
        for task in self.tasks:
            part = self._task(task, output.predictions[task.name], batch.targets)
            if part is None:
                continue
            parts[task.name] = part
            total = total + self._weight(task.name) * part
        late = self._late(output, batch, parts)
        if late is not None:
            total = total + self._weight("late", 0.5) * late
        return total, {name: part.detach() for name, part in parts.items()}

    def _weight(self, part: str, default: float = 1.0) -> float:
        return self.config.weights.get(part, default)

    def _contrastive(self, output: Output, batch: TokenBatch, parts: dict[str, Tensor]) -> Tensor:
        """The mean over the pairs of modalities that at least two samples have."""
        group = batch.group if self.config.multi_positive else None
        losses, active = [], []
        for index, (first, second) in enumerate(self.pairs):
            a, b = output.embeddings[first], output.embeddings[second]
            both = output.present[:, self.columns[first]] & output.present[:, self.columns[second]]
            heat = self.temperature[index]
            if self.config.contrastive == "sigmoid":
                loss = sigmoid_loss(a, b, heat, self.bias[index], group=group, both=both)
            else:
                loss = contrastive_loss(a, b, heat, group=group, both=both)
            parts[f"contrastive/{first}-{second}"] = loss
            losses.append(loss)
            active.append(both.sum() >= 2)
        parts["contrastive"] = torch.stack(losses).sum() / torch.stack(active).sum().clamp(min=1)
        return parts["contrastive"]

    def _task(
        self, task: TaskSpec, prediction: Tensor, targets: Mapping[str, Tensor], use: Tensor | None = None
    ) -> Tensor | None:
        if task.name not in targets:
            return None
        target = targets[task.name]
        if task.kind == "classes":
            weights = getattr(self, f"class_weights_{self.tasks.index(task)}")
            if use is not None:
                target = target.masked_fill(~use, IGNORE)
            return classification_loss(
                prediction, target, class_weights=weights, label_smoothing=self.config.label_smoothing
            )
        if use is not None:
            target = target.masked_fill(~use, math.nan)
        # In units of the task's spread, so that one weight suits ratings and prices alike.
        prediction, target = (prediction - task.mean) / task.std, (target - task.mean) / task.std
        return regression_loss(prediction, target, kind=self.config.regression, delta=self.config.huber_delta)

    def _late(self, output: Output, batch: TokenBatch, parts: dict[str, Tensor]) -> Tensor | None:
        """The mean over the heads of single modalities; samples without the modality take no part."""
        losses = []
        for modality, predictions in output.modality_predictions.items():
            present = output.present[:, self.columns[modality]]
            for task in self.tasks:
                part = self._task(task, predictions[task.name], batch.targets, present)
                if part is not None:
                    parts[f"late/{modality}/{task.name}"] = part
                    losses.append(part)
        return torch.stack(losses).mean() if losses else None


def balanced_class_weights(counts: Mapping[int, int] | list[int]) -> tuple[float, ...]:
    """Weights inverse to the classes' counts, with mean 1 over the training rows; unseen classes get 0."""
    values = [counts[index] for index in range(len(counts))]
    seen = sum(1 for value in values if value)
    return tuple(sum(values) / (seen * value) if value else 0.0 for value in values)


def _check(config: LossConfig, model: MotetConfig) -> None:
    tasks = {task.name: task for task in model.tasks}
    known = {"contrastive", "late", *tasks}
    for name in config.weights:
        if name not in known:
            raise ConfigError(
                f"loss.weights: {name!r} is no part of this loss. Parts: {', '.join(sorted(known))}."
            )
    for name, weights in config.class_weights.items():
        if name not in tasks or len(weights) != len(tasks[name].classes):
            raise ConfigError(
                f"loss.class_weights: {name!r} needs to be a task, with one weight for each class."
            )
    if not LOWEST_TEMPERATURE <= config.temperature <= HIGHEST_TEMPERATURE:
        raise ConfigError(
            f"loss.temperature: {config.temperature} is not within "
            f"{LOWEST_TEMPERATURE} and {HIGHEST_TEMPERATURE}; 0.07 is usual."
        )


def _full(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _pairs(scores: Tensor, group: Tensor | None, both: Tensor | None) -> tuple[Tensor, Tensor]:
    """Which rows take part (B,), and which pairs of them are positives (B, B)."""
    rows = len(scores)
    use = torch.ones(rows, dtype=torch.bool, device=scores.device) if both is None else both
    positive = torch.eye(rows, dtype=torch.bool, device=scores.device)
    if group is not None:
        positive = positive | ((group[:, None] == group[None, :]) & (group >= 0)[:, None])
    return use, positive & use[:, None] & use[None, :]


def _mean_positive_nll(scores: Tensor, positive: Tensor, use: Tensor) -> Tensor:
    log_share = scores.log_softmax(dim=1).masked_fill(~positive, 0.0)
    rows = -log_share.sum(dim=1) / positive.sum(dim=1).clamp(min=1)
    return rows.sum() / use.sum().clamp(min=1)
