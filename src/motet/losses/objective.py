"""The loss of one model: every part that its config and its batch give, weighted and added up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from motet.errors import ConfigError
from motet.losses.contrastive import contrastive_loss, sigmoid_loss
from motet.losses.supervised import (
    IGNORE,
    classification_loss,
    guess_loss,
    multilabel_loss,
    regression_loss,
)
from motet.model import MotetConfig, TaskSpec
from motet.types import Output, TokenBatch

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 1.0  # 0.01: the clamp of Radford et al. 2021
WIDEST_LOG_VARIANCE = 5.0  # a part that is learned by heart would otherwise drown the others


@dataclass(frozen=True)
class LossConfig:
    """Which losses, and how they are mixed.

    `weights` multiplies parts by name: "contrastive", a task's name, "late" (all per-modality heads),
    "late/<modality>" (those of one), "hidden" (guessed features of dropped modalities); 1 where not given,
    0.5 for "late". `late_regression[modality]` is what its own head learns numbers by, if not `regression`.
    `class_weights[task]` has one number a class. `focal` is the exponent of the focal loss, 2 is
    usual, 0 for plain cross-entropy. `balance="uncertainty"` learns on top of the weights how much
    each part counts (Kendall et al. 2018, arXiv:1705.07115); the loss can then be below 0.
    """

    contrastive: Literal["infonce", "sigmoid"] = "infonce"
    temperature: float = 0.07
    learn_temperature: bool = True
    multi_positive: bool = True
    label_smoothing: float = 0.0
    focal: float = 0.0
    class_weights: dict[str, tuple[float, ...]] = field(default_factory=dict)
    regression: Literal["mse", "l1", "huber"] = "huber"
    late_regression: dict[str, Literal["mse", "l1", "huber"]] = field(default_factory=dict)
    huber_delta: float = 1.0
    weights: dict[str, float] = field(default_factory=dict)
    balance: Literal["fixed", "uncertainty"] = "fixed"
    matryoshka: tuple[int, ...] = ()


class Objective(nn.Module):
    """The loss of one model: its parts, their weights, and the temperatures it learns.

    One temperature (and bias, for the sigmoid loss) for every pair of modalities. The means run over
    the rows it is given: for the loss of a batch in pieces, give it all rows at once.
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
        self.only = ""
        self.terms = ("contrastive", *(task.name for task in self.tasks), "late", "hidden")
        if config.balance == "uncertainty":
            self.log_variance = nn.Parameter(torch.zeros(len(self.terms)))
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
        a task's name, "late/modality/task", "hidden", "hidden/modality". Beside them "alone/modality/task":
        the mean share that a modality's own head gives to the right class."""
        if self.training:  # the parameters themselves: a clamp in the graph leaves them no gradient outside
            self._clamp()
        parts: dict[str, Tensor] = {}
        total = output.present.new_zeros((), dtype=torch.float32)
        if self.pairs:
            total = total + self._weighted("contrastive", self._contrastive(output, batch, parts))
        for task in self.tasks:
            if task.name in batch.targets:
                target, weight = batch.targets[task.name], batch.weight
                parts[task.name] = self._task(task, output.predictions[task.name], target, weight)
                total = total + self._weighted(task.name, parts[task.name])
        late = self._late(output, batch, parts)
        if late is not None:
            total = total + self._weighted("late", late, 0.5)
        hidden = self._hidden(output, batch, parts)
        if hidden is not None:
            total = total + self._weighted("hidden", hidden)
        return total, {name: part.detach() for name, part in parts.items()}

    @torch.no_grad()
    def _clamp(self) -> None:
        self.log_temperature.clamp_(math.log(LOWEST_TEMPERATURE), math.log(HIGHEST_TEMPERATURE))
        if self.config.balance == "uncertainty":
            self.log_variance.clamp_(-WIDEST_LOG_VARIANCE, WIDEST_LOG_VARIANCE)

    def _weighted(self, term: str, value: Tensor, default: float = 1.0) -> Tensor:
        """What a part adds to the sum; a part without any known target adds nothing and learns nothing.

        `self.only` names the one part that counts for now, as in pre-training.
        """
        weight = self.config.weights.get(term, default) if self.only in ("", term) else 0.0
        if self.config.balance == "fixed":
            return weight * value
        log_variance = self.log_variance[self.terms.index(term)]
        numbers = any(task.name == term and task.kind == "number" for task in self.tasks)
        scale = 0.5 if numbers and self.config.regression == "mse" else 1.0  # the Gaussian's half
        known = (value.detach() > 0).to(log_variance.dtype)
        return weight * (scale * (-log_variance).exp() * value + 0.5 * log_variance * known)

    def _contrastive(self, output: Output, batch: TokenBatch, parts: dict[str, Tensor]) -> Tensor:
        """The mean over the pairs of modalities that at least two samples have."""
        group = batch.group if self.config.multi_positive else None
        losses, active = [], []
        for index, (first, second) in enumerate(self.pairs):
            a, b = output.embeddings[first], output.embeddings[second]
            both = output.present[:, self.columns[first]] & output.present[:, self.columns[second]]
            loss = self._pair(index, a, b, group, both, batch.weight)
            parts[f"contrastive/{first}-{second}"] = loss
            losses.append(loss)
            active.append(both.sum() >= 2)
        parts["contrastive"] = torch.stack(losses).sum() / torch.stack(active).sum().clamp(min=1)
        return parts["contrastive"]

    def _pair(
        self, index: int, a: Tensor, b: Tensor, group: Tensor | None, both: Tensor, weight: Tensor | None
    ) -> Tensor:
        """The loss of one pair of modalities, a and b (B, E): the mean over the prefixes that are to work."""
        heat, losses = self.temperature[index], []
        for dims in (*self.config.matryoshka, a.shape[1]):
            x, y = (a, b) if dims == a.shape[1] else (normalize(v[:, :dims], dim=1) for v in (a, b))
            if self.config.contrastive == "sigmoid":
                bias = self.bias[index]
                losses.append(sigmoid_loss(x, y, heat, bias, group=group, both=both, weight=weight))
            else:
                losses.append(contrastive_loss(x, y, heat, group=group, both=both, weight=weight))
        return torch.stack(losses).mean()

    def _task(
        self,
        task: TaskSpec,
        prediction: Tensor,
        target: Tensor,
        weight: Tensor | None,
        regression: Literal["mse", "l1", "huber"] | None = None,
    ) -> Tensor:
        config = self.config
        weights = getattr(self, f"class_weights_{self.tasks.index(task)}")
        smoothing, focal = config.label_smoothing, config.focal
        match task.kind:
            case "classes":
                return classification_loss(
                    prediction,
                    target,
                    class_weights=weights,
                    label_smoothing=smoothing,
                    focal=focal,
                    weight=weight,
                )
            case "multilabel":
                return multilabel_loss(
                    prediction,
                    target,
                    class_weights=weights,
                    label_smoothing=smoothing,
                    focal=focal,
                    weight=weight,
                )
            case "number":
                # In units of the task's spread, so that one weight suits ratings and prices alike.
                prediction, target = (prediction - task.mean) / task.std, (target - task.mean) / task.std
                kind = regression or config.regression
                return regression_loss(prediction, target, kind=kind, delta=config.huber_delta, weight=weight)

    def _late(self, output: Output, batch: TokenBatch, parts: dict[str, Tensor]) -> Tensor | None:
        """The weighted mean over the heads of single modalities; samples without one take no part."""
        losses = []
        for modality, predictions in output.modality_predictions.items():
            present = output.present[:, self.columns[modality]]
            for task in self.tasks:
                if task.name not in batch.targets:
                    continue
                target = _only(present, batch.targets[task.name])
                regression = self.config.late_regression.get(modality)
                part = self._task(task, predictions[task.name], target, batch.weight, regression)
                parts[f"late/{modality}/{task.name}"] = part
                losses.append(part * self.config.weights.get(f"late/{modality}", 1.0))
                if task.kind == "classes" and bool((target != IGNORE).any()):
                    parts[f"alone/{modality}/{task.name}"] = _right(predictions[task.name], target)
        return torch.stack(losses).mean() if losses else None

    def _hidden(self, output: Output, batch: TokenBatch, parts: dict[str, Tensor]) -> Tensor | None:
        """The mean over the modalities whose dropped features are guessed from the others."""
        losses = []
        for modality, guess in output.guesses.items():
            target = batch.targets.get(f"hidden/{modality}")
            if target is not None:
                target = _only(output.present.any(1), target)  # nothing left to guess from: no question
                parts[f"hidden/{modality}"] = guess_loss(guess, target, weight=batch.weight)
                losses.append(parts[f"hidden/{modality}"])
        if losses:
            parts["hidden"] = torch.stack(losses).mean()
        return parts.get("hidden")


def _only(rows: Tensor, target: Tensor) -> Tensor:
    """The targets of `rows` (B,), the others missing."""
    missing = math.nan if target.is_floating_point() else IGNORE
    return target.masked_fill(~rows.view(-1, *[1] * (target.dim() - 1)), missing)


@torch.no_grad()
def _right(logits: Tensor, target: Tensor) -> Tensor:
    """The mean share of the right class over the rows that have one."""
    share = logits.float().softmax(1).gather(1, target.clamp(min=0)[:, None])[:, 0]
    return share[target != IGNORE].mean()


def _check(config: LossConfig, model: MotetConfig) -> None:
    tasks = {task.name: task for task in model.tasks}
    alone = [spec.name for spec in model.modalities] if model.late_heads else []
    known = {"contrastive", "late", "hidden", *tasks, *(f"late/{m}" for m in alone)}
    for name in ("late", *(f"late/{m}" for m in alone)) if alone else ():
        if config.weights.get(name, 1.0) == 0:
            raise ConfigError(
                f"loss.weights: {name!r} is 0, but that head answers for samples with its modality only, and "
                "would have learned nothing. Give a weight above 0, or --set model.late_heads=false."
            )
    for name in config.late_regression:
        if name not in alone:
            raise ConfigError(
                f"loss.late_regression: {name!r} has no head of its own. "
                f"{'Modalities: ' + ', '.join(alone) if alone else 'Give --set model.late_heads=true.'}"
            )
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
    wrong = [d for d in config.matryoshka if not 1 <= d < model.embedding]
    if wrong or len(set(config.matryoshka)) < len(config.matryoshka):
        raise ConfigError(
            f"loss.matryoshka: {list(config.matryoshka)} must be different numbers of first dimensions, 1 "
            f"to less than model.embedding={model.embedding}, such as [16, 32, 64]."
        )
    if not LOWEST_TEMPERATURE <= config.temperature <= HIGHEST_TEMPERATURE:
        raise ConfigError(
            f"loss.temperature: {config.temperature} is not within "
            f"{LOWEST_TEMPERATURE} and {HIGHEST_TEMPERATURE}; 0.07 is usual."
        )
    if config.focal < 0 or not 0 <= config.label_smoothing < 1:
        raise ConfigError(
            f"loss.focal {config.focal} must be at least 0 and loss.label_smoothing "
            f"{config.label_smoothing} from 0 to below 1."
        )
