"""What can be seen of a run while it goes on: the bar, how fast it is, its page, and a tracker."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from motet.errors import MotetError, StorageError
from motet.train.events import Events
from motet.train.page import TIMING, write_page
from motet.train.run import Reporter, RunFolder, read_lines
from motet.train.state import State
from motet.train.track import Track, make_tracker, scalars
from motet.types import TokenBatch

PAGE_SECONDS = 20.0  # between two writings of run.html


class Watch:
    """Shows the steps of one run. Only the main process writes anything (`main`).

    RUN/timing.jsonl has a line for each logged step: seconds of training so far, samples and tokens a second,
    MiB of memory. It is no part of what resumes bit-equal, so it lies beside metrics.jsonl.
    """

    def __init__(
        self, run: RunFolder, reporter: Reporter, state: State, steps: int, *, track: Track, main: bool
    ) -> None:
        self.run, self.reporter, self.steps, self.main = run, reporter, steps, main
        self.tracker = make_tracker(track, run.path, run.identity) if main else None
        self.events = Events(run.path, state.step) if main else None
        self.before = _cut(run.path / TIMING, state.step) if main else 0.0
        self.began = self.now = self.page_at = time.monotonic()
        self.samples = self.tokens = 0.0

    def start_clock(self) -> None:
        """What was done since the last step (validation, saving) is no part of the next one's time."""
        self.now = time.monotonic()

    def step(
        self, state: State, batch: TokenBatch, values: Mapping[str, float], rates: Mapping[str, float]
    ) -> None:
        """A step is done: `values` are the loss and its parts, `rates` those of learning, by group."""
        seconds = max(time.monotonic() - self.now, 1e-6)
        self.now = time.monotonic()
        self.samples = _smooth(self.samples, len(batch.ids) / seconds)
        self.tokens = _smooth(self.tokens, batch.layout.tokens / seconds)
        shown = [f"{name} {value:.3f}" for name, value in values.items() if "/" not in name]
        lr = max(rates.values(), default=0.0)
        shown += [f"lr {lr:.1e}", f"{self.samples:.0f} samples/s", f"{self.tokens:.0f} tokens/s"]
        self.reporter.update(state.step, self.steps, "train", "  ".join([*shown, f"{memory_mib():.0f} MiB"]))

    def logged(self, row: Mapping[str, Any]) -> None:
        """A line went to metrics.jsonl."""
        if not self.main:
            return
        for place in (self.events, self.tracker):
            if place is not None:
                place.log(scalars(row), row["step"])
        if row["kind"] == "step":
            self._timing(row["step"])
        if row["kind"] == "epoch" and time.monotonic() - self.page_at > PAGE_SECONDS:
            self.page_at = time.monotonic()
            self._page()

    def close(self) -> None:
        if self.tracker is not None:
            self.tracker.close()
        if self.main:
            self._page()

    def _page(self) -> None:
        """A page that cannot be written is no reason to lose a training, or to hide why it ended."""
        try:
            write_page(self.run.path)
        except MotetError as error:
            self.reporter.say(str(error))

    def _timing(self, step: int) -> None:
        seconds = self.before + time.monotonic() - self.began
        row = {"step": step, "seconds": round(seconds, 3), "samples": round(self.samples, 1)}
        row |= {"tokens": round(self.tokens, 1), "memory": round(memory_mib(), 1)}
        try:
            with open(self.run.path / TIMING, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise StorageError(
                f"{self.run.path / TIMING}: cannot be written: {error.strerror}. Free some space "
                "and run again with --resume."
            ) from None


def memory_mib() -> float:
    """The most that this process has held: of the GPU where there is one, else of memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def _cut(path: Path, step: int) -> float:
    """Leave out what came after `step`; the seconds until then."""
    kept = [row for row in read_lines(path) if row["step"] <= step]
    if path.is_file():
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), "utf-8")
    return float(kept[-1]["seconds"]) if kept else 0.0


def _smooth(before: float, now: float) -> float:
    return 0.9 * before + 0.1 * now if before else now
