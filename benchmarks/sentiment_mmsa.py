"""The models of the package MMSA on the very features, rows and answers of Motet's runs on the clips.

    pip install --no-deps --target FOLDER MMSA easydict nvidia-ml-py3; pip install pandas
    PYTHONPATH=FOLDER python benchmarks/sentiment_mmsa.py WORK [--models tfn,lmf] [--seeds N] [--out FOLDER]

WORK: the folder of `benchmarks/sentiment.py --sets clips --work WORK`, whose table and prepared tokens (text,
log-mel sound, frames) are padded into MMSA's layout. MMSA regresses -1 and 1; its `Has0_acc_2`, the sign,
stands beside Motet's accuracy on the same test rows. MMSA trains with its own settings for MOSI and until its
own early stop. It asks for a GPU's index even without one: `torch.cuda.set_device` does nothing here.
"""

from __future__ import annotations

import argparse
import csv
import json
import pickle
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import report
from sentiment import SEEDS
from sentiment_clips import DECIDES

from motet.predictor import Predictor
from motet.predictor.cells import read_entries

NAMES = dict(zip(DECIDES, ("audio", "text", "vision"), strict=True))
PARTS = {"train": "train", "val": "valid", "test": "test"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work")
    parser.add_argument("--models", default="tfn,lmf,mult")
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    parser.add_argument("--out")
    given = parser.parse_args()
    work, seeds = Path(given.work), SEEDS[: given.seeds]
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        features = Path(folder) / "features.pkl"
        shapes = export(
            work / "data" / "clips" / "clips.csv", work / "runs" / f"clips-late-{SEEDS[0]}", features
        )
        for model in given.models.split(","):
            found[f"mmsa {model}"] = run_mmsa(model, features, seeds, Path(folder))
            print(model, found[f"mmsa {model}"], flush=True)
    for fusion in ("late", *given.models.split(",")):
        name = {"tfn": "tensor", "lmf": "lowrank"}.get(fusion, fusion)
        runs = [work / "runs" / f"clips-{name}-{seed}" / "metrics.json" for seed in seeds]
        said = [json.loads(path.read_text()) for path in runs if path.is_file()]
        if said:
            found[f"motet {name}"] = {
                "accuracy": _spread([m["tasks"]["answer"]["full"]["accuracy"] for m in said]),
                "parameters": said[0]["training"]["parameters"],
                "seconds": statistics.median(m["training"]["seconds"] for m in said),
            }
    report("sentiment_mmsa", "cpu", {"seeds": list(seeds), "shapes": shapes, "models": found}, given.out)


def export(table: Path, run: Path, out: Path) -> dict[str, Any]:
    """Write MMSA's layout: parts of arrays (N, time, size), padded with zeros at the end."""
    predictor = Predictor.load(run)
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    samples = read_entries(list(predictor.entries(table)), predictor.processors, predictor.cache)
    data: dict[str, Any] = {}
    longest = {m: max(len(s.pieces[m]) for s in samples) for m in DECIDES}  # type: ignore[union-attr]
    for part, name in PARTS.items():
        mine = [i for i, row in enumerate(rows) if row["split"] == part]
        data[name] = {
            "id": [rows[i]["id"] for i in mine],
            "raw_text": [rows[i]["transcript"] for i in mine],
            "regression_labels": [1.0 if rows[i]["answer"] == "yes" else -1.0 for i in mine],
        }
        for modality, key in NAMES.items():
            pieces = [samples[i].pieces[modality].values for i in mine]  # type: ignore[union-attr]
            padded = np.zeros((len(mine), longest[modality], pieces[0].shape[1]), np.float32)
            for row, piece in zip(padded, pieces, strict=True):
                row[: len(piece)] = piece
            data[name][key] = padded
            data[name][f"{key}_lengths"] = [len(piece) for piece in pieces]
    with out.open("wb") as file:
        pickle.dump(data, file)  # the only form that MMSA reads
    return {key: list(data["train"][key].shape) for key in NAMES.values()}


def run_mmsa(model: str, features: Path, seeds: tuple[int, ...], folder: Path) -> dict[str, Any]:
    """Train and test it with every seed, by MMSA's own loop."""
    import MMSA.run

    torch.cuda.set_device = lambda *_: None
    results: list[dict[str, float]] = []
    parameters: list[int] = []
    once, count = MMSA.run._run, MMSA.run.count_parameters
    MMSA.run._run = lambda *args, **more: results.append(once(*args, **more)) or results[-1]
    MMSA.run.count_parameters = lambda net: parameters.append(count(net)) or parameters[-1]
    begin = time.perf_counter()
    places = {f"{what}_dir": folder / model for what in ("model_save", "res_save", "log")}
    (folder / model).mkdir()
    MMSA.run.MMSA_run(
        model,
        "mosi",
        seeds=list(seeds),
        gpu_ids=[],
        num_workers=0,
        verbose_level=0,
        custom_feature=str(features),
        **places,
    )
    MMSA.run._run, MMSA.run.count_parameters = once, count
    return {
        "accuracy": _spread([row["Has0_acc_2"] for row in results]),
        "parameters": parameters[-1],
        "seconds": round((time.perf_counter() - begin) / len(seeds), 1),
    }


def _spread(values: list[float]) -> dict[str, Any]:
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "std": std, "values": [float(value) for value in values]}


if __name__ == "__main__":
    main()
