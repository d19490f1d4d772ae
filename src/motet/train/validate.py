"""What is measured every epoch: the loss and its parts, recall, each task's own number, one score."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from motet.metrics import auroc, confusion_matrix, macro_f1, multilabel_metrics, retrieval_metrics, softmax
from motet.train.collapse import spread_of
from motet.types import Output, TokenBatch

LEAST = 1e-12  # a share of nothing would be an infinite loss
_HIGHER = ("score", "R@10", ".macro_f1", ".accuracy", ".auroc", ".skill")


class Epoch(Protocol):
    def batches(self, epoch: int, start: int = 0) -> Iterable[TokenBatch]: ...


def better(value: float, best: float | None, metric: str) -> bool:
    """Whether `value` beats `best`: higher for recall, F1 and accuracy, else lower. NaN never does."""
    if best is None or math.isnan(value):
        return not math.isnan(value)
    return value > best if higher_is_better(metric) else value < best


def higher_is_better(metric: str) -> bool:
    return metric.endswith(_HIGHER)


@torch.no_grad()
def validate(model: nn.Module, objective: nn.Module, loader: Epoch, device: torch.device) -> dict[str, float]:
    """Means over the batches of `loader`, weighted by their samples.

    Besides the loss and its parts: "R@10", the mean over ordered pairs of modalities with each
    batch as the gallery (so use large batches), and per task "<task>.macro_f1", "<task>.accuracy",
    "<task>.auroc", "<task>.mae" and "<task>.skill". Skill is the share of the error that is gone: for
    numbers, of the median's absolute error; for classes, of the log loss of their frequencies (McFadden's
    R squared). "alone.skill" is the mean over the heads of single modalities. "score" is the mean of every
    task's skill and of "alone.skill"; with "R@10" it is the mean of that and of every task's AUROC (of
    numbers, skill), since retrieval still improves long after the log loss of few rows has turned up.
    "rank/<modality>" and "spread/<modality>" tell whether embeddings collapse, see `motet.train.collapse`.
    """
    model.eval()
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    answers: dict[str, list[tuple[Tensor, Tensor]]] = {}
    alone: dict[str, list[tuple[Tensor, Tensor]]] = {}
    vectors: dict[str, list[np.ndarray]] = {}
    for arrived in loader.batches(0):
        batch = arrived.to(device)
        output = model(batch)
        loss, parts = objective(output, batch)
        values = {"loss": loss, **parts} | _recall(output, batch)
        for key, value in values.items():
            sums[key] = sums.get(key, 0.0) + float(value) * len(batch.ids)
            weights[key] = weights.get(key, 0.0) + len(batch.ids)
        for column, (m, rows) in enumerate(output.embeddings.items()):
            found = rows[output.present[:, column]]
            vectors.setdefault(m, []).append(found.float().cpu().numpy())
        for task, predicted in output.predictions.items():
            if task in batch.targets:
                answers.setdefault(task, []).append((predicted.float().cpu(), batch.targets[task].cpu()))
        for m, said in output.modality_predictions.items():
            here = output.present[:, batch.layout.modalities.index(m)].cpu()
            for task in said.keys() & batch.targets.keys():
                pair = said[task].float().cpu()[here], batch.targets[task].cpu()[here]
                alone.setdefault(f"{m}/{task}", []).append(pair)
    result = {key: total / weights[key] for key, total in sums.items()}
    result |= _tasks(answers) | spread_of({m: np.concatenate(parts) for m, parts in vectors.items()})
    skills = [value for key, value in _tasks(alone).items() if key.endswith(".skill")]
    result |= {"alone.skill": float(np.mean(skills))} if skills else {}
    return result | {"score": _score(result, answers.keys())}


def _score(result: Mapping[str, float], tasks: Iterable[str]) -> float:
    if "R@10" in result:
        jobs = [result.get(f"{task}.auroc", result.get(f"{task}.skill")) for task in tasks]
        jobs.append(result["R@10"])
    else:
        jobs = [result.get(key) for key in (*(f"{task}.skill" for task in tasks), "alone.skill")]
    found = [job for job in jobs if job is not None]
    return float(np.mean(found)) if found else -result.get("loss", 0.0)


def _recall(output: Output, batch: TokenBatch) -> dict[str, float]:
    """Mean R@10 over ordered pairs within one batch."""
    found = {}
    group = batch.group.cpu().numpy()
    for m, vectors in output.embeddings.items():
        rows = output.present[:, batch.layout.modalities.index(m)].cpu().numpy()
        found[m] = (vectors.float().cpu().numpy()[rows], group[rows])
    values = []
    for a, b in permutations(found, 2):
        measured = retrieval_metrics(found[a][0], found[b][0], found[a][1][:, None] == found[b][1])
        values += [measured["R@10"]] if measured["n"] else []
    return {"R@10": float(np.mean(values))} if values else {}


def _tasks(answers: Mapping[str, list[tuple[Tensor, Tensor]]]) -> dict[str, float]:
    """What is measured of each task by its logits or numbers, and its targets."""
    result: dict[str, float] = {}
    measured: dict[str, float | None]
    for task, pairs in answers.items():
        predicted, target = (torch.cat(side).numpy() for side in zip(*pairs, strict=True))
        classes = predicted.ndim == 2 and target.ndim == 1
        kept = target >= 0 if classes else ~np.isnan(target.reshape(len(target), -1)).any(1)
        predicted, target = predicted[kept], target[kept]
        if not len(target):
            continue
        if target.ndim == 2:
            found = multilabel_metrics(predicted, target, [str(c) for c in range(target.shape[1])])
            measured = {k: found.get(k) for k in ("macro_f1", "accuracy", "auroc")}
            frequency = np.where(target > 0.5, target.mean(0), 1 - target.mean(0))
            loss = np.logaddexp(0.0, np.where(target > 0.5, -predicted, predicted))
            measured["skill"] = _gone(loss.mean(), -np.log(frequency).mean())
        elif predicted.ndim == 2:
            confusion = confusion_matrix(predicted.argmax(1), target, predicted.shape[1])
            shares, rows = softmax(predicted), np.arange(len(target))
            measured = {"macro_f1": macro_f1(confusion), "accuracy": confusion.trace() / len(target)}
            measured["auroc"] = auroc(shares, target)
            frequency = confusion.sum(1)[target] / len(target)
            loss = -np.log(np.maximum(shares[rows, target], LEAST))
            measured["skill"] = _gone(loss.mean(), -np.log(frequency).mean())
        else:
            error = np.abs(predicted - target).mean()
            measured = {"mae": error, "skill": _gone(error, np.abs(target - np.median(target)).mean())}
        result |= {f"{task}.{key}": float(value) for key, value in measured.items() if value is not None}
    return result


def _gone(error: float, usual: float) -> float:
    """The share of the usual error that is gone; 0 where there is none to lose."""
    return 1.0 - float(error / usual) if usual > 0 else 0.0
