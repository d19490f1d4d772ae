"""The end of a training: the weights judged once, and the model's folder with its card."""

from __future__ import annotations

from motet import config as configs
from motet.checkpoint import save_folder
from motet.data.table import Table
from motet.model import Motet
from motet.tasks.calibrate import calibrate
from motet.tasks.card import model_card
from motet.tasks.evaluate import ask, evaluate
from motet.tasks.scores import Scores, learn_scores, measure_scores
from motet.train.loop import Best
from motet.train.page import write_page
from motet.train.prepare import Parts
from motet.train.run import Reporter, RunFolder
from motet.types import ModalitySpec


def finish(
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
        {"name": n, "kind": p.spec.kind, "pretrained": _start(p.spec)} for n, p in data.processors.items()
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
    page = write_page(run.path)
    reporter.say(f"{best.why}; {_chosen(best)} Model and card: {run.path}; curves: {page}")


def _start(spec: ModalitySpec) -> str | None:
    """The pretrained encoder that a modality starts from, for people."""
    return f"{spec.backbone.name}, trained further" if spec.backbone else spec.pretrained


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
