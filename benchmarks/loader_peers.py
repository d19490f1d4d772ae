"""The loader beside other pipelines doing the same work: JPEGs (500 x 400) to batches of 32 tensors.

Each peer decodes with Pillow, crops the middle square, resizes it to 224 pixels (bicubic), scales to -1..1
and batches; all run in turn, `of_motet` is the median over the rounds of a peer's samples/s against Motet's
from the same files or shards with as many workers, `of_motet_cpu` the same by seconds of processor time,
which a busy machine disturbs less (with no workers only). A peer that is not installed, or cannot be imported
beside this torch, is named with the reason.

    pip install datasets webdataset torchvision
    python -m benchmarks.loader_peers [--workers 0 2] [--samples 512] [--out benchmarks/results]
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.common import report
from benchmarks.loader import SIZE, build, dataset, loader
from PIL import Image

from motet.types import TokenBatch, floats_of

BATCH = 32
Epoch = Callable[[], Iterable[int]]  # runs one epoch: yields how many samples each batch has


def tensor(image: Image.Image) -> torch.Tensor:
    """(3, SIZE, SIZE) float32 in -1..1."""
    image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    pixels = np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=box))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div_(127.5).sub_(1)


class Files(torch.utils.data.Dataset):
    """What people write by hand."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return tensor(Image.open(self.paths[i])), i % 2


def sizes(batches: Iterable[Any]) -> Iterator[int]:
    for pixels, _ in batches:
        assert pixels.shape[1:] == (3, SIZE, SIZE) and pixels.dtype == torch.float32
        yield len(pixels)


def torch_files(paths: list[str], workers: int) -> Epoch:
    made = torch.utils.data.DataLoader(
        Files(paths), BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: sizes(made)


def hugging_face(paths: list[str], workers: int) -> Epoch:
    datasets = importlib.import_module("datasets")
    rows = datasets.Dataset.from_dict({"image": paths, "label": [i % 2 for i in range(len(paths))]})
    rows = rows.cast_column("image", datasets.Image()).with_transform(transformed)
    made = torch.utils.data.DataLoader(
        rows, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0
    )
    return lambda: sizes((batch["image"], batch["label"]) for batch in made)


def transformed(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {"image": [tensor(image) for image in batch["image"]], "label": batch["label"]}


def web_dataset(shard: Path, workers: int) -> Epoch:
    wds = importlib.import_module("webdataset")
    pattern = str(shard).replace("0000", "{0000..0001}")
    rows = wds.WebDataset(pattern, shardshuffle=2).shuffle(100).decode("pil").to_tuple("jpg", "cls")
    rows = rows.map_tuple(tensor, int).batched(BATCH)
    made = wds.WebLoader(rows, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    return lambda: sizes(made)


def torch_vision(folder: Path, workers: int) -> Epoch:
    importlib.import_module("torchvision")
    transforms = importlib.import_module("torchvision.transforms")
    steps = [
        transforms.CenterCrop(400),
        transforms.Resize(SIZE, transforms.InterpolationMode.BICUBIC),
        transforms.ToTensor(),
        transforms.Normalize(0.5, 0.5),
    ]
    folder_of = importlib.import_module("torchvision.datasets").ImageFolder
    made = torch.utils.data.DataLoader(
        folder_of(str(folder), transforms.Compose(steps)),
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    return lambda: sizes(made)


def motet(table: str, workers: int) -> Epoch:
    made = loader(dataset(table, memory_bytes=0), workers, "process")
    epochs = iter(range(1000))
    return lambda: tokens(made.batches(next(epochs)))


def tokens(batches: Iterable[TokenBatch]) -> Iterator[int]:
    for batch in batches:
        (values,) = map(floats_of, batch.values.values())  # which the model does; peers do it here
        assert values.shape == (len(batch.ids) * 196, 768) and values.dtype == torch.float32
        yield len(batch.ids)


def shards(folder: Path, paths: list[str]) -> Path:
    """Two plain tar files with a picture and a class a sample; the first one's path."""
    for k in range(2):
        with tarfile.open(folder / f"part-000{k}.tar", "w") as tar:
            for i in range(k, len(paths), 2):
                for ending, data in (("jpg", Path(paths[i]).read_bytes()), ("cls", str(i % 2).encode())):
                    member = tarfile.TarInfo(f"{i:05d}.{ending}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    return folder / "part-0000.tar"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--out")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        result = compared(Path(name), arguments)
    torch.set_num_threads(cores)  # names the machine
    report("loader_peers", "cpu", result, arguments.out)


def compared(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    n = arguments.samples
    (folder / "all").mkdir()
    table = build(folder / "all", n, n, sound=False)
    paths = [str(folder / "all" / f"{i}.jpg") for i in range(n)]
    shard, by_class = shards(folder, paths), folder / "classes"
    for i, path in enumerate(paths):
        target = by_class / "ab"[i % 2] / f"{i}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    peers: dict[str, tuple[str, Callable[[int], Epoch]]] = {
        "motet, files": ("files", lambda w: motet(str(table), w)),
        "motet, shards": ("shards", lambda w: motet(str(folder / "part-*.tar"), w)),
        "torch DataLoader, files": ("files", lambda w: torch_files(paths, w)),
        "datasets, files": ("files", lambda w: hugging_face(paths, w)),
        "torchvision ImageFolder, files": ("files", lambda w: torch_vision(by_class, w)),
        "webdataset, shards": ("shards", lambda w: web_dataset(shard, w)),
    }
    found: dict[str, Any] = {"samples": n, "rounds": arguments.rounds}
    for workers in arguments.workers:
        runs, missing = {}, {}
        for name, (_, make) in peers.items():
            try:
                runs[name] = make(workers)
                assert sum(runs[name]()) == n  # starts the workers
            except (ImportError, RuntimeError) as error:
                missing[name] = str(error).splitlines()[0]
                runs.pop(name, None)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        work: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(arguments.rounds):
            for name in runs if turn % 2 else reversed(runs):
                begin, busy = time.perf_counter(), time.process_time()
                assert sum(runs[name]()) == n
                seconds[name].append(time.perf_counter() - begin)
                work[name].append(time.process_time() - busy)
        rates: dict[str, Any] = {}
        for name, times in seconds.items():
            ours = f"motet, {peers[name][0]}"
            rates[name] = {
                "samples_per_s": round(n / statistics.median(times), 1),
                "of_motet": against(seconds[ours], times),
            }
            if not workers:
                rates[name]["of_motet_cpu"] = against(work[ours], work[name])
        found[f"{workers} workers"] = rates | ({"not here": missing} if missing else {})
    return found


def against(ours: list[float], theirs: list[float]) -> float:
    """How much faster theirs is: the median over the rounds."""
    return round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 3)


if __name__ == "__main__":
    main()
