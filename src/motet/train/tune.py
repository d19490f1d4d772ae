"""`fit --tune N`: a few settings chosen by trial, on validation rows alone, before the training that counts.

Every trial is a run of its own beside the final one, in OUT.tune/trial-000 and so on; OUT.tune/trials.json
holds what was tried. Stopped anywhere and resumed, it goes on with the trial that was cut off.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from motet import config as configs
from motet.errors import ConfigError, Interrupted, MismatchError, MotetError, StorageError, missing_extra
from motet.nn.pretrained import installed
from motet.train.fit import finished, train_job
from motet.train.job import Job, default_out, open_job
from motet.train.run import Reporter
from motet.train.validate import higher_is_better

TRIALS = "trials.json"


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched: from `low` to `high`, on a logarithmic scale, or one of `choices`."""

    key: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] = ()


SPACE = (
    Dimension("train.lr", 3e-4, 6e-3, log=True),
    Dimension("train.weight_decay", 0.005, 0.3, log=True),
    Dimension("train.modality_dropout", 0.0, 0.5),
    Dimension("train.batch_size", choices=(32, 64, 128)),
    Dimension("model.dropout", 0.0, 0.4),
    Dimension("model.head_dropout", 0.0, 0.6),
    Dimension("model.width", choices=(64, 128, 192)),
    Dimension("model.fusion", choices=("late", "attention")),
)


@dataclass
class Trial:
    """`value`: the best on validation rows; None while it runs, NaN where it failed."""

    params: dict[str, Any]
    value: float | None = None

    @property
    def settings(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.params.items()]


def fit_tuned(
    job: Job,
    trials: int,
    out: str | Path | None,
    progress: Reporter | None = None,
    *,
    resume: bool = False,
    time_limit: float | None = None,
    space: Sequence[Dimension] = SPACE,
    stop: Callable[[int], bool] | None = None,
) -> Path:
    """Try `trials` settings of `space`, the defaults first, then train with the best of them; its folder.

    What is said in `job.settings` is not searched. `time_limit` is that of all trainings together, each of
    which gets the same part. Only the final model sees the test rows.

    Raises:
        ConfigError: Optuna is missing, fewer than two trials, nothing left to search, or no rows to
            choose by. Others as `fit`.
    """
    opened = open_job(job)
    reporter = progress or Reporter()
    searched = [d for d in space if not _said(d.key, job.settings)]
    _check(trials, searched, opened.world.size)
    final = Path(out) if out is not None else default_out(opened.source, resume=resume)
    if final.exists() and not resume:
        raise ConfigError(f"{final}: already there. Choose another --out, or go on with --resume.")
    folder = final.with_name(f"{final.name}.tune")
    limit = None if time_limit is None else time_limit / (trials + 1)
    metric = opened.config.train.metric
    known = _Known(folder, {"identity": opened.identity(), "space": [d.key for d in searched]}, resume=resume)
    sign = 1.0 if higher_is_better(metric) else -1.0
    for number in range(trials):
        if number == len(known.trials):
            known.add({} if number == 0 else _suggest(known.trials, searched, job.seed + number, sign))
        trial = known.trials[number]
        if trial.value is not None:
            continue
        reporter.say(f"trial {number + 1} of {trials}: {', '.join(trial.settings) or 'as it is'}")
        path = folder / f"trial-{number:03d}"
        tried = replace(job, settings=(*job.settings, *trial.settings))
        known.done(number, _value(tried, path, reporter, limit, stop))
    best = max(
        known.trials, key=lambda t: -math.inf if math.isnan(t.value or 0.0) else sign * (t.value or 0.0)
    )
    if best.value is None or math.isnan(best.value):
        raise MotetError(f"{folder}: no trial gave a finite {metric}; see the messages above.")
    reporter.say(f"best of {trials} on validation rows: {metric} {best.value:.4f} with {best.settings}")
    chosen = replace(job, settings=(*job.settings, *best.settings))
    return finished(train_job(chosen, final, reporter, resume=resume, time_limit=limit, stop=stop))


def _value(
    job: Job, path: Path, reporter: Reporter, limit: float | None, stop: Callable[[int], bool] | None
) -> float:
    """The best that a trial reaches on validation rows, NaN where its training failed."""
    try:
        best = train_job(job, path, reporter, resume=path.exists(), time_limit=limit, stop=stop).best
    except (Interrupted, ConfigError, StorageError, MismatchError):
        raise
    except MotetError as error:  # no finite loss, or no memory: of no use with these settings
        reporter.say(f"{path.name} failed: {error}")
        return math.nan
    if best.value is None:
        raise ConfigError("--tune: there are no validation rows to choose by. Give --val, or more rows.")
    return best.value


def _suggest(trials: Sequence[Trial], space: Sequence[Dimension], seed: int, sign: float) -> dict[str, Any]:
    """The next settings, by a tree-structured Parzen estimator over those that were tried.

    The same trials and seed give the same settings, so nothing but them has to be kept. Source: Bergstra et
    al. 2011, "Algorithms for Hyper-Parameter Optimization", as Optuna has it.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    kinds = {d.key: _distribution(d) for d in space}
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=4))
    for trial in trials:
        if trial.params and trial.value is not None and math.isfinite(trial.value):
            study.add_trial(
                optuna.trial.create_trial(params=trial.params, distributions=kinds, value=-sign * trial.value)
            )
    return {key: _short(value) for key, value in study.ask(kinds).params.items()}


def _distribution(dimension: Dimension) -> Any:
    import optuna

    if dimension.choices:
        return optuna.distributions.CategoricalDistribution(dimension.choices)
    return optuna.distributions.FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _short(value: Any) -> Any:
    """Three digits: what a person would set."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def _said(key: str, settings: Sequence[str]) -> bool:
    return any(setting.partition("=")[0].strip() == key for setting in settings)


def _check(trials: int, space: Sequence[Dimension], processes: int) -> None:
    if not installed("optuna"):
        raise missing_extra("tune", "optuna", "--tune")
    if trials < 2:
        raise ConfigError(
            f"--tune {trials}: needs at least two trials; the first has the settings as they are."
        )
    if not space:
        raise ConfigError("--tune: everything that is searched is set with --set; nothing is left to choose.")
    if processes > 1:
        raise ConfigError("--tune: trials run in one process; start it without torchrun.")


class _Known:
    """The trials so far, on disk after every change."""

    def __init__(self, folder: Path, identity: dict[str, Any], *, resume: bool) -> None:
        self.path, self.identity = folder / TRIALS, json.loads(json.dumps(identity))
        self.trials: list[Trial] = []
        if self.path.is_file():
            held = configs.read(self.path)
            if not resume:
                raise ConfigError(f"{folder}: already holds trials. Choose another --out, or add --resume.")
            if held["identity"] != self.identity:
                raise MismatchError(
                    f"{folder}: these trials were of other data or settings. Give what they were started "
                    "with, or choose another --out."
                )
            self.trials = [
                Trial(t["params"], math.nan if t["value"] == "failed" else t["value"]) for t in held["trials"]
            ]

    def add(self, params: dict[str, Any]) -> None:
        self.trials.append(Trial(params))
        self._write()

    def done(self, number: int, value: float) -> None:
        self.trials[number].value = value
        self._write()

    def _write(self) -> None:
        def shown(value: float | None) -> float | Literal["failed"] | None:
            return "failed" if value is not None and math.isnan(value) else value

        rows = [{"params": t.params, "value": shown(t.value)} for t in self.trials]
        text = json.dumps({"identity": self.identity, "trials": rows}, indent=1) + "\n"
        fresh = self.path.with_name(f".{TRIALS}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(text, "utf-8")
            os.replace(fresh, self.path)
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be written: {error.strerror}. Free some space."
            ) from None
