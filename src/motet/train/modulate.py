"""A modality that learns faster than the others is slowed, so that they are not left behind.

Source: on-the-fly gradient modulation, Peng et al. 2022, equations 9 and 10, arXiv:2203.15332. Two
departures: the brake starts at 0 where a modality is just ahead (theirs jumps there), and it acts on
the learning rate, since AdamW divides a gradient by its own size and a scaled one would change
little. Their added noise is left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from motet.errors import ConfigError
from motet.model import MotetConfig


def brakes(parts: Mapping[str, object], strength: float) -> dict[str, float]:
    """What each modality's learning rate is multiplied with, 1 for all but those ahead.

    parts: of the objective; "alone/modality/task" is the mean share that a modality's own head gives
    to the right class. A modality whose share is r times the mean of the others' gets
    1 - tanh(strength * (r - 1)).
    """
    if strength <= 0:
        return {}
    shares: dict[str, list[float]] = {}
    for name, value in parts.items():
        if name.startswith("alone/"):
            shares.setdefault(name.split("/")[1], []).append(float(value))  # type: ignore[arg-type]
    mean = {modality: sum(values) / len(values) for modality, values in shares.items()}
    result = {}
    for modality, own in mean.items():
        others = [value for name, value in mean.items() if name != modality]
        ahead = own / (sum(others) / len(others)) - 1 if others and sum(others) > 0 else 0.0
        result[modality] = 1 - math.tanh(strength * max(0.0, ahead))
    return result


def check_modulation(strength: float, model: MotetConfig) -> None:
    """Raises ConfigError where there is nothing to compare the modalities by."""
    classes = any(task.kind == "classes" for task in model.tasks)
    if strength < 0 or (strength > 0 and not (model.late_heads and classes and len(model.modalities) > 1)):
        raise ConfigError(
            f"train.modulation={strength}: it compares what each modality alone says of a label of classes. "
            "Give such a label, two modalities, and --set model.late_heads=true; or leave it at 0."
        )
