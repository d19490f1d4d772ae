"""One AdamW a modality and one for what is shared; learning rates as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.train.distributed import like, sharded, whole

Groups = Mapping[str, list[tuple[str, nn.Parameter]]]
Schedule = Literal["cosine", "constant", "linear", "wsd"]
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class GroupConfig:
    """What one optimizer has of its own; where None, what is said for all.

    `clip` bounds the norm of its own gradient, 0 does not. `start`: the epoch with which it begins; before,
    its rate is 0, and its schedule runs over the epochs that are left.
    """

    lr: float | None = None
    weight_decay: float | None = None
    schedule: Schedule | None = None
    warmup: float | None = None
    decay: float | None = None
    floor: float | None = None
    clip: float = 0.0
    start: int = 0


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule.

    `warmup` and `decay` are shares of all steps; `decay` is the last part of "wsd" (warm-up,
    stable, decay). The rate ends at `floor` times `lr`. `groups` is keyed by modality or "shared"
    (and "<modality>.backbone", for a pretrained encoder in the model).
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    schedule: Schedule = "cosine"
    warmup: float = 0.05
    decay: float = 0.2
    floor: float = 0.01
    groups: dict[str, GroupConfig] = field(default_factory=dict)

    def of(self, name: str) -> OptimConfig:
        """The settings of one optimizer."""
        own = self.groups.get(name, GroupConfig())

        def chosen(mine: Any, common: Any) -> Any:
            return common if mine is None else mine

        return OptimConfig(
            lr=chosen(own.lr, self.lr),
            weight_decay=chosen(own.weight_decay, self.weight_decay),
            betas=self.betas,
            schedule=chosen(own.schedule, self.schedule),
            warmup=chosen(own.warmup, self.warmup),
            decay=chosen(own.decay, self.decay),
            floor=chosen(own.floor, self.floor),
        )


def rate(step: int, steps: int, config: OptimConfig) -> float:
    """What the learning rate is multiplied with at `step` (from 0) of `steps`; 0 before step 0."""
    if step < 0:
        return 0.0
    warm = max(1, round(config.warmup * steps)) if config.warmup > 0 else 0
    if step < warm:
        return (step + 1) / warm
    left = 1.0 - (step - warm) / max(1, steps - warm)  # from 1 to 0
    left = min(1.0, max(0.0, left))
    match config.schedule:
        case "constant":
            return 1.0
        case "linear":
            shape = left
        case "cosine":
            shape = 0.5 * (1.0 - math.cos(math.pi * left))
        case "wsd":
            shape = min(1.0, left * (steps - warm) / max(1.0, config.decay * steps))
    return config.floor + (1.0 - config.floor) * shape


class Optimizers:
    """An AdamW for each group of parameters: `each[name]`, by modality, or "shared".

    Vectors and scalars (norms, biases, temperatures) do not decay. Frozen parameters are left out, and so
    is a group without others.

    Raises:
        ConfigError: settings for a group that the model does not have, or nothing to train.
    """

    def __init__(self, groups: Groups, config: OptimConfig) -> None:
        unknown = sorted(set(config.groups) - set(groups))
        if unknown:
            raise ConfigError(
                f"train.groups.{unknown[0]}: no such parameter group. Groups here: "
                f"{', '.join(sorted(groups))}."
            )
        self.config = config
        self.names: dict[nn.Parameter, str] = {}
        self.each: dict[str, torch.optim.AdamW] = {}
        for name, members in groups.items():
            own = config.of(name)
            trained = [(key, p) for key, p in members if p.requires_grad]
            self.names.update({p: key for key, p in trained})
            parts: list[dict[str, Any]] = []
            kinds = ((True, own.weight_decay), (False, 0.0))
            for (matrices, decay), spread in product(kinds, (True, False)):  # never mixed in one update
                part = [p for _, p in trained if (p.ndim >= 2) == matrices and sharded(p) == spread]
                parts += [{"params": part, "weight_decay": decay}] if part else []
            if parts:
                self.each[name] = torch.optim.AdamW(parts, lr=own.lr, betas=own.betas, fused=True)
        if not self.each:
            raise ConfigError("The model has no parameter to train: everything in it is frozen.")

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.names)

    def of(self, name: str) -> list[nn.Parameter]:
        """The parameters of one group."""
        return [p for group in self.each[name].param_groups for p in group["params"]]

    def set_rates(
        self, step: int, steps: int, *, epoch: int = 1, brakes: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Set every rate to that of `step` (from 0) of `steps`, times its brake; returns them by name.

        epoch: how many steps one has.
        """
        rates = {}
        for name, optimizer in self.each.items():
            own = self.config.of(name)
            late = self.config.groups.get(name, GroupConfig()).start * epoch
            rates[name] = own.lr * rate(step - late, steps - late, own) * (brakes or {}).get(name, 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rates[name]
        return rates

    def clip(self, limit: float, norm: Tensor) -> None:
        """Scale the gradients of groups down to their own limits, and all so that their norm, now `norm`, is
        at most `limit` (0: not)."""
        if limit > 0:
            clip(self.parameters, limit, norm)
        for name in self.each:
            own = self.config.groups.get(name, GroupConfig()).clip
            if own > 0:
                clip(self.of(name), own, total_norm(self.of(name)))

    def step(self) -> None:
        for optimizer in self.each.values():
            optimizer.step()

    def clear(self) -> None:
        for optimizer in self.each.values():
            optimizer.zero_grad(set_to_none=True)

    def norms(self) -> dict[str, float]:
        """L2 norm of the gradients of each named group."""
        return {name: float(total_norm(self.of(name))) for name in self.each}

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, named "<group>/<parameter>/<moment>"."""
        return {
            f"{name}/{self.names[p]}/{moment}": value
            for name, optimizer, p in self._all()
            for moment, value in optimizer.state[p].items()
            if moment in _MOMENTS
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `tensors` gave, bit for bit."""
        for name, optimizer, p in self._all():
            key = f"{name}/{self.names[p]}"
            found = {m: tensors[f"{key}/{m}"] for m in _MOMENTS if f"{key}/{m}" in tensors}
            if found:
                optimizer.state[p] = {
                    m: t.clone() if m == "step" else like(t, p.detach()).clone() for m, t in found.items()
                }

    def _all(self) -> Iterable[tuple[str, torch.optim.AdamW, nn.Parameter]]:
        for name, optimizer in self.each.items():
            for p in self.of(name):
                yield name, optimizer, p


def total_norm(parameters: Sequence[Tensor]) -> Tensor:
    """L2 norm of all gradients, of sharded ones over all ranks."""
    plain, shards = _gradients(parameters)
    norm = torch.nn.utils.get_total_norm(plain)
    return torch.hypot(norm, whole(torch.nn.utils.get_total_norm(shards))) if shards else norm


def clip(parameters: Sequence[Tensor], limit: float, norm: Tensor) -> None:
    """Scale the gradients down so that their norm, now `norm`, is at most `limit`."""
    factor = float(limit / (norm + 1e-6))
    if factor < 1:
        scale(parameters, factor)


def scale(parameters: Sequence[Tensor], factor: float) -> None:
    """Multiply the gradients."""
    for found in _gradients(parameters):
        if found:
            torch._foreach_mul_(found, factor)


def _gradients(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The plain gradients and the sharded ones."""
    found = [p.grad for p in parameters if p.grad is not None]
    return [g for g in found if not sharded(g)], [g for g in found if sharded(g)]
