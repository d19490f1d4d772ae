"""What smaller vectors cost, and whether late interaction pays: recall of one model on one table.

    python benchmarks/vectors.py --model motet-demo/model --table motet-demo/data --part val

Every ordered pair of modalities of the rows of one part ("judged": those that judged the model after its
training on this very table): R@1, 5 and 10 of whole fp32 vectors, of first dimensions, of int8 and binary
ones, of late interaction alone and added to the cosine (as `--rerank` has it, here over all rows). Rows of
one group, and of equal contents, are right answers.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np
from common import report

from motet.data.table import open_table
from motet.metrics import KS
from motet.predictor import Predictor
from motet.predictor.cells import Broken, read_entries
from motet.predictor.late import max_sim, token_vectors
from motet.predictor.tables import rows_of
from motet.predictor.vectors import similarity, smaller
from motet.tasks.retrieve import Belonging
from motet.types import Sample


def recall(scores: np.ndarray, match: np.ndarray) -> dict[str, float]:
    """scores, match: (queries, items); every query has an answer. Equal scores count against the model."""
    order = np.lexsort((match, -scores), axis=1)
    ranks = np.take_along_axis(match, order, axis=1).argmax(1) + 1
    return {f"R@{k}": round(float((ranks <= k).mean()), 4) for k in KS}


def measure(model: Predictor, table: str, part: str, dims: list[int]) -> dict[str, Any]:
    opened = open_table(table)
    if part == "judged":
        assert model.judged is not None and model.judged.table == opened.fingerprint, "not the model's table"
        rows = list(model.judged.rows)
    else:
        rows, part = rows_of(opened, model.columns.bind(opened), part)
    every = model.entries(opened)
    entries = [every[i] for i in rows]
    samples: list[Sample] = []
    for entry, sample in zip(entries, read_entries(entries, model.processors, model.cache), strict=True):
        assert not isinstance(sample, Broken), f"{entry.where}: {sample}"
        samples.append(replace(sample, group=str(entry.fields.get("group") or "")))
    vectors, tokens = model.encode_entries(entries), token_vectors(model, entries)
    belonging = Belonging(samples, model.modalities)
    found: dict[str, Any] = {}
    for a, b in permutations(model.modalities, 2):
        q, g = np.flatnonzero(belonging.has[a] & belonging.has[b]), np.flatnonzero(belonging.has[b])
        match = belonging.together(a, b, q, g)
        x, y = (np.stack([vectors[i][m] for i in own]) for m, own in ((a, q), (b, g)))  # type: ignore[index]
        cosine = similarity(x, y)
        late = np.array([[max_sim(tokens[i][a], tokens[j][b]) for j in g] for i in q])  # type: ignore[index]
        forms = {"fp32": cosine, "late": late, "fp32 + late": cosine + late}
        for count in dims:
            forms[f"first {count}"] = similarity(smaller(x, dims=count), smaller(y, dims=count))
        for precision in ("int8", "binary"):
            forms[precision] = similarity(*(smaller(v, precision=precision) for v in (x, y)))
        found[f"{a} -> {b}"] = {
            "queries": len(q),
            "gallery": len(g),
            **{name: recall(scores, match) for name, scores in forms.items()},
        }
    names = next(iter(found.values())).keys() - {"queries", "gallery"}
    mean = {n: round(float(np.mean([pair[n]["R@10"] for pair in found.values()])), 4) for n in sorted(names)}
    return {"part": part, "rows": len(rows), "width": model.width, "mean R@10": mean, "pairs": found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--table", required=True)
    parser.add_argument("--part", default="val")
    parser.add_argument("--dims", type=int, nargs="*", default=[8, 16, 32, 64])
    parser.add_argument("--out", help="folder for the result")
    parser.add_argument("--as", dest="name", default="vectors", help="the result's name")
    said = parser.parse_args()
    model = Predictor.load(said.model, device="cpu")
    dims = [count for count in said.dims if count < model.width]
    report(said.name, "cpu", measure(model, said.table, said.part, dims), said.out)


if __name__ == "__main__":
    main()
