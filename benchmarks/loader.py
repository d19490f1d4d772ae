"""What the loader adds to the bare work of decoding: samples/s beside a loop that only decodes and resizes.

Rows of a JPEG (500 x 400), then of a JPEG and a WAV of 2 s, as in `motet fit` without any cache. The bare
loop opens, decodes and resizes the same files (and makes log-mel spectrograms) in this process, in turn
with the loader, so that a drifting machine hurts both alike; ratios are medians over the rounds.
`of_bare` is samples/s against the bare loop's; `of_bare_cpu` the same by seconds of processor time, which a
busy machine disturbs less (with no workers only). "bare loop, 2 processes" is the same work in processes
that give nothing back: what a second core of the machine is worth. `--rows 100000` measures memory over as
many rows of 1,000 files instead.

    python -m benchmarks.loader [--workers 0 2] [--samples 512] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import csv
import functools
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from benchmarks.common import report
from PIL import Image

from motet.data.cache import FeatureCache
from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.loader import Loader, LoaderConfig
from motet.data.mel import log_mel
from motet.data.processor import ProcessorConfig, make_processor
from motet.data.table import open_table
from motet.data.workers import Pool

SIZE = 224


def build(folder: Path, files: int, rows: int, *, sound: bool, width: int = 500) -> Path:
    """A table of `rows` rows over `files` pictures (and sounds) that compress as photos do."""
    shape = width, width * 4 // 5
    rng = np.random.default_rng(0)
    for i in range(files):
        small = rng.integers(0, 256, (25, 20, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(small).resize(shape, Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{i}.jpg", quality=85)
        if sound:
            soundfile.write(folder / f"{i}.wav", rng.normal(0, 0.1, 32_000), 16_000)
    path = folder / "table.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *(["audio"] if sound else []), "label"])
        for i in range(rows):
            at = i % files
            writer.writerow([f"{at}.jpg", *([f"{at}.wav"] if sound else []), "ab"[i % 2]])
    return path


def bare(folder: Path, files: int, samples: int | range, *, sound: bool) -> None:
    """The least that must be done: decode, resize, spectrogram."""
    for i in range(samples) if isinstance(samples, int) else samples:
        image = Image.open(folder / f"{i % files}.jpg").convert("RGB")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box))
        if sound:
            log_mel(soundfile.read(folder / f"{i % files}.wav", dtype="float32")[0])


def dataset(path: str | Path, *, memory_bytes: int, size: int = SIZE) -> Dataset:
    table = open_table(path)
    columns = infer_columns(table, label="label")
    config = ProcessorConfig()
    config = ProcessorConfig(image=type(config.image)(size=size, patch=16), audio=config.audio)
    processors = {
        name: make_processor(name, kind, config, None, lambda n=name: table.column(n)[:64], root=table.root)  # type: ignore[misc]
        for name, kind in columns.modalities.items()
    }
    rows = range(len(table))
    return Dataset(table, columns, processors, rows, cache=FeatureCache(None), memory_bytes=memory_bytes)


def loader(data: Dataset, workers: int, kind: str) -> Loader:
    specs = [p.spec for p in data.processors.values()]
    config = LoaderConfig(batch_size=32, workers=workers, kind=kind)  # type: ignore[arg-type]
    return Loader(data, specs, data.targets, config, shuffle=True)


def speed(arguments: argparse.Namespace, *, sound: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder, n = Path(name), arguments.samples
        path = build(folder, n, n, sound=sound)
        data = dataset(path, memory_bytes=0)
        kinds = [(w, k) for w in arguments.workers for k in (("thread", "process") if w else ("thread",))]
        loaders = {f"loader, {w} workers" + (f" ({k})" if w else ""): loader(data, w, k) for w, k in kinds}
        for one in loaders.values():
            for _ in one.batches(0):  # starts the worker processes, finds every file once
                pass
        work_in = functools.partial(bare, folder, n, sound=sound)
        pools = {f"bare loop, {w} processes": Pool(work_in, w) for w in arguments.workers if w}
        parts = [range(at, min(at + 32, n)) for at in range(0, n, 32)]
        for pool in pools.values():
            list(pool.results(parts, str))
        work_in(n)
        wall: dict[str, list[float]] = {key: [] for key in ("bare loop", *pools, *loaders)}
        work: dict[str, list[float]] = {key: [] for key in wall}
        for epoch in range(arguments.rounds):
            for key in wall if epoch % 2 else reversed(wall):  # the first of a round has no advantage
                begin, busy = time.perf_counter(), time.process_time()
                if key == "bare loop":
                    work_in(n)
                elif key in pools:
                    list(pools[key].results(parts, str))
                else:
                    assert sum(len(batch.ids) for batch in loaders[key].batches(epoch)) == n
                wall[key].append(time.perf_counter() - begin)
                work[key].append(time.process_time() - busy)
        for used in (*loaders.values(), *pools.values()):
            used.close()

    def of_bare(seconds: dict[str, list[float]], key: str) -> float:
        pairs = zip(seconds["bare loop"], seconds[key], strict=True)
        return round(statistics.median(base / own for base, own in pairs), 3)

    found: dict[str, Any] = {}
    for key, times in wall.items():
        found[key] = {
            "samples_per_s": round(n / statistics.median(times), 1),
            "of_bare": of_bare(wall, key),
        }
        if "0 workers" in key:
            found[key]["of_bare_cpu"] = of_bare(work, key)
    single = wall.get("loader, 0 workers")
    for key in [key for key in loaders if single and key != "loader, 0 workers"]:
        faster = [a / b for a, b in zip(single or (), wall[key], strict=True)]
        found[key]["of_0_workers"] = round(statistics.median(faster), 3)
    return found


def memory(arguments: argparse.Namespace) -> dict[str, Any]:
    """Peak MiB before, after preparing many rows of small pictures, and in an epoch; Pieces get 1 MiB."""
    with tempfile.TemporaryDirectory() as name:
        path = build(Path(name), 1000, arguments.rows, sound=False, width=80)
        start = _peak()
        data = dataset(path, memory_bytes=2**20, size=32)
        data.prepare()
        prepared = _peak()
        seen = []
        batches = loader(data, 0, "thread").batches(0)
        for step, _ in enumerate(batches):
            if step % 500 == 0:
                seen.append(_peak())
    return {"rows": arguments.rows, "start_mib": start, "prepared_mib": prepared, "batches_mib": seen}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--out")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    if arguments.rows:
        result, name = memory(arguments), "loader_memory"
    else:
        kinds = {"pictures": False, "pictures and sound": True}
        result = {kind: speed(arguments, sound=sound) for kind, sound in kinds.items()}
        result, name = {"samples": arguments.samples, "rounds": arguments.rounds, **result}, "loader"
    torch.set_num_threads(cores)  # names the machine
    report(name, "cpu", result, arguments.out)


if __name__ == "__main__":
    main()
