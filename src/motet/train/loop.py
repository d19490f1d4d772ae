"""The training loop: seeded, validated every epoch, and bit-equal when stopped and resumed.

All randomness of step s (dropout, drop path) is drawn from a generator seeded by (seed, s), and
the order of data is a function of (seed, epoch, position); so a run is its step, its weights and
its optimizer's moments, and nothing else has to be carried over an interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn

from motet.errors import ConfigError, Interrupted, MotetError
from motet.model import parameter_groups
from motet.train import optim
from motet.train.average import WeightAverage
from motet.train.collapse import CollapseWatch
from motet.train.distributed import Parallel, World
from motet.train.gradcache import Gradients
from motet.train.modulate import brakes
from motet.train.run import Reporter, RunFolder
from motet.train.signals import caught_signals
from motet.train.state import Checkpoints
from motet.train.validate import better, validate
from motet.types import TokenBatch


class Batches(Protocol):
    @property
    def steps_per_epoch(self) -> int: ...
    def batches(self, epoch: int, start: int = 0) -> Iterable[TokenBatch]: ...


@dataclass(frozen=True)
class TrainConfig(optim.OptimConfig):
    """How long, how exactly, and on what the best is chosen.

    `metric` names a number of the validation ("score", "loss", "R@10", "sentiment.macro_f1", ...), see
    `motet.train.validate`. `patience`
    in epochs, 0 never stops early. `ema` is the decay of an average of the weights that is
    validated and kept instead of the weights, 0 for none. `clip` bounds the gradient's norm, 0 does
    not. `micro_batch`: how many samples the model sees at once, 0 for the whole batch; the gradients are
    those of the whole batch whatever it is. `modulation` slows modalities that learn too fast, see
    `motet.train.modulate`, 0 does not. `parallel` is for several processes under torchrun, see
    `motet.train.distributed`. After `bad_steps` batches in a row without a finite loss training stops.
    """

    epochs: int = 30
    clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    metric: str = "score"
    patience: int = 0
    ema: float = 0.0
    micro_batch: int = 0
    modulation: float = 0.0
    parallel: Parallel = "ddp"
    bad_steps: int = 10
    log_steps: int = 10
    checkpoint_steps: int = 0
    checkpoint_seconds: float = 30.0


@dataclass(frozen=True)
class Best:
    """What the run ends with: the model holds the weights of `step`."""

    step: int
    steps: int
    epochs: int
    value: float | None
    metric: str
    why: str


def train(
    model: nn.Module,
    objective: nn.Module,
    loader: Batches,
    val_loader: Batches | None,
    config: TrainConfig,
    *,
    run: RunFolder,
    seed: int = 0,
    time_limit: float | None = None,
    stop: Callable[[int], bool] | None = None,
    reporter: Reporter | None = None,
    world: World | None = None,
) -> Best:
    """Train until the epochs, the patience or the time (seconds) end; the model then holds the best weights.

    `objective(output, batch)` gives the loss and its parts. `stop(step)` is asked after every step;
    where it says True, the run is saved and ends as on SIGTERM. `world`: the processes that train
    together, each with a loader of its own rows of every batch; all of them validate on all rows.

    Raises:
        Interrupted: SIGTERM, SIGINT or `stop`; everything is saved.
        MotetError: no finite loss for `config.bad_steps` batches in a row.
    """
    loop = _Loop(
        model,
        objective,
        loader,
        val_loader,
        config,
        run=run,
        seed=seed,
        reporter=reporter or Reporter(quiet=True),
        world=world or World(),
    )
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), caught_signals() as caught:
        deadline = time.monotonic() + time_limit if time_limit is not None else None
        return loop.fit(lambda step: bool(caught) or (stop is not None and stop(step)), deadline)


class _Loop:
    def __init__(
        self,
        model: nn.Module,
        objective: nn.Module,
        loader: Batches,
        val_loader: Batches | None,
        config: TrainConfig,
        *,
        run: RunFolder,
        seed: int,
        reporter: Reporter,
        world: World,
    ) -> None:
        self.model, self.objective, self.config, self.run = model, objective, config, run
        self.loader, self.val_loader, self.seed, self.reporter = loader, val_loader, seed, reporter
        self.world = world
        world.shard(model)
        groups = {
            name: [(f"model.{key}", p) for key, p in part] for name, part in parameter_groups(model).items()
        }
        groups.setdefault("shared", []).extend((f"objective.{k}", p) for k, p in objective.named_parameters())
        self.optimizer = optim.make_optimizer(groups, config)
        self.trained = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.device = self.trained[0].device
        self.steps = config.epochs * loader.steps_per_epoch
        self.average = WeightAverage(model, config.ema)
        self.kept = Checkpoints(run, world, model, objective, self.optimizer, self.average)
        self.collapse = CollapseWatch()
        self.saved_at = time.monotonic()
        self.speed, self.shown_at = 0.0, time.monotonic()
        self.state = self.kept.restore(reporter.say)
        if self.state.step:
            reporter.say(f"resumed at step {self.state.step} of {self.steps}")
        precision = torch.bfloat16 if config.precision == "bf16" else torch.float32
        micro = self.state.micro or config.micro_batch
        self.gradients = Gradients(
            model, objective, size=micro, precision=precision, world=world, say=reporter.say
        )

    def fit(self, stop: Callable[[int], bool], deadline: float | None) -> Best:
        state, why = self.state, ""
        while state.epoch < self.config.epochs and not why:
            for batch in self.loader.batches(state.epoch, state.position):
                self._step(batch)
                if self.world.any(stop(state.step)):
                    self._save()
                    self.reporter.close()
                    raise Interrupted(
                        f"{self.run.path}: stopped at step {state.step} of {self.steps} and saved. "
                        "Run the same command again with --resume to go on."
                    )
                self._save_now_and_then()
                if self.world.any(deadline is not None and time.monotonic() > deadline):
                    why = "time limit reached"
                    break
            self._validate()
            if not why:
                state.epoch, state.position, state.sums = state.epoch + 1, 0, {}
                if 0 < self.config.patience <= state.stale:
                    why = f"no better {self.config.metric} for {state.stale} epochs"
        self.reporter.close()
        self._save()
        self.kept.use_best()
        return Best(
            state.best_step, state.step, state.epoch, state.best, self.config.metric, why or "all epochs done"
        )

    def _step(self, batch: TokenBatch) -> None:
        state, config = self.state, self.config
        self.model.train()
        seed = (self.seed * 1_000_003 + state.step) & 0x7FFF_FFFF_FFFF_FFFF
        loss, parts = self.gradients(batch, seed)
        own = brakes(parts, config.modulation)
        rates = optim.set_rate(self.optimizer, optim.rate(state.step, self.steps, config), own)
        norm = optim.total_norm(self.trained)
        state.micro = self.gradients.size
        state.step += 1
        state.position += 1
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            self._skip(batch, float(loss))
            return
        state.bad = 0
        due = config.log_steps > 0 and state.step % config.log_steps == 0
        gradients = optim.norms(self.optimizer) if due else {}
        if config.clip > 0:
            optim.clip(self.trained, config.clip, norm)
        self.optimizer.step()
        self.average.update(state.step)
        values = {"loss": float(loss)} | {k: float(v) for k, v in parts.items()}
        for key, value in ({"steps": 1.0} | values).items():
            state.sums[key] = state.sums.get(key, 0.0) + value
        if due:
            row = {"kind": "step", "step": state.step, "epoch": state.epoch} | values
            self._log(row | {"lr": rates, "gradient": gradients})
        self._show(values, len(batch.ids))

    def _skip(self, batch: TokenBatch, loss: float) -> None:
        """A batch that would poison the weights is left out, and its rows are named."""
        state = self.state
        state.bad += 1
        self.optimizer.zero_grad(set_to_none=True)
        self._log({"kind": "skipped", "step": state.step, "epoch": state.epoch, "ids": list(batch.ids)})
        self.reporter.say(
            f"step {state.step}: loss {loss} or its gradient is not finite; batch skipped, "
            f"rows {', '.join(batch.ids[:8])}... (all in metrics.jsonl)"
        )
        if 0 < self.config.bad_steps <= state.bad:
            self.reporter.close()
            raise MotetError(
                f"{self.run.path}: no finite loss for {state.bad} batches in a row, up to step {state.step}. "
                "Try --set train.lr=1e-4 or train.precision=fp32, or run `motet check` on the table."
            )

    def _validate(self) -> None:
        state = self.state
        steps = max(state.sums.get("steps", 0.0), 1.0)
        row: dict[str, Any] = {"kind": "epoch", "step": state.step, "epoch": state.epoch}
        row["train"] = {key: value / steps for key, value in state.sums.items() if key != "steps"}
        with self.average.swapped():
            if self.val_loader is not None:
                row["val"] = validate(self.model, self.objective, self.val_loader, self.device)
                self.collapse(row["val"], self.reporter.say)
            self._keep_if_best(row.get("val", {}))
        self._log(row | {"best_step": state.best_step})

    def _keep_if_best(self, val: Mapping[str, float]) -> None:
        state, metric = self.state, self.config.metric
        value = None
        if val:
            if metric not in val:
                raise ConfigError(
                    f"train.metric: {metric!r} is not measured. There are: {', '.join(sorted(val))}."
                )
            value = val[metric]
        state.stale += 1
        if value is None or better(value, state.best, metric):
            state.best, state.best_step, state.stale = value, state.step, 0
            self.kept.keep_best()

    def _save_now_and_then(self) -> None:
        steps, seconds = self.config.checkpoint_steps, self.config.checkpoint_seconds
        late = 0 < seconds < time.monotonic() - self.saved_at
        if self.world.any(late) or (steps > 0 and self.state.step % steps == 0):
            self._save()

    def _save(self) -> None:
        self.kept.save(self.state)
        self.saved_at = time.monotonic()

    def _log(self, row: Mapping[str, Any]) -> None:
        if self.world.main:
            self.run.log(row)

    def _show(self, values: Mapping[str, float], samples: int) -> None:
        now, state = time.monotonic(), self.state
        speed = samples / max(now - self.shown_at, 1e-6)
        self.speed = 0.9 * self.speed + 0.1 * speed if self.speed else speed
        self.shown_at = now
        detail = "  ".join(f"{k} {v:.3f}" for k, v in values.items() if "/" not in k)
        self.reporter.update(state.step, self.steps, "train", f"{detail}  {self.speed:.0f} samples/s")
