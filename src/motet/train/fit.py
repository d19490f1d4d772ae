"""`fit`: from a table to a model folder, with nothing to decide in between unless one wants to."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from motet.errors import ConfigError, DataError
from motet.losses import LossConfig, Objective
from motet.model import Motet, MotetConfig, TaskSpec, parameter_groups
from motet.nn.finetune import merge_lora
from motet.train.distributed import put_together
from motet.train.finish import finish
from motet.train.job import Job, Opened, default_out, open_job
from motet.train.loop import Best, train
from motet.train.modality import Tuning, modality_settings, optimizer_groups
from motet.train.modulate import check_modulation
from motet.train.prepare import Parts, prepare
from motet.train.run import Reporter, RunFolder
from motet.train.settings import FitConfig
from motet.train.tuning import make_model


def fit(
    table: str | Path,
    *,
    label: str | None = None,
    val: str | Path | None = None,
    out: str | Path | None = None,
    settings: Sequence[str] = (),
    preset: str = "fast",
    seed: int = 0,
    time_limit: float | None = None,
    resume: bool = False,
    retrieval: bool | None = None,
    progress: Reporter | None = None,
    stop: Callable[[int], bool] | None = None,
) -> Path:
    """Train on a table (a file or a folder of media) and save the model; returns its folder, which is `out`.

    label: the column to learn, or several with commas between them; words make classes, numbers a
    regression. val: another table to choose the best epoch on. retrieval: whether to align the modalities
    for search, by default where there are two or more and no label. settings: "key=value", see
    `motet.train.settings`. time_limit: seconds of training. stop: asked after each step whether to save
    and end, as SIGTERM does.

    Raises:
        ConfigError, DataError: the arguments, the settings or the table cannot be used.
        MismatchError: `resume` with other data or settings than the run's.
        Interrupted: stopped after saving.
    """
    job = Job(table, label, val, tuple(settings), preset, seed, retrieval)
    return finished(train_job(job, out, progress, resume=resume, time_limit=time_limit, stop=stop))


@dataclass(frozen=True, eq=False)
class Trained:
    """A run whose training is over, and which no test row has judged yet. The model has its best weights."""

    opened: Opened
    run: RunFolder
    data: Parts
    model: Motet
    best: Best
    seconds: float
    reporter: Reporter


def train_job(
    job: Job,
    out: str | Path | None,
    progress: Reporter | None = None,
    *,
    resume: bool = False,
    time_limit: float | None = None,
    stop: Callable[[int], bool] | None = None,
) -> Trained:
    """`fit` without its last step, in which the model is judged and saved; see it for the arguments."""
    opened = open_job(job)
    world = opened.world
    reporter = (progress or Reporter()) if world.main else Reporter(quiet=True)
    resume = resume or not world.main  # the other processes come into the run that the first has made
    with world.main_first():
        path = Path(out) if out is not None else default_out(opened.source, resume=resume)
        run = RunFolder(path, opened.identity(), resume=resume)
        try:
            data = _data(opened, run, reporter)
        except DataError:  # when the table is mended, the same command should do
            run.give_up()
            raise
        run.pin("content", data.content())
    torch.manual_seed(job.seed)
    config, tunings, model = _model(opened, data)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    kinds = {name: p.spec.kind for name, p in data.processors.items()}
    chosen = replace(opened.config.train, groups=optimizer_groups(opened.config, kinds))
    loss = _loss(opened.config, data, config.tasks)
    objective = Objective(loss, config).to(next(model.parameters()).device)
    start = time.monotonic()
    best = train(
        model,
        objective,
        data.loader(opened.config, job.seed, world),
        data.val_loader(),
        chosen,
        run=run,
        seed=job.seed,
        time_limit=time_limit,
        stop=stop,
        reporter=reporter,
        world=world,
    )
    trained = put_together(model, lambda: make_model(config, tunings))
    assert isinstance(trained, Motet)
    merge_lora(trained)
    return Trained(opened, run, data, trained, best, time.monotonic() - start, reporter)


def finished(trained: Trained) -> Path:
    """Judge the model once, save it into its run's folder, and return that."""
    world, job = trained.opened.world, trained.opened.job
    with world.main_first():
        if world.main:
            finish(
                trained.model,
                trained.data,
                trained.best,
                trained.run,
                trained.seconds,
                job.seed,
                trained.reporter,
            )
    return trained.run.path


def look(job: Job, progress: Reporter | None = None) -> dict[str, Any]:
    """What `fit` would train, without training it: every row is read, nothing is kept.

    {"columns": [sentences], "rows": part -> count, "modalities": [...], "parameters": group -> count,
    "trained": how many of all learn, "steps"}. Errors as of `fit`.
    """
    opened = open_job(job)
    reporter = progress or Reporter()
    with tempfile.TemporaryDirectory(prefix="motet-") as folder:
        run = RunFolder(Path(folder) / "run", {})
        data = _data(opened, run, reporter)
        config, _, model = _model(opened, data)
    groups = {name: sum(p.numel() for _, p in part) for name, part in parameter_groups(model).items()}
    epochs = opened.config.train.epochs
    return {
        "columns": opened.columns.describe(),
        "rows": {name: len(part) for name, part in data.named() if part is not None}
        | {"quarantined": data.quarantined},
        "modalities": [
            {"name": spec.name, "kind": spec.kind, "numbers a token": spec.features or spec.size}
            | {"starts from": spec.backbone.name if spec.backbone else spec.pretrained or "scratch"}
            for spec in config.modalities
        ],
        "parameters": {name: count for name, count in groups.items() if count},
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "steps": epochs * data.loader(opened.config, job.seed, opened.world).steps_per_epoch,
    }


def _data(opened: Opened, run: RunFolder, reporter: Reporter) -> Parts:
    for line in opened.columns.describe():
        reporter.say(line)
    reporter.say(f"run folder: {run.path}")
    return prepare(
        opened.source,
        opened.val,
        opened.columns,
        opened.config,
        preset=opened.job.preset,
        seed=opened.job.seed,
        retrieval=opened.contrastive,
        run=run,
        reporter=reporter,
        world=opened.world,
    )


def _model(opened: Opened, data: Parts) -> tuple[MotetConfig, Mapping[str, Tuning], Motet]:
    """The model as its training begins."""
    config = opened.config.model.build(data.specs, data.tasks(), contrastive=opened.contrastive)
    check_modulation(opened.config.train.modulation, config)
    if opened.config.train.pretrain and not any(s.pretrained and s.input == "vectors" for s in data.specs):
        raise ConfigError("train.pretrain: there is no modality with features of a frozen encoder to guess.")
    if opened.config.train.pretrain and not config.guess_hidden:
        raise ConfigError("train.pretrain: nothing is guessed. Say --set model.guess_hidden=true as well.")
    tunings = {
        name: modality_settings(opened.config, name, p.spec.kind).tuning
        for name, p in data.processors.items()
    }
    return config, tunings, make_model(config, tunings)


def _loss(config: FitConfig, data: Parts, tasks: Sequence[TaskSpec]) -> LossConfig:
    """The loss settings, with class weights by `train.balance` where none are given."""
    weights = dict(config.loss.class_weights)
    for task in tasks:
        if task.kind == "classes" and task.name not in weights and config.train.balance > 0:
            label = next(label for label in data.columns.labels if label.name == task.name)
            counts = np.bincount(data.labels(label).astype(int), minlength=len(task.classes)).astype(float)
            raw = np.where(counts > 0, np.maximum(counts, 1) ** -config.train.balance, 0.0)
            weights[task.name] = tuple((raw * counts.sum() / (raw * counts).sum()).tolist())
    return replace(config.loss, class_weights=weights)
