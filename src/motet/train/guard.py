"""Batches that would spoil the weights: told apart before the step, and left out."""

from __future__ import annotations

import math

from motet.train.state import State

FIRST = 20  # steps that set the level; before, no loss is called a spike
MEMORY = 0.98  # of the running mean and variance
MOST_SCALE, LEAST_SCALE = 2.0**16, 1.0
STEADY = 500  # steps without overflow after which the scale is doubled


def unusable(loss: float, norm: float, state: State, spike: float) -> str:
    """Why a batch with this loss and norm of the gradient must be left out; "" where it need not be."""
    finite = math.isfinite(loss) and math.isfinite(norm)
    if state.scale and math.isfinite(loss) and rescale(state, overflow=not finite):
        return f"fp16 overflow, loss scale now {state.scale:g}"
    if not finite:
        return f"loss {loss:g} or its gradient is not finite"
    if spikes(loss, state, spike):
        return f"loss {loss:g} is a spike, {state.level['mean']:.3g} is usual"
    return ""


def spikes(loss: float, state: State, limit: float) -> bool:
    """Whether a finite loss is `limit` standard deviations above its running mean (0: never), and above
    where training began: a hard batch late in training, when losses are small, is no spike."""
    level = state.level
    if limit <= 0 or level.get("seen", 0) < FIRST:
        return False
    deviation = math.sqrt(max(level["variance"], 0.0))
    return loss > level["mean"] + limit * deviation and loss > level["first"]


def learn_level(loss: float, state: State) -> None:
    """Take in the loss of a batch that was used."""
    level = state.level
    seen = level.get("seen", 0.0)
    kept = min(MEMORY, seen / (seen + 1))  # a plain mean at first
    mean = level.get("mean", loss)
    level["variance"] = kept * (level.get("variance", 0.0) + (1 - kept) * (loss - mean) ** 2)
    level["mean"] = mean + (1 - kept) * (loss - mean)
    level["seen"] = seen + 1
    if seen < FIRST:
        level["first"] = max(level.get("first", loss), loss)


def rescale(state: State, *, overflow: bool) -> bool:
    """Adapt the scale of half precision; whether an overflow was no more than a scale too high.

    Source: Micikevicius et al. 2018, section 3.2, arXiv:1710.03740.
    """
    if overflow:
        too_high = state.scale > LEAST_SCALE
        state.scale, state.steady = max(LEAST_SCALE, state.scale / 2), 0
        return too_high
    state.steady += 1
    if state.steady >= STEADY:
        state.scale, state.steady = min(MOST_SCALE, state.scale * 2), 0
    return False
