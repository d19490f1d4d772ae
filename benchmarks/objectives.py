"""What each choice of objective is worth: every arm changes one setting, all else and the splits alike.

    python benchmarks/objectives.py [--tables retrieval,classes] [--seeds 3] [--work FOLDER] [--out FOLDER]

`retrieval`: Tux Paint's stamps, a picture and its English caption, which 3 in 10 stamps share with
another; nothing but alignment is learned. InfoNCE beside the sigmoid loss, each with and without equal
captions counted as equals (`loss.multi_positive`); R@1, R@10 and mAP, the mean of both directions, where
every item with the same caption is a right answer. `classes`: digits seen and heard, and stamps (see
fused.py), with per-modality heads and without; modulation of a modality that learns too fast; losses
balanced by learned uncertainty; features of dropped modalities guessed from the others, beside the label or
alone at first. Accuracy in percent with everything and with each modality alone. On validation and test
rows, mean and spread over seeds, each with a split of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from common import report, work_folder
from fused import PARTS, SEEDS, one_run
from fused_sets import BUILT, LANGUAGE, MODALITIES, make_table, read_built, write_table

from motet.data.builtin.tuxpaint import build_tuxpaint
from motet.predictor import Predictor
from motet.train.fit import fit
from motet.train.run import Reporter

RETRIEVAL = {
    "infonce": ["loss.contrastive=infonce"],
    "infonce, plain": ["loss.contrastive=infonce", "loss.multi_positive=false"],
    "sigmoid": ["loss.contrastive=sigmoid"],
    "sigmoid, plain": ["loss.contrastive=sigmoid", "loss.multi_positive=false"],
}
HEADS = "model.late_heads=true"
CLASSES = {
    "per-modality heads": [HEADS],
    "no per-modality heads": ["model.late_heads=false"],
    "modulation 1": [HEADS, "train.modulation=1"],
    "uncertainty": [HEADS, "loss.balance=uncertainty"],
    "guess hidden": [HEADS, "model.guess_hidden=true"],
    "guess hidden, 5 epochs alone first": [HEADS, "model.guess_hidden=true", "train.pretrain=5"],
}
MEASURES = ("R@1", "R@10", "mAP")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", default="retrieval,classes")
    parser.add_argument("--sets", default="digits,stamps", help="for classes")
    parser.add_argument("--seeds", type=int, default=3, help="how many of 1111, 1112, ... 1115")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="in every arm")
    parser.add_argument("--work", type=Path, help="a folder that keeps tables and finished runs")
    parser.add_argument("--out", help="a folder for the result")
    given = parser.parse_args()
    seeds = SEEDS[: given.seeds]
    result: dict[str, Any] = {"seeds": list(seeds), "settings": given.set}
    with work_folder(given.work) as work:
        if "retrieval" in given.tables:
            result["retrieval"] = {
                arm: retrieval(work, arm, [*given.set, *settings], seeds)
                for arm, settings in RETRIEVAL.items()
            }
        if "classes" in given.tables:
            result["classes"] = {
                name: {
                    arm: classes(work, name, [*given.set, *settings], seeds)
                    for arm, settings in CLASSES.items()
                }
                for name in given.sets.split(",")
            }
    report("objectives", "cpu", result, given.out)


def retrieval(work: Path, arm: str, settings: list[str], seeds: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {part: [] for part in PARTS}
    for seed in seeds:
        out = work / "retrieval" / f"{arm.replace(', ', '-')}-{seed}"
        kept = out.with_suffix(".json")
        if not kept.exists():
            table = captions(work / "tables", seed)
            fit(
                table,
                out=out,
                settings=settings,
                seed=seed,
                retrieval=True,
                progress=Reporter(quiet=True),
                resume=(out / "run.json").exists(),
            )
            predictor = Predictor.load(out)
            said = {part: _both_ways(predictor.evaluate(table, part=part)["retrieval"]) for part in PARTS}
            kept.write_text(json.dumps(said))
        for part, row in json.loads(kept.read_text()).items():
            found[part].append(row)
    return {part: _over_seeds(rows) for part, rows in found.items()}


def captions(work: Path, seed: int) -> Path:
    """Stamps that have a picture, with the English caption; equal captions are one group."""
    folder = work / f"stamps-{seed}"
    rows = read_built(build_tuxpaint(folder / BUILT, language=LANGUAGE, seed=seed))
    columns = ["id", "picture", "caption", "group", "split"]
    return write_table(folder / "captions.csv", columns, [row for row in rows if row["picture"]])


def _both_ways(rows: list[dict[str, Any]]) -> dict[str, float]:
    return {m: 100 * statistics.fmean(row[m] for row in rows) for m in MEASURES}


def classes(work: Path, name: str, settings: list[str], seeds: tuple[int, ...]) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {part: [] for part in PARTS}
    for seed in seeds:
        table = make_table(name, work / "tables", seed)
        measured = one_run(table, name, MODALITIES[name], work, seed, settings)
        wanted = ("+".join(MODALITIES[name]), *MODALITIES[name])
        for part in PARTS:
            found[part].append({subset: measured[part][subset] for subset in wanted})
    return {part: _over_seeds(rows) for part, rows in found.items()}


def _over_seeds(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    return {
        key: {
            "mean": round(statistics.fmean(row[key] for row in rows), 2),
            "std": round(statistics.stdev(row[key] for row in rows), 2) if len(rows) > 1 else 0.0,
        }
        for key in rows[0]
    }


if __name__ == "__main__":
    main()
