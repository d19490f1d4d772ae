"""`fit`: from a table to a model folder, with nothing to decide in between unless one wants to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from motet import config as configs
from motet.checkpoint import save_folder
from motet.data.columns import Columns, infer_columns, modality_name
from motet.data.isolate import child
from motet.data.table import Table, open_table
from motet.errors import ConfigError
from motet.losses import LossConfig, Objective
from motet.model import Motet, TaskSpec
from motet.tasks.calibrate import calibrate
from motet.tasks.card import model_card
from motet.tasks.evaluate import ask, evaluate
from motet.tasks.scores import Scores, learn_scores, measure_scores
from motet.train.distributed import join, put_together
from motet.train.loop import Best, train
from motet.train.modulate import check_modulation
from motet.train.prepare import Parts, prepare
from motet.train.processors import derived
from motet.train.run import Reporter, RunFolder
from motet.train.settings import FitConfig, check_modalities, read_settings


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
    regression. val: another table to
    choose the best epoch on. retrieval: whether to align the modalities for search, by default where
    there are two or more and no label. settings: "key=value", see `motet.train.settings`. time_limit:
    seconds of training. stop: asked after each step whether to save and end, as SIGTERM does.

    Raises:
        ConfigError, DataError: the arguments, the settings or the table cannot be used.
        MismatchError: `resume` with other data or settings than the run's.
        Interrupted: stopped after saving.
    """
    config = read_settings(settings, preset)
    child.mode = config.data.isolate
    world = join(config.train.parallel)
    reporter = (progress or Reporter()) if world.main else Reporter(quiet=True)
    resume = resume or not world.main  # the other processes come into the run that the first has made
    given = Path(config.data.root) if config.data.root else None
    source = open_table(table, root=given, remote=config.data.remote)
    columns = config.model.in_order(infer_columns(source, label=label, overrides=config.columns))
    modalities = {modality_name(column): kind for column, kind in columns.modalities.items()}
    check_modalities(config, derived(modalities), str(source.path))
    contrastive = _contrastive(retrieval, columns, source)
    columns = columns if contrastive else config.data.in_context(columns)
    for line in columns.describe():
        reporter.say(line)
    val_source = open_table(val, root=given, remote=config.data.remote) if val else None
    identity = {
        "config": _what_matters(config),
        "columns": configs.to_dict(columns),
        "data": [source.fingerprint, val_source.fingerprint if val_source else None],
        **{"seed": seed, "preset": preset, "retrieval": contrastive},
    }
    with world.main_first():
        path = Path(out) if out is not None else _default_out(source, resume=resume)
        run = RunFolder(path, identity, resume=resume)
        reporter.say(f"run folder: {run.path}")
        data = prepare(
            source,
            val_source,
            columns,
            config,
            preset=preset,
            seed=seed,
            retrieval=contrastive,
            run=run,
            reporter=reporter,
            world=world,
        )
        run.pin("content", data.content())

    torch.manual_seed(seed)
    tasks = data.tasks()
    model_config = config.model.build(data.specs, tasks, contrastive=contrastive)
    check_modulation(config.train.modulation, model_config)
    model = Motet(model_config).to("cuda" if torch.cuda.is_available() else "cpu")
    objective = Objective(_loss(config, data, tasks), model_config).to(next(model.parameters()).device)
    start = time.monotonic()
    best = train(
        model,
        objective,
        data.loader(config, seed, world),
        data.val_loader(),
        config.train,
        run=run,
        seed=seed,
        time_limit=time_limit,
        stop=stop,
        reporter=reporter,
        world=world,
    )
    trained = put_together(model, lambda: Motet(model_config))
    assert isinstance(trained, Motet)
    with world.main_first():
        if world.main:
            _finish(trained, data, best, run, time.monotonic() - start, seed, reporter)
    return run.path


def _what_matters(config: FitConfig) -> dict[str, Any]:
    """The settings without those that change only how fast the same batches come."""
    said = configs.to_dict(config)
    for group, key in (("loader", "workers"), ("loader", "kind"), ("loader", "pin"), ("data", "isolate")):
        del said[group][key]
    return said


def _contrastive(retrieval: bool | None, columns: Columns, table: Table) -> bool:
    several = len(columns.modalities) > 1
    if retrieval and not several:
        raise ConfigError(
            f"{table.path}: retrieval needs two modalities, and only {', '.join(columns.modalities)} was "
            "found. Say what other columns are, such as --set columns.NAME=text."
        )
    contrastive = retrieval if retrieval is not None else several and columns.label is None
    if not contrastive and columns.label is None:
        raise ConfigError(
            f"{table.path}: nothing to learn: one modality and no label. Name a column with --label; there "
            f"are {', '.join(table.columns)}."
        )
    return contrastive


def _default_out(table: Table, *, resume: bool) -> Path:
    """The first free of runs/NAME, runs/NAME-2, ...; to resume, the last that is there."""
    names = [
        Path("runs") / table.path.stem,
        *(Path("runs") / f"{table.path.stem}-{i}" for i in range(2, 10_000)),
    ]
    free = next(i for i, path in enumerate(names) if not path.exists())
    return names[max(0, free - 1) if resume else free]


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


def _finish(
    model: Motet, data: Parts, best: Best, run: RunFolder, seconds: float, seed: int, reporter: Reporter
) -> None:
    """Judge the best weights once, on rows that chose nothing, and write the model's files into the run."""
    name, judged = next((n, part) for n, part in data.named() if part is not None)
    samples = [judged[i] for i in range(len(judged))]
    val = [data.val[i] for i in range(len(data.val))] if data.val is not None else []
    calibration = calibrate(model, val, samples)
    metrics = {"part": name} | evaluate(model, samples, progress=reporter) | {"calibration": calibration}
    scores = Scores()
    if model.config.contrastive and val:
        scores = learn_scores(ask(model, val).embeddings, val)
        metrics["scores"] = measure_scores(scores, ask(model, samples).embeddings, samples)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    training = {
        **{"epochs": best.epochs, "steps": best.steps, "best_step": best.step, "seconds": seconds},
        **{"seed": seed, "parameters": trained, "best": _chosen(best)},
    }
    counts = {part: len(rows) for part, rows in data.named() if rows is not None}
    counts = {part: counts[part] for part in ("train", "val", "test") if part in counts}
    counts["quarantined"] = data.quarantined
    dataset = _dataset_note(data.source)
    modalities = [
        {"name": n, "kind": p.spec.kind, "pretrained": p.spec.pretrained} for n, p in data.processors.items()
    ]
    card = model_card(
        name=run.path.name,
        modalities=modalities,
        counts=counts,
        metrics=metrics,
        training=training,
        dataset=dataset,
    )
    documents = {
        "config.json": {
            "format": 1,
            "model": configs.to_dict(model.config),
            "columns": configs.to_dict(data.columns),
            # `evaluate` on the very table of the training then knows which rows it may judge by.
            "judged": {"table": data.source.fingerprint, "part": name, "rows": list(judged.rows)},
            "scores": configs.to_dict(scores),
        },
        "processors.json": {n: p.to_dict() for n, p in data.processors.items()},
        "metrics.json": {**metrics, "training": training, "counts": counts, "dataset": dataset},
        "README.md": card,
    }
    save_folder(run.path, tensors=model.state_dict(), documents=documents)
    reporter.say(f"{best.why}; {_chosen(best)} Model and card: {run.path}")


def _chosen(best: Best) -> str:
    if best.value is None:
        return "The last weights were kept: there were no validation rows to choose by."
    return f"The weights of step {best.step} were kept: {best.metric} {best.value:.4f} on validation rows."


def _dataset_note(table: Table) -> dict[str, str]:
    """What the table's maker says of it, in `dataset.json` beside it: name, note, licence."""
    path = table.root / "dataset.json"
    if not path.is_file():
        return {}
    said = configs.read(path)
    return {key: str(said[key]) for key in ("name", "note", "licence") if key in said}
