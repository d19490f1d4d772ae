"""By what the best epoch should be chosen: by half of the validation rows, judged on the other half.

    python benchmarks/epochs.py [--sets stamps,digits] [--seeds 5] [--work FOLDER] [--out FOLDER]

Sets as of fused.py, one model of all modalities a seed. The averaged weights after every epoch answer for
all validation rows; then, for 60 random halves, every criterion picks an epoch by the one half, and the
accuracy of that epoch on the other is noted: of the common head, and of each modality's own. Mean over halves
and seeds, in percent; `epoch` counts from 0. No test row is read. `--work` keeps the answers.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import report, work_folder
from fused import SEEDS
from fused_sets import LABEL, make_table
from numpy.typing import NDArray

from motet.checkpoint import load_folder
from motet.metrics import auroc
from motet.tasks.evaluate import make_batch
from motet.train.fit import look, train_job
from motet.train.job import Job
from motet.train.run import Reporter
from motet.train.settings import read_settings

HALVES = 60
Answers = dict[str, NDArray[np.float64]]  # head -> (epochs, rows, classes) log-probabilities


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default=",".join(LABEL))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of 1111, 1112, ... 1115")
    parser.add_argument("--work", type=Path, help="a folder that keeps tables and answers")
    parser.add_argument("--out", help="a folder for the result")
    given = parser.parse_args()
    with work_folder(given.work) as work:
        seeds = SEEDS[: given.seeds]
        sets = {
            name: compare([answers(name, work, seed) for seed in seeds]) for name in given.sets.split(",")
        }
        report("epochs", "cpu", {"seeds": list(seeds), "halves": HALVES, "sets": sets}, given.out)


def answers(name: str, work: Path, seed: int) -> tuple[NDArray[np.int64], Answers]:
    """The classes of the validation rows, and what each head says of them after each epoch."""
    kept = work / "answers" / f"{name}-{seed}.npz"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            table = make_table(name, work / "tables", seed)
            np.savez_compressed(kept, **_record(table, name, Path(folder), seed))
    held = np.load(kept)
    return held["truth"], {head: held[head].astype(np.float64) for head in held.files if head != "truth"}


def _record(table: Path, name: str, folder: Path, seed: int) -> dict[str, Any]:
    run, weights = folder / "run", {}

    def keep(step: int) -> bool:  # what was saved after the step before
        last = run / "checkpoints" / "last"
        if last.exists():
            saved = load_folder(last)
            weights[saved.documents["state.json"]["step"]] = saved.tensors
        return False

    job = Job(table, LABEL[name], None, (), "fast", seed, False)
    quiet, epochs = Reporter(quiet=True), read_settings((), "fast").train.epochs
    saves = (f"train.checkpoint_steps={look(job, quiet)['steps'] // epochs}", "train.checkpoint_seconds=0")
    trained = train_job(replace(job, settings=saves), run, quiet, stop=keep)
    keep(0)
    val = trained.data.val
    assert val is not None
    samples, model = [val[i] for i in range(len(val))], trained.model.eval()
    (task,) = model.config.tasks
    batch = make_batch(model, samples)
    found: dict[str, list[NDArray[Any]]] = {}
    for step in sorted(weights):
        saved = {k.split("/", 1)[1]: v for k, v in weights[step].items() if k.startswith("average/")}
        model.load_state_dict(saved)
        output = model(batch)
        heads = {"all": output.predictions} | dict(output.modality_predictions)
        for head, said in heads.items():
            logits = said[task.name].detach().log_softmax(-1)
            found.setdefault(head, []).append(logits.numpy().astype(np.float16))
    truth = np.array([sample.targets[task.name] for sample in samples])
    return {"truth": truth} | {head: np.stack(rows) for head, rows in found.items()}


def compare(runs: list[tuple[NDArray[np.int64], Answers]]) -> dict[str, dict[str, float]]:
    """criterion -> head -> accuracy on the half that did not choose, and the epoch chosen."""
    draw, found = np.random.default_rng(0), dict[str, list[dict[str, float]]]()
    for truth, heads in runs:
        for _ in range(HALVES):
            order = draw.permutation(len(truth))
            chooses, judges = np.array_split(order, 2)
            for criterion, numbers in _criteria({h: a[:, chooses] for h, a in heads.items()}, truth[chooses]):
                epoch = int(numbers.argmax())
                row = {h: 100 * _accuracy(a[epoch, judges], truth[judges]) for h, a in heads.items()}
                found.setdefault(criterion, []).append(row | {"epoch": epoch})
    return {
        criterion: {key: round(float(np.mean([row[key] for row in rows])), 1) for key in rows[0]}
        for criterion, rows in found.items()
    }


def _criteria(heads: Answers, truth: NDArray[np.int64]) -> list[tuple[str, NDArray[np.float64]]]:
    def every(measure: Any, head: str) -> NDArray[np.float64]:
        return np.array([measure(said, truth) for said in heads[head]])

    alone = [head for head in heads if head != "all"]
    criteria = [("the last", np.arange(len(heads["all"]), dtype=float))]
    for name, measure in (("AUROC", _area), ("accuracy", _accuracy), ("log loss", _skill)):
        together = every(measure, "all")
        separate = np.mean([every(measure, head) for head in alone], axis=0)
        criteria += [(name, together), (f"{name}, and each alone", (together + separate) / 2)]
    return criteria


def _accuracy(said: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    return float((said.argmax(1) == truth).mean())


def _area(said: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    return auroc(np.exp(said), truth) or 0.0


def _skill(said: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    usual = -np.log(np.bincount(truth)[truth] / len(truth)).mean()
    return 1.0 + float(said[np.arange(len(truth)), truth].mean() / usual)


if __name__ == "__main__":
    main()
