"""All fusions on the same data, loop and budget: one table of quality, size and time.

    python benchmarks/sentiment.py [--sets emoji,clips,tweets,film,product] [--fusions late,mult,...]
        [--rows N] [--epochs N] [--seeds N] [--text BACKBONE] [--work FOLDER] [--as NAME] [--out FOLDER]

Sets: `emoji`, feelings of unseen concepts (picture, name, synthesised speech; a seed draws the split);
`clips`, in which one modality decides, a third each (see sentiment_clips.py), with how often deletion and
attention name it; `tweets`, `film`, `product`, texts rated by 20 people each, from the folder in
$MOTET_VADER (that of hutto_ICWSM_2014.tar.gz in the source distribution of vaderSentiment 3.3.2), beside a
ridge probe on the mean token of the same frozen encoder. Every fusion stands behind the same model; with
three modalities, all models are within 7 % of the default's size. `quality` is macro-F1, or Pearson for
scores, on test rows: mean and spread over the seeds 1111, 1112, ...; `beside_default`: each seed's difference
to the default fusion; `validation`: the same on validation rows, or for scores 1 - error /
error of the median. Training and latency are CPU time of
the process, which others at work on the machine change little. Runs that are complete in `--work` are not run
again, so that a long comparison can be cut and go on.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import report, work_folder
from sentiment_clips import DECIDES, clips_table, thirds
from sentiment_sets import ARCHIVE, VADER, emoji_table, vader_table

from motet.data.builtin.emoji import build_emoji
from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.groups import group_rows
from motet.data.split import split_rows
from motet.data.table import open_table
from motet.predictor import Predictor
from motet.predictor.cells import read_entries
from motet.tasks.evaluate import ask
from motet.train.fit import fit
from motet.train.run import Reporter
from motet.train.settings import ModelSettings

FUSIONS = ("late", "early", "attention", "hierarchical", "mean", "tensor", "lowrank", "mult")
SEEDS = (1111, 1112, 1113, 1114, 1115)
LABEL = {"emoji": "sentiment", "clips": "answer"} | dict.fromkeys(VADER, "score")
EPOCHS = {"emoji": 16, "clips": 16} | dict.fromkeys(VADER, 16)
CLIPS = 900
KEPT = "benchmark.json"  # beside a run: CPU seconds of its `fit`, its thirds


def main() -> None:
    given = _arguments()
    results: dict[str, Any] = {
        **{"seeds": list(SEEDS[: given.seeds]), "default": ModelSettings().fusion, "skipped": [], "sets": {}}
    }
    with work_folder(given.work and Path(given.work).resolve()) as work:
        for name in given.sets.split(","):
            table = _table(name, work / "data" / name, given.rows)
            if isinstance(table, str):
                results["skipped"].append(f"{name}: {table}")
                continue
            rows = {f: _fusion(name, table, f, given, work) for f in given.fusions.split(",")}
            _beside_default(rows)
            for fusion, milliseconds in _latencies(name, table, list(rows), work).items():
                rows[fusion]["latency_ms"] = milliseconds
            best = max(rows, key=lambda f: rows[f]["quality"]["mean"])
            epochs = given.epochs or EPOCHS[name]
            results["sets"][name] = {"epochs": epochs, "best": best, "fusions": rows}
            if name in VADER:
                run = _run(work, name, given.fusions.split(",")[0], SEEDS[0])
                results["sets"][name] |= _ridge(table, run, SEEDS[: given.seeds])
            _print(name, results["sets"][name])
    report(given.name, "cpu", results, given.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sets", default="emoji,clips,tweets,film,product")
    parser.add_argument("--fusions", default=",".join(FUSIONS))
    parser.add_argument("--rows", type=int, help="at most so many texts or clips of a set")
    parser.add_argument("--epochs", type=int, help="of every run")
    parser.add_argument("--seeds", type=int, default=len(SEEDS), help="how many of 1111, 1112, ... 1115")
    parser.add_argument("--text", help="the text encoder, as --set text.backbone= takes it")
    parser.add_argument("--work", help="a folder that keeps data and runs")
    parser.add_argument("--as", dest="name", default="sentiment", help="the result's name")
    parser.add_argument("--out", help="a folder for the result")
    return parser.parse_args()


def _table(name: str, folder: Path, rows: int | None) -> Path | str:
    """The set's table, or why it is not here."""
    folder.mkdir(parents=True, exist_ok=True)
    if name in VADER:
        source = os.environ.get("MOTET_VADER")
        if not source:
            return f"set MOTET_VADER to the folder that holds {ARCHIVE}"
        return vader_table(Path(source), name, folder, limit=rows)
    if name == "emoji":
        return emoji_table(build_emoji(folder / "emoji"), folder)
    done = folder / "clips.csv"
    return done if done.is_file() else clips_table(folder, rows or CLIPS)


def _run(work: Path, name: str, fusion: str, seed: int) -> Path:
    return work / "runs" / f"{name}-{fusion}-{seed}"


def _fusion(name: str, table: Path, fusion: str, given: argparse.Namespace, work: Path) -> dict[str, Any]:
    epochs = given.epochs or EPOCHS[name]
    settings = [f"model.fusion={fusion}", f"train.epochs={epochs}"]
    settings += [f"text.backbone={given.text}"] if given.text else []
    settings += ["train.batch_size=32"] if name == "emoji" else []  # a few hundred rows
    measure, watched = ("pearson", "skill") if name in VADER else ("macro_f1", "macro_f1")
    found, kept, checked = [], [], []
    for seed in SEEDS[: given.seeds]:
        out = _run(work, name, fusion, seed)
        if not (out / KEPT).is_file():
            shutil.rmtree(out, ignore_errors=True)  # of a run that was cut
            quiet, begin = Reporter(quiet=True), time.process_time()
            fit(table, label=LABEL[name], out=out, settings=settings, seed=seed, progress=quiet)
            more: dict[str, Any] = {"core_seconds": time.process_time() - begin}
            if name == "clips":
                more["thirds"] = thirds(table, Predictor.load(out))
            (out / KEPT).write_text(json.dumps(more))
        found.append(json.loads((out / "metrics.json").read_text()))
        kept.append(json.loads((out / KEPT).read_text()))
        checked.append(_validation(out, f"{LABEL[name]}.{watched}", found[-1]["training"]["best_step"]))
    tasks = [metrics["tasks"][LABEL[name]] for metrics in found]
    result: dict[str, Any] = {
        row: _spread([(task[key] or {}).get(measure) or 0.0 for task in tasks])
        for row, key in (("quality", "full"), ("text_only", "text_only"), ("constant", "baseline"))
    }
    result["validation"] = _spread(checked)
    result["parameters"] = found[-1]["training"]["parameters"]
    result["training_seconds"] = round(statistics.median(each["core_seconds"] for each in kept), 1)
    if name == "clips":
        result["thirds"] = {one: _mean([each["thirds"][one] for each in kept]) for one in DECIDES}
    print(json.dumps({name: {fusion: result}}), file=sys.stderr, flush=True)
    return result


def _validation(run: Path, measure: str, best: int) -> float:
    """The measure on validation rows of the weights that were kept."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (kept,) = (line for line in lines if line["kind"] == "epoch" and line["step"] == best)
    return float(kept["val"][measure])


def _beside_default(rows: dict[str, Any]) -> None:
    default = ModelSettings().fusion
    if default in rows:
        own = rows[default]["quality"]["values"]
        for row in rows.values():
            pairs = zip(row["quality"]["values"], own, strict=True)
            row["beside_default"] = _spread([theirs - ours for theirs, ours in pairs])


def _latencies(name: str, table: Path, fusions: list[str], work: Path, calls: int = 20) -> dict[str, float]:
    """Median milliseconds from the prepared tokens of one row to its answer; the fusions take turns."""
    predictors = {fusion: Predictor.load(_run(work, name, fusion, SEEDS[0])) for fusion in fusions}
    one = predictors[fusions[0]]
    entries = [entry for entry, _ in zip(one.entries(table), range(calls), strict=False)]
    times: dict[str, list[float]] = {fusion: [] for fusion in fusions}
    for sample in read_entries(entries, one.processors, one.cache):
        for fusion, predictor in predictors.items():
            begin = time.process_time()
            ask(predictor.model, [sample])  # type: ignore[list-item]
            times[fusion].append((time.process_time() - begin) * 1e3)
    return {fusion: round(statistics.median(took), 2) for fusion, took in times.items()}


def _ridge(table: Path, run: Path, seeds: tuple[int, ...]) -> dict[str, Any]:
    """Pearson of ridge regression on the mean token of the run's encoder, its strength chosen on val."""
    predictor, opened = Predictor.load(run), open_table(table)
    columns = infer_columns(opened, label="score")
    data = Dataset(opened, columns, predictor.processors, range(len(opened)), cache=predictor.cache)
    samples = [data[i] for i in range(len(data))]
    x = np.stack([sample.pieces["text"].values.astype(np.float64).mean(0) for sample in samples])
    y = np.array([sample.targets["score"] for sample in samples], np.float64)
    groups, found = group_rows(opened, columns, retrieval=False), []
    for seed in seeds:
        part = split_rows(opened, columns, seed=seed, groups=groups)
        strengths = np.geomspace(1e-3, 1e3, 13)
        fits = [_solve(x[part["train"]], y[part["train"]], strength) for strength in strengths]
        errors = [((x[part["val"]] @ w + b - y[part["val"]]) ** 2).mean() for w, b in fits]
        w, b = fits[int(np.argmin(errors))]
        found.append(float(np.corrcoef(x[part["test"]] @ w + b, y[part["test"]])[0, 1]))
    return {"ridge": _spread(found), "encoder": predictor.processors["text"].spec.pretrained}


def _solve(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    middle = x.mean(0)
    centred = x - middle
    w = np.linalg.solve(centred.T @ centred + strength * np.eye(x.shape[1]), centred.T @ (y - y.mean()))
    return w, float(y.mean() - middle @ w)


def _print(name: str, found: dict[str, Any]) -> None:
    """The set's rows as a table, for people."""
    head = ("fusion", "quality", "beside default", "text only", "parameters", "training", "latency")
    lines = ["", f"{name}, {found['epochs']} epochs", _line(head), _line(["---"] * len(head))]
    for fusion, row in found["fusions"].items():
        spreads = [row[k] for k in ("quality", "beside_default", "text_only") if k in row]
        numbers = [f"{each['mean']:.3f} +- {each['std']:.3f}" for each in spreads]
        size, seconds = f"{row['parameters'] / 1e3:.0f}k", f"{row['training_seconds']:.0f} s"
        lines.append(_line([fusion, *numbers, size, seconds, f"{row['latency_ms']:.1f} ms"]))
    constant = next(iter(found["fusions"].values()))["constant"]["mean"]
    ridge = f"; ridge {found['ridge']['mean']:.3f}" if "ridge" in found else ""
    lines.append(f"constant {constant:.3f}{ridge}")
    told = {fusion: row["thirds"] for fusion, row in found["fusions"].items() if "thirds" in row}
    if told:
        lines += ["", _line(["fusion", *(f"{one}: right, by deletion, by attention" for one in DECIDES)])]
        lines.append(_line(["---"] * (1 + len(DECIDES))))
    for fusion, thirds_ in told.items():
        cells = [", ".join(f"{number:.2f}" for number in thirds_[one].values()) for one in DECIDES]
        lines.append(_line([fusion, *cells]))
    print("\n".join(lines), file=sys.stderr, flush=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float]) -> dict[str, Any]:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "values": values}


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.fmean(row[key] for row in rows) for key in rows[0]}


if __name__ == "__main__":
    main()
