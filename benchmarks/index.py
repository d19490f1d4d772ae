"""Are the stores of an index fast, and do they find what comparing with every row finds?

    python benchmarks/index.py [--rows 200000] [--stores lancedb exact] [--model MODEL] [--out DIR]

Clustered vectors of width 384, queries near some of them. Each store is held against exact torch in
the same run, its queries taken in turn with torch's: recall@10 and median times, unfiltered and under
filters that keep a tenth and a hundredth of the rows; seconds to add the rows and build the index.
A store's time holds everything that `Index.search` does with a query vector, fields and JSON included.

With a model instead, from sentences to hits: queries a second of encoding and comparing with all rows one by
one (torch), of `Index.search` and of `Index.search_many`, in turn, over an index of the model's width.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import in_turn, report, side_by_side

from motet.index.address import ModelRef, create_store, drop_store, new_pointer, write_pointer
from motet.index.filter import Filter, parse_filter
from motet.index.index import Index
from motet.index.store import Row, Store
from motet.predictor import Predictor

WIDTH, CLUSTERS, TOP = 384, 2000, 10
FILTERS = {"all": 1.0, "10 %": 0.1, "1 %": 0.01}
TOGETHER = 64  # queries of `search_many`
WORDS = ["a", "red", "small", "dog", "sleeps", "near", "the", "blue", "house", "in", "rain"]


def unit(x: np.ndarray) -> np.ndarray:
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


def clustered(rows: int, queries: int, seed: int, width: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (rows, E) around random centres, and queries (queries, E) near some of them."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.normal(size=(CLUSTERS, width)))
    near = 0.6 / np.sqrt(width)
    x = unit(centres[rng.integers(0, CLUSTERS, rows)] + near * rng.normal(size=(rows, width)))
    q = unit(x[rng.integers(0, rows, queries)] + near * rng.normal(size=(queries, width)))
    return x, q


def fill(store: Store, x: np.ndarray, price: np.ndarray) -> dict[str, float]:
    begin = time.perf_counter()
    for start in range(0, len(x), 10_000):
        part = range(start, min(start + 10_000, len(x)))
        store.write([Row(str(i), "d", {"price": float(price[i])}, {"text": x[i]}) for i in part])
    added = time.perf_counter()
    store.flush()
    return {"add s": added - begin, "build s": time.perf_counter() - added}


def compare(
    store: Store, x: torch.Tensor, q: np.ndarray, price: np.ndarray, share: float
) -> dict[str, float]:
    """Recall and times of one store under one filter, beside exact torch."""
    where: Filter | None = None if share == 1 else parse_filter(f"price < {share}")
    kept = None if share == 1 else torch.from_numpy(price < share)

    def exact(query: np.ndarray) -> list[str]:
        scores = x @ torch.from_numpy(query)
        if kept is not None:
            scores = torch.where(kept, scores, -torch.inf)
        return [str(i) for i in scores.topk(TOP).indices.tolist()]

    def found(query: np.ndarray) -> list[str]:
        return [hit.id for hit in store.search(query, TOP, where=where)]

    recall = np.mean([len({*exact(v)} & {*found(v)}) / TOP for v in q])
    ms = side_by_side(
        {"torch": _in_turn(exact, q), "store": _in_turn(found, q)}, device="cpu", rounds=len(q), warmup=3
    )
    return {
        "recall@10": float(recall),
        "p50 ms": ms["store"],
        "torch p50 ms": ms["torch"],
        "of torch": ms["store"] / ms["torch"],
    }


def end_to_end(
    name: str, folder: Path, model: Predictor, x: np.ndarray, price: np.ndarray
) -> dict[str, float]:
    """Queries a second from sentences to hits; the ways take turns."""
    pointer = new_pointer(name, ModelRef(model.fingerprint, model.width))
    store = create_store(folder, pointer)
    fill(store, x, price)
    write_pointer(folder, pointer)
    index = Index(folder, pointer, store, model)
    rng, every = np.random.default_rng(0), torch.from_numpy(x)
    asked = [" ".join(rng.choice(WORDS, 12)) for _ in range(TOGETHER)]

    def scan() -> None:
        for text in asked:
            (every @ torch.from_numpy(model.encode_query([text])[0])).topk(TOP)

    def one_by_one() -> None:
        for text in asked:
            index.search(text, top=TOP)

    runs = {
        "encode and scan": scan,
        "search": one_by_one,
        "search_many": lambda: index.search_many(asked, top=TOP),
        "encode alone": lambda: [model.encode_query([text]) for text in asked],
        "encode together": lambda: model.encode_query(asked),
    }
    times = in_turn(runs, device="cpu", rounds=3, warmup=1)
    drop_store(folder, pointer, store)
    return {name: 1000 * TOGETHER / statistics.median(spent) for name, spent in times.items()}


def _in_turn(run: Callable[[np.ndarray], object], queries: np.ndarray) -> Callable[[], object]:
    place = iter(range(10**9))
    return lambda: run(queries[next(place) % len(queries)])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rows", type=int, default=200_000)
    options.add_argument("--queries", type=int, default=100)
    options.add_argument("--stores", nargs="+", default=["lancedb"], help="names or addresses of stores")
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--model", help="a folder of a model with a shared space: queries a second")
    options.add_argument("--as", dest="name", help="the result's name")
    options.add_argument("--out", help="a folder for the result")
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    model = Predictor.load(asked.model, device="cpu") if asked.model else None
    x, q = clustered(asked.rows, asked.queries, asked.seed, WIDTH if model is None else model.width)
    price = np.random.default_rng(asked.seed + 1).random(asked.rows)
    results: dict[str, Any] = {}
    for name in asked.stores:
        with tempfile.TemporaryDirectory() as folder:
            if model is not None:
                results[name] = end_to_end(name, Path(folder), model, x, price)
                continue
            pointer = new_pointer(name, ModelRef("benchmark", WIDTH))
            store = create_store(Path(folder), pointer)
            built = fill(store, x, price)
            filters = {
                said: compare(store, torch.from_numpy(x), q, price, share) for said, share in FILTERS.items()
            }
            results[name] = built | filters
            drop_store(Path(folder), pointer, store)
    shape = {"rows": asked.rows, "width": x.shape[1], "queries": asked.queries, "seed": asked.seed}
    name = asked.name or ("index" if model is None else "index_queries")
    report(name, "cpu", {**shape, "stores": results}, asked.out)


if __name__ == "__main__":
    main()
