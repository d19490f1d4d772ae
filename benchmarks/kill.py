"""Stop `motet fit` at random points by SIGTERM, SIGINT and kill -9; with --resume it must end bit-equal.

    python benchmarks/kill.py [--stops 20] [--workers 0,2] [--out benchmarks/results]

The table is part of the emoji data set (extra `demo`): text, picture and speech, with dropout of
modalities, masks on sounds and changed pictures drawn at random, and averaged weights. For each stop a
new run is started, stopped once it has logged a random number of lines and a random part of a step
later, and continued. Compared with the run that nobody stopped: the last checkpoint (weights,
optimizer, objective, average, state), the model, what was measured of it, and every line of
metrics.jsonl but for its clock. Workers are processes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from common import report

from motet.checkpoint import load_folder
from motet.data.builtin.emoji import build_emoji

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL)
STEP_SECONDS = 0.1  # about what a step takes: how long after a logged line the stop may come
CLOCK = ("seconds", "time", "samples_per_second", "tokens_per_second", "memory")  # differ from run to run
PATIENCE = 1800.0  # seconds for a run, on a machine that others use, too
SETTINGS = (
    *("train.epochs=4", "train.batch_size=16", "train.log_steps=1", "train.checkpoint_steps=3"),
    *("model.width=32", "model.embedding=16", "loader.kind=process"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stops", type=int, default=20, help="for each number of workers")
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0, help="of the stop points")
    parser.add_argument("--out", help="a folder for the result")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("MOTET_CACHE", f"{folder}/cache")
        table = build_emoji(Path(folder) / "data", limit=given.rows)
        tables = {w: stopped(table, Path(folder), given, int(w)) for w in given.workers.split(",")}
    report("kill", "cpu", {"stops_each": given.stops, "workers": tables}, given.out)


def stopped(table: Path, folder: Path, given: argparse.Namespace, workers: int) -> dict[str, Any]:
    """The table of one number of workers: every stop, and whether the run ended as the whole one."""
    whole = folder / f"whole-{workers}"
    assert run(table, whole, workers) == 0
    lines = len((whole / "metrics.jsonl").read_text().splitlines())
    draw = random.Random(f"{given.seed}/{workers}")
    stops = []
    for number in range(given.stops):
        out = folder / f"cut-{workers}-{number}"
        how, after, delay = SIGNALS[number % 3], draw.randrange(lines), draw.random() * STEP_SECONDS
        code = run(table, out, workers, stop=(how, after, delay))
        at = len(logged(out))
        ended = run(table, out, workers, resume=True)
        apart = differing(whole, out)
        stops.append({"signal": how.name, "lines": at, "exit": code, "resumed_exit": ended, "differs": apart})
        print(f"workers {workers}, stop {number}: {stops[-1]}", file=sys.stderr)
    good = [s for s in stops if s["resumed_exit"] == 0 and not s["differs"]]
    exits = Counter(f"{s['signal']} -> {s['exit']}" for s in stops)
    return {"bit_equal": len(good), "of": len(stops), "lines_of_a_run": lines, "exits": exits, "stops": stops}


def run(
    table: Path,
    out: Path,
    workers: int,
    *,
    resume: bool = False,
    stop: tuple[signal.Signals, int, float] | None = None,
) -> int:
    """`motet fit` in a process of its own; its exit code, negative for a signal that killed it.

    stop: a signal, after how many lines of metrics.jsonl, and how many seconds after those.
    """
    command = ["fit", str(table), "--label", "sentiment", "--retrieval", "--preset", "scratch"]
    command += ["--out", str(out), *(["--resume"] if resume else [])]
    for setting in (*SETTINGS, f"loader.workers={workers}"):
        command += ["--set", setting]
    context = get_context("forkserver")
    context.set_forkserver_preload(["motet.train.fit"])
    child = context.Process(target=_motet, args=(command, str(out.with_suffix(".log"))))
    child.start()
    if stop is not None:
        how, after, delay = stop
        give_up = time.monotonic() + PATIENCE
        while len(logged(out)) < after and child.is_alive() and time.monotonic() < give_up:
            time.sleep(0.005)
        time.sleep(delay)
        assert child.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(child.pid, how)
    child.join(PATIENCE)
    assert child.exitcode is not None, f"{out}: still running after {PATIENCE} s"
    return child.exitcode


def _motet(command: Sequence[str], log: str) -> None:
    from motet.cli import main

    sys.argv = ["motet", *command]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    main()


def logged(out: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl, without what a clock says."""
    path = out / "metrics.jsonl"
    text = path.read_text("utf-8") if path.exists() else ""
    rows = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{key: value for key, value in row.items() if key not in CLOCK} for row in rows]


def differing(whole: Path, cut: Path) -> list[str]:
    """What of two runs is not equal bit for bit."""
    found = [] if logged(whole) == logged(cut) else ["metrics.jsonl"]
    for name in ("checkpoints/last", "."):
        a, b = load_folder(whole / name), load_folder(cut / name)
        if a.tensors.keys() != b.tensors.keys():
            return [*found, f"{name}: tensors"]
        found += [f"{name}: {key}" for key, value in a.tensors.items() if not (value == b.tensors[key]).all()]
        for document in set(a.documents) - {"README.md"}:  # the card: the run's name, and the same numbers
            same = _told(a.documents[document]) == _told(b.documents.get(document))
            found += [] if same else [f"{name}: {document}"]
    return found


def _told(document: Any) -> Any:
    """A document without what a clock says."""
    if isinstance(document, dict):
        return {key: _told(value) for key, value in document.items() if key not in CLOCK}
    return document


if __name__ == "__main__":
    main()
