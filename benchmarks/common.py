"""What the benchmarks share: the machine's name, timing side by side, writing results."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch


def hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name().replace(" ", "-")
    return f"cpu-{torch.get_num_threads()}-threads"


def in_turn(
    runs: Mapping[str, Callable[[], object]], *, device: str, rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Milliseconds of each run in each round. The runs take turns, forwards and backwards, so that a
    drifting machine hurts all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(warmup + rounds):
        for name in list(runs) if round_ % 2 else reversed(list(runs)):
            milliseconds = _timed(runs[name], device)
            if round_ >= warmup:
                times[name].append(milliseconds)
    return times


def side_by_side(
    runs: Mapping[str, Callable[[], object]], *, device: str, rounds: int, warmup: int = 2
) -> dict[str, float]:
    """Median milliseconds of each, taken in turn."""
    times = in_turn(runs, device=device, rounds=rounds, warmup=warmup)
    return {name: statistics.median(values) for name, values in times.items()}


def ratios(times: Mapping[str, list[float]], to: str) -> dict[str, float]:
    """Each run's time over that of `to`: the median of the rounds' ratios, which a slow spell of the
    machine leaves as they are."""
    return {
        name: round(statistics.median(a / b for a, b in zip(values, times[to], strict=True)), 4)
        for name, values in times.items()
    }


def _timed(run: Callable[[], object], device: str) -> float:
    if device == "cuda":
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop)
    begin = time.perf_counter()
    run()
    return (time.perf_counter() - begin) * 1e3


@contextmanager
def work_folder(given: Path | None) -> Iterator[Path]:
    """The folder `given`, which keeps what is finished, or one that goes with the run; with it a cache."""
    with tempfile.TemporaryDirectory() as folder:
        work = given or Path(folder)
        os.environ.setdefault("MOTET_CACHE", str(work / "cache"))
        yield work


def report(name: str, device: str, result: dict[str, Any], out: str | None) -> None:
    """Print the result as JSON, and write it into the folder `out` if one is given."""
    result = {
        "benchmark": name,
        "hardware": hardware(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        **result,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if out:
        path = Path(out) / f"{name}_{result['hardware']}_{result['date']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
