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
    batch as the gallery (so use large batches), and per task "<task>.macro_f1", "<task>.accuracy"
    and "<task>.auroc", or "<task>.mae" and "<task>.skill" (1 - error / error of the median). "score" is
    the mean of recall, AUROC and skill: the loss of a small set often rises while all of these still
    improve, and on few rows F1 jumps from epoch to epoch where AUROC does not. "rank/<modality>" and
    "spread/<modality>" tell whether embeddings collapse, see `motet.train.collapse`.
    """
    model.eval()
    sums: dict[str, float] = {}
    weights: dict[str, float] = {}
    answers: dict[str, list[tuple[Tensor, Tensor]]] = {}
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
    result = {key: total / weights[key] for key, total in sums.items()}
    result |= _tasks(answers) | spread_of({m: np.concatenate(parts) for m, parts in vectors.items()})
    jobs = [value for key, value in result.items() if key.endswith(("R@10", ".auroc", ".skill"))]
    return result | {"score": float(np.mean(jobs)) if jobs else -result.get("loss", 0.0)}


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
    result: dict[str, float] = {}
    for task, pairs in answers.items():
        predicted, target = (torch.cat(side).numpy() for side in zip(*pairs, strict=True))
        if target.ndim == 2:
            kept = ~np.isnan(target).any(1)
            names = [str(c) for c in range(target.shape[1])]
            found = multilabel_metrics(predicted[kept], target[kept], names)
            shown = {k: found.get(k) for k in ("macro_f1", "accuracy", "auroc")}
            result |= {f"{task}.{k}": float(v) for k, v in shown.items() if v is not None}
        elif predicted.ndim == 2:
            kept = target >= 0
            if kept.any():
                confusion = confusion_matrix(predicted[kept].argmax(1), target[kept], predicted.shape[1])
                result[f"{task}.macro_f1"] = macro_f1(confusion)
                result[f"{task}.accuracy"] = float(confusion.trace() / kept.sum())
                area = auroc(softmax(predicted[kept]), target[kept])
                result |= {} if area is None else {f"{task}.auroc": area}
        else:
            kept = ~np.isnan(target)
            if kept.any():
                error = float(np.abs(predicted[kept] - target[kept]).mean())
                constant = float(np.abs(target[kept] - np.median(target[kept])).mean())
                result[f"{task}.mae"] = error
                result[f"{task}.skill"] = 1.0 - error / constant if constant > 0 else 0.0
    return result
