"""One evaluation for every task a model was trained for: beside chance, and over modality subsets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from motet.data.collate import collate
from motet.errors import DataError
from motet.model import Motet
from motet.tasks.classify import evaluate_shuffled, evaluate_task
from motet.tasks.retrieve import evaluate_retrieval
from motet.types import Sample, TokenBatch

MAX_SUBSETS = 6  # modalities; beyond, only the full set, all but one, and the single ones


@dataclass(frozen=True)
class Answers:
    """What a model says of N samples. predictions[t]: (N, C) or (N,), embeddings[m]: (N, E)."""

    predictions: dict[str, NDArray[Any]]
    embeddings: dict[str, NDArray[Any]]
    present: NDArray[np.bool_]


def make_batch(model: Motet, samples: Sequence[Sample]) -> TokenBatch:
    """The samples packed for this model, on its device."""
    targets = {task.name: task.kind for task in model.config.tasks}
    return collate(samples, model.config.modalities, targets).to(next(model.parameters()).device)


@torch.inference_mode()
def ask(
    model: Motet, samples: Sequence[Sample], *, keep: Sequence[str] | None = None, batch_size: int = 256
) -> Answers:
    """The model's answers when only the modalities in `keep` are there (default: all)."""
    model.eval()
    names = model.modalities
    kept = set(names if keep is None else keep)
    predictions: dict[str, list[NDArray[Any]]] = {task.name: [] for task in model.config.tasks}
    embeddings: dict[str, list[NDArray[Any]]] = {}
    present = []
    for start in range(0, len(samples), batch_size):
        part = [_only(samples[i], kept) for i in range(start, min(start + batch_size, len(samples)))]
        output = model(make_batch(model, part))
        present.append(output.present.cpu().numpy())
        for task, values in output.predictions.items():
            predictions[task].append(values.float().cpu().numpy())
        for name, vectors in output.embeddings.items():
            embeddings.setdefault(name, []).append(vectors.float().cpu().numpy())
    return Answers(
        {task: np.concatenate(parts) for task, parts in predictions.items()},
        {name: np.concatenate(parts) for name, parts in embeddings.items()},
        np.concatenate(present),
    )


def evaluate(
    model: Motet,
    samples: Sequence[Sample],
    *,
    batch_size: int = 256,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Everything that can be measured on these samples, as JSON values.

    {"n", "retrieval": [one entry per ordered pair], "tasks": {name: ...}, "sentences": [...]}; see
    `evaluate_retrieval`, `evaluate_task` and `evaluate_shuffled`. Rows without a task's label are left
    out of that task; `text_only` repeats the row of the text modality, which often wins alone.

    Raises:
        DataError: there is no sample, or none that has anything the model was trained for.
    """
    if not len(samples):
        raise DataError("There is no row to evaluate on. Give a table with usable rows.", rule="empty")
    rows = [samples[i] for i in range(len(samples))]
    result: dict[str, Any] = {"n": len(rows), "tasks": {}, "sentences": []}
    labelled = [row for row in rows if any(task.name in row.targets for task in model.config.tasks)]
    subsets = subsets_of(model.modalities) if labelled else []
    steps = len(subsets) + (len(model.modalities) if labelled else 0) + bool(model.config.contrastive)
    if model.config.contrastive:
        result["retrieval"] = evaluate_retrieval(ask(model, rows, batch_size=batch_size).embeddings, rows)
        _tell(progress, 1, steps)
    done, said, shuffled = int(bool(model.config.contrastive)), {}, {}
    for subset in subsets:
        said[subset] = ask(model, labelled, keep=subset, batch_size=batch_size)
        _tell(progress, done := done + 1, steps)
    for name in model.modalities if labelled else ():
        others = exchanged(labelled, name)
        shuffled[name] = ask(model, others, batch_size=batch_size).predictions if others else None
        _tell(progress, done := done + 1, steps)
    present = said[model.modalities].present if said else np.zeros((0, len(model.modalities)), dtype=bool)
    text = next((spec.name for spec in model.config.modalities if spec.kind == "text"), None)
    for task in model.config.tasks:
        have = np.array([task.name in row.targets for row in labelled], dtype=bool)
        if not have.any():
            result["tasks"][task.name] = {"kind": task.kind, "n": 0}
            continue
        targets = np.array([row.targets[task.name] for row in labelled if task.name in row.targets])
        by_subset = {subset: answers.predictions[task.name][have] for subset, answers in said.items()}
        measured = evaluate_task(task, by_subset, present[have], targets, model.modalities)
        wrong = {name: found[task.name][have] for name, found in shuffled.items() if found is not None}
        measured["shuffled"] = evaluate_shuffled(
            task, by_subset, wrong, present[have], targets, model.modalities
        )
        measured["text_only"] = next((s for s in measured["subsets"] if s["modalities"] == [text]), None)
        result["tasks"][task.name] = measured
        result["sentences"] += [row["sentence"] for row in (*measured["helps"], *measured["shuffled"])]
    if "retrieval" not in result and not labelled:
        names = ", ".join(task.name for task in model.config.tasks)
        raise DataError(f"No row has a value for {names}, which this model predicts.", rule="no labels")
    return result


def subsets_of(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, in the modalities' order; the full one first."""
    n = len(modalities)
    sizes = range(n, 0, -1) if n <= MAX_SUBSETS else sorted({n, n - 1, 1}, reverse=True)
    return [subset for size in sizes for subset in combinations(modalities, size)]


def exchanged(samples: Sequence[Sample], modality: str) -> list[Sample]:
    """The samples, those with `modality` each with that of another one; [] where fewer than two have it.

    What a model then loses is what it really takes from the modality; a missing one it may be used to.
    """
    have = [i for i, sample in enumerate(samples) if len(sample.pieces.get(modality, ()))]
    if len(have) < 2:
        return []
    order = np.random.default_rng(0).permutation(have)
    out = list(samples)
    for to, of in zip(order, np.roll(order, 1), strict=True):  # one cycle: nobody keeps its own
        pieces = {**samples[to].pieces, modality: samples[of].pieces[modality]}
        out[to] = replace(samples[to], pieces=pieces)
    return out


def _only(sample: Sample, kept: set[str]) -> Sample:
    return replace(sample, pieces={name: piece for name, piece in sample.pieces.items() if name in kept})


def _tell(progress: Callable[[int, int, str], None] | None, done: int, total: int) -> None:
    if progress is not None:
        progress(done, total, "evaluate")
