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
from motet.nn.backbone import begin_epoch
from motet.train import guard, optim
from motet.train.average import WeightAverage
from motet.train.collapse import CollapseWatch
from motet.train.distributed import Parallel, World
from motet.train.gradcache import Gradients
from motet.train.modulate import brakes
from motet.train.run import Reporter, RunFolder
from motet.train.signals import caught_signals
from motet.train.state import Best, Checkpoints
from motet.train.track import Track
from motet.train.validate import better, validate
from motet.train.watch import Watch
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
    `motet.train.distributed`. In the first `pretrain` epochs only the features of dropped modalities are
    guessed (`model.guess_hidden`), nothing else is learned. A batch whose loss or gradient is not finite is
    left out, and one whose loss lies `spike` standard deviations above the usual (0: none), see
    `motet.train.guard`; after `bad_steps` of them in a row training stops. `track` sends the metrics to a
    tracker too, see `motet.train.track`.
    """

    epochs: int = 30
    clip: float = 1.0
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    metric: str = "score"
    patience: int = 0
    ema: float = 0.0
    micro_batch: int = 0
    modulation: float = 0.0
    pretrain: int = 0
    parallel: Parallel = "ddp"
    spike: float = 10.0
    bad_steps: int = 10
    track: Track = "none"
    log_steps: int = 10
    checkpoint_steps: int = 0
    checkpoint_seconds: float = 30.0


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
        self.optimizers = optim.Optimizers(groups, config)
        self.trained = self.optimizers.parameters
        self.device = self.trained[0].device
        self.steps = config.epochs * loader.steps_per_epoch
        self.average = WeightAverage(model, config.ema)
        self.kept = Checkpoints(run, world, model, objective, self.optimizers, self.average)
        self.collapse = CollapseWatch()
        self.saved_at = time.monotonic()
        self.state = self.kept.restore(reporter.say)
        if self.state.step:
            reporter.say(f"resumed at step {self.state.step} of {self.steps}")
        if config.precision == "fp16" and not self.state.scale:
            self.state.scale = guard.MOST_SCALE
        precision = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[config.precision]
        self.watch = Watch(run, reporter, self.state, self.steps, track=config.track, main=world.main)
        micro = min((size for size in (self.state.micro, config.micro_batch) if size), default=0)
        self.gradients = Gradients(
            model, objective, size=micro, precision=precision, world=world, say=reporter.say
        )

    def fit(self, stop: Callable[[int], bool], deadline: float | None) -> Best:
        try:
            return self._fit(stop, deadline)
        finally:
            self.reporter.close()
            self.watch.close()

    def _fit(self, stop: Callable[[int], bool], deadline: float | None) -> Best:
        state, why = self.state, ""
        while state.epoch < self.config.epochs and not why:
            self._begin_epoch()
            self.watch.start_clock()
            for batch in self.loader.batches(state.epoch, state.position):
                self._step(batch)
                if self.world.any(stop(state.step)):
                    self._save()
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
        self._save()
        if not state.best_step:
            raise MotetError(
                f"{self.run.path}: no epoch ended with finite weights, so there is no model to keep. Try "
                "--set train.lr=1e-4 or train.precision=fp32."
            )
        self.kept.use_best()
        return Best(
            state.best_step, state.step, state.epoch, state.best, self.config.metric, why or "all epochs done"
        )

    def _begin_epoch(self) -> None:
        state, pretrain = self.state, self.config.pretrain
        begin_epoch(self.model, state.epoch)
        self.objective.only = "hidden" if state.epoch < pretrain else ""  # type: ignore[assignment]
        if state.epoch == pretrain and state.position == 0:
            state.level = {}  # other losses, of another size

    def _step(self, batch: TokenBatch) -> None:
        state, config = self.state, self.config
        self.model.train()
        seed = (self.seed * 1_000_003 + state.step) & 0x7FFF_FFFF_FFFF_FFFF
        loss, parts = self.gradients(batch, seed, scale=state.scale or 1.0)
        if state.scale:
            optim.scale(self.trained, 1 / state.scale)
        own = brakes(parts, config.modulation)
        epoch = self.loader.steps_per_epoch
        rates = self.optimizers.set_rates(state.step, self.steps, epoch=epoch, brakes=own)
        norm = optim.total_norm(self.trained)
        state.micro = self.gradients.size
        state.step += 1
        state.position += 1
        why = guard.unusable(float(loss), float(norm), state, config.spike)
        if why:
            self._skip(batch, why)
            return
        state.bad = 0
        guard.learn_level(float(loss), state)
        due = config.log_steps > 0 and state.step % config.log_steps == 0
        gradients = self.optimizers.norms() if due else {}
        self.optimizers.clip(config.clip, norm)
        self.optimizers.step()
        self.average.update(state.step)
        values = {"loss": float(loss)} | {k: float(v) for k, v in parts.items()}
        for key, value in ({"steps": 1.0} | values).items():
            state.sums[key] = state.sums.get(key, 0.0) + value
        self.watch.step(state, batch, values, rates)
        if due:
            row = {"kind": "step", "step": state.step, "epoch": state.epoch} | values
            self._log(row | {"lr": rates, "gradient": gradients})

    def _skip(self, batch: TokenBatch, why: str) -> None:
        """A batch that would poison the weights is left out, and its rows are named."""
        state = self.state
        self.optimizers.clear()
        row = {"kind": "skipped", "step": state.step, "epoch": state.epoch, "why": why}
        self._log(row | {"ids": list(batch.ids)})
        if why.startswith("fp16"):  # the scale's doing, not the rows'
            return
        state.bad += 1
        self.reporter.say(
            f"step {state.step}: {why}; batch skipped, rows {', '.join(batch.ids[:8])}... (all in "
            "metrics.jsonl)"
        )
        if 0 < self.config.bad_steps <= state.bad:
            raise MotetError(
                f"{self.run.path}: no usable loss for {state.bad} batches in a row, up to step {state.step}: "
                f"{why}. Try --set train.lr=1e-4 or train.precision=fp32, or run `motet check` on the table."
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
            if self.kept.keep_best():
                state.best, state.best_step, state.stale = value, state.step, 0
            else:
                self.reporter.say(f"step {state.step}: weights that are not finite are not kept")

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
            self.watch.logged(row)
