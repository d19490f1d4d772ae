"""AdamW with groups named by modality, and learning-rate schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Literal

import torch
from torch import Tensor, nn

from motet.errors import ConfigError
from motet.train.distributed import like, sharded, whole

Groups = Mapping[str, list[tuple[str, nn.Parameter]]]
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class GroupConfig:
    """One modality's (or "shared") own settings: its rate is `lr` times the common one."""

    lr: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class OptimConfig:
    """AdamW and its schedule.

    `warmup` and `decay` are shares of all steps; `decay` is the last part of "wsd" (warm-up,
    stable, decay). The rate ends at `floor` times `lr`. `groups` is keyed by modality or "shared".
    """

    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    schedule: Literal["cosine", "constant", "linear", "wsd"] = "cosine"
    warmup: float = 0.05
    decay: float = 0.2
    floor: float = 0.01
    groups: dict[str, GroupConfig] = field(default_factory=dict)


def rate(step: int, steps: int, config: OptimConfig) -> float:
    """What the learning rate is multiplied with at `step` (from 0) of `steps`."""
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


def make_optimizer(groups: Groups, config: OptimConfig) -> torch.optim.AdamW:
    """One AdamW over all groups; vectors and scalars (norms, biases, temperatures) do not decay.

    Each parameter group carries `name` (the modality or "shared"), `base_lr`, and `parameters`,
    the names in order. Frozen parameters are left out.

    Raises:
        ConfigError: settings for a group that the model does not have.
    """
    unknown = sorted(set(config.groups) - set(groups))
    if unknown:
        raise ConfigError(
            f"train.groups.{unknown[0]}: no such parameter group. Groups here: {', '.join(sorted(groups))}."
        )
    made = []
    for name, members in groups.items():
        own = config.groups.get(name, GroupConfig())
        decay = config.weight_decay if own.weight_decay is None else own.weight_decay
        trained = [(key, p) for key, p in members if p.requires_grad]
        kinds = ((True, decay), (False, 0.0))
        for (matrices, strength), spread in product(kinds, (True, False)):  # never mixed in one update
            part = [(key, p) for key, p in trained if (p.ndim >= 2) == matrices and sharded(p) == spread]
            if part:
                made.append(
                    {
                        "params": [p for _, p in part],
                        "name": name,
                        "parameters": [key for key, _ in part],
                        "base_lr": config.lr * own.lr,
                        "lr": config.lr * own.lr,
                        "weight_decay": strength,
                    }
                )
    if not made:
        raise ConfigError("The model has no parameter to train: everything in it is frozen.")
    return torch.optim.AdamW(made, lr=config.lr, betas=config.betas, fused=True)


def set_rate(
    optimizer: torch.optim.Optimizer, factor: float, own: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Set every group's rate to `factor` times its own, and `own[name]` times that; returns them by name."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor * (own or {}).get(group["name"], 1.0)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def total_norm(parameters: Sequence[Tensor]) -> Tensor:
    """L2 norm of all gradients, of sharded ones over all ranks."""
    plain, shards = _gradients(parameters)
    norm = torch.nn.utils.get_total_norm(plain)
    return torch.hypot(norm, whole(torch.nn.utils.get_total_norm(shards))) if shards else norm


def clip(parameters: Sequence[Tensor], limit: float, norm: Tensor) -> None:
    """Scale the gradients down so that their norm, now `norm`, is at most `limit`."""
    for found in _gradients(parameters):
        if found:
            torch._foreach_mul_(found, float((limit / (norm + 1e-6)).clamp(max=1.0)))


def _gradients(parameters: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The plain gradients and the sharded ones."""
    found = [p.grad for p in parameters if p.grad is not None]
    return [g for g in found if not sharded(g)], [g for g in found if sharded(g)]


def norms(optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """L2 norm of the gradients of each named group."""
    squares: dict[str, float] = {}
    for group in optimizer.param_groups:
        found = [p.grad for p in group["params"] if p.grad is not None]
        total = sum(float(whole(n)) ** 2 for n in torch._foreach_norm(found)) if found else 0.0
        squares[group["name"]] = squares.get(group["name"], 0.0) + total
    return {name: math.sqrt(value) for name, value in squares.items()}


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's whole state as tensors named "<parameter>/<moment>"."""
    return {
        f"{key}/{moment}": optimizer.state[p][moment]
        for key, p in _named(optimizer)
        for moment in _MOMENTS
        if moment in optimizer.state[p]
    }


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `state_tensors` gave, bit for bit."""
    for key, p in _named(optimizer):
        found = {m: tensors[f"{key}/{m}"] for m in _MOMENTS if f"{key}/{m}" in tensors}
        if found:
            optimizer.state[p] = {
                m: t.clone() if m == "step" else like(t, p.detach()).clone() for m, t in found.items()
            }


def _named(optimizer: torch.optim.Optimizer) -> Iterable[tuple[str, nn.Parameter]]:
    for group in optimizer.param_groups:
        yield from zip(group["parameters"], group["params"], strict=True)
