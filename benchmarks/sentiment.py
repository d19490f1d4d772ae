"""Motet's fusion and the peers, on the same data, loop and budget: one table of quality, size and time.

    python benchmarks/sentiment.py [--quick] [--sets emoji,tweets,film,product,clips] [--out FOLDER]

Sets: `emoji` feelings of unseen concepts (picture, name, synthesised speech); `tweets`, `film`, `product`,
texts rated by people, from the folder in MOTET_VADER (it holds hutto_ICWSM_2014.tar.gz, from the source
distribution of vaderSentiment 3.3.2), beside a ridge probe on the same frozen encoder; `clips`, in
which one modality decides (a third each), with what the model says of which by deletion. All fusions
have the same model before them; `parameters` says how alike they are. The number under `quality` is macro-F1,
or Pearson for scores: mean and spread over the seeds, which share one split where the set has one.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import report
from sentiment_sets import ARCHIVE, DECIDES, VADER, clips_table, vader_table

from motet.data.builtin.emoji import build_emoji
from motet.data.columns import infer_columns
from motet.data.split import split_rows
from motet.data.table import open_table
from motet.metrics import softmax
from motet.nn.backbones import available, load_encoder
from motet.predictor import Predictor
from motet.predictor.cells import read_entries
from motet.tasks.evaluate import ask, subsets_of
from motet.train.fit import fit
from motet.train.run import Reporter

FUSIONS = ("attention", "early", "late", "tensor", "lowrank", "mult")
SEEDS = (1111, 1112, 1113, 1114, 1115)
LABEL = {"emoji": "sentiment", "clips": "sentiment", "tweets": "score", "film": "score", "product": "score"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, few rows and epochs: does it run?")
    parser.add_argument("--sets", default="emoji,tweets,film,product,clips")
    parser.add_argument("--fusions", default=",".join(FUSIONS))
    parser.add_argument("--out", help="a folder for the result")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of 1111, 1112, ... 1115")
    given = parser.parse_args()
    seeds = SEEDS[: 1 if given.quick else given.seeds]
    results: dict[str, Any] = {"quick": given.quick, "seeds": list(seeds), "skipped": [], "sets": {}}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ.setdefault("MOTET_CACHE", str(work / "cache"))
        for name in given.sets.split(","):
            table = _table(name, work / "data" / name, quick=given.quick)
            if isinstance(table, str):
                results["skipped"].append(f"{name}: {table}")
                continue
            rows = {f: _fusion(name, table, f, seeds, work, given.quick) for f in given.fusions.split(",")}
            results["sets"][name] = {"fusions": rows} | (_ridge(table, seeds) if name in VADER else {})
    report("sentiment", "cpu", results, given.out)


def _table(name: str, folder: Path, *, quick: bool) -> Path | str:
    """The set's table, or why it is not here."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in VADER:
        source = os.environ.get("MOTET_VADER")
        if not source:
            return f"set MOTET_VADER to the folder that holds {ARCHIVE}"
        return vader_table(Path(source), name, folder, limit=600 if quick else None)
    emoji = build_emoji(folder / "emoji", limit=400 if quick else None)
    return emoji if name == "emoji" else clips_table(emoji, folder, 180 if quick else 900)


def _fusion(
    name: str, table: Path, fusion: str, seeds: tuple[int, ...], work: Path, quick: bool
) -> dict[str, Any]:
    settings = [f"model.fusion={fusion}", "train.epochs=4" if quick else "train.epochs=30"]
    found, seconds, thirds = [], [], []
    for seed in seeds:
        out = work / "runs" / f"{name}-{fusion}-{seed}"
        fit(table, label=LABEL[name], out=out, settings=settings, seed=seed, progress=Reporter(quiet=True))
        metrics = json.loads((out / "metrics.json").read_text())
        found.append(metrics["tasks"][LABEL[name]])
        seconds.append(metrics["training"]["seconds"])
        if name == "clips":
            thirds.append(_thirds(table, Predictor.load(out)))
    measure = "macro_f1" if name in ("emoji", "clips") else "pearson"
    return {
        "quality": _spread([task["full"][measure] or 0.0 for task in found]),
        "text_only": _spread([(task["text_only"] or {}).get(measure) or 0.0 for task in found]),
        "constant": _spread([task["baseline"][measure] or 0.0 for task in found]),
        "parameters": metrics["training"]["parameters"],
        "training_seconds": round(statistics.fmean(seconds), 2),
        "latency_ms": _latency(table, out),
        **({"thirds": {m: _mean([t[m] for t in thirds]) for m in DECIDES}} if thirds else {}),
    }


def _latency(table: Path, folder: Path, calls: int = 10) -> float:
    """Median milliseconds from a row of the table to its answer, decoding included, one at a time."""
    predictor = Predictor.load(folder)
    times = []
    for entry in list(predictor.entries(table))[:calls]:
        begin = time.perf_counter()
        samples = read_entries([entry], predictor.processors, predictor.cache)
        ask(predictor.model, samples)
        times.append((time.perf_counter() - begin) * 1e3)
    return round(statistics.median(times), 2)


def _thirds(table: Path, predictor: Predictor) -> dict[str, dict[str, float]]:
    """Of the test clips, by the modality that decides: accuracy, and how often deletion finds that modality.

    Deletion: the modality without which the probability of the answer falls the most.
    """
    with table.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    test = [entry for entry in predictor.entries(table) if entry.fields["split"] == "test"]
    samples = read_entries(test, predictor.processors, predictor.cache)
    (task,) = predictor.tasks
    said = {
        s: softmax(ask(predictor.model, samples, keep=s).predictions[task.name]) for s in subsets_of(DECIDES)
    }
    whole = said[DECIDES]
    answer = whole.argmax(1)
    every = np.arange(len(rows))
    fall = [
        whole[every, answer] - said[tuple(m for m in DECIDES if m != one)][every, answer] for one in DECIDES
    ]
    blamed = np.argmax(fall, axis=0)
    found = {}
    for m, one in enumerate(DECIDES):
        mine = np.array([row["decides"] == one for row in rows])
        right = np.array([task.classes[a] == row["sentiment"] for a, row in zip(answer, rows, strict=True)])
        found[one] = {
            "accuracy": float(right[mine].mean()),
            "found_by_deletion": float((blamed[mine] == m).mean()),
        }
    return found


def _ridge(table: Path, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Pearson of ridge regression on the mean token of the same encoder; its strength chosen on val."""
    name = available("text")
    if name is None:
        return {"ridge": None}
    encoder = load_encoder(name, "text")
    opened = open_table(table)
    ids = [np.asarray(encoder.tokenizer.encode(str(t)).ids, np.int64)[:128] for t in opened.column("text")]  # type: ignore[attr-defined]
    x = np.stack([tokens.mean(0) for tokens in encoder(ids)]).astype(np.float64)
    y = np.array(opened.column("score"), np.float64)
    columns, found = infer_columns(opened, label="score"), []
    for seed in seeds:
        part = split_rows(opened, columns, seed=seed)
        fits = [
            _solve(x[part["train"]], y[part["train"]], strength) for strength in np.geomspace(1e-3, 1e3, 13)
        ]
        errors = [((x[part["val"]] @ w + b - y[part["val"]]) ** 2).mean() for w, b in fits]
        w, b = fits[int(np.argmin(errors))]
        found.append(float(np.corrcoef(x[part["test"]] @ w + b, y[part["test"]])[0, 1]))
    return {"ridge": _spread(found), "encoder": name}


def _solve(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    middle = x.mean(0)
    centred = x - middle
    w = np.linalg.solve(centred.T @ centred + strength * np.eye(x.shape[1]), centred.T @ (y - y.mean()))
    return w, float(y.mean() - middle @ w)


def _spread(values: list[float]) -> dict[str, float]:
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


if __name__ == "__main__":
    main()
