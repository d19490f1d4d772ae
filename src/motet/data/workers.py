"""Processes that make batches ahead of time; one that dies is replaced and nothing is lost or repeated.

A batch is a pure function of its place, so whatever a dead worker had not delivered is made again.
Arrays travel as they lie in memory: from the worker into the pipe, from the pipe to their place.
No torch is imported here, so that a worker can set its threads before it is.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic, TypeVar

import numpy as np

from motet.errors import ConfigError, DataError, MotetError

Task = TypeVar("Task")
AHEAD = 2  # tasks that a worker holds: one it works on and one it need not wait for
TRIES = 3
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@dataclass(frozen=True, eq=False)
class Parcel:
    """A result with arrays. `rest` is small, and says which array goes where."""

    rest: Any
    arrays: Sequence[np.ndarray]


class Pool(Generic[Task]):
    """`count` processes, each with its own copy of `make`; they start at the first task."""

    def __init__(self, make: Callable[[Task], Any], count: int) -> None:
        self.make, self.count = make, count
        self.workers: list[_Worker[Task]] = []
        weakref.finalize(self, _end, self.workers)

    def results(self, tasks: Sequence[Task], name: Callable[[Task], str]) -> Iterator[Any]:
        """What `make` gives for each task, in order; `name(task)` says in errors what it was.

        Arrays in it travel fast only in a `Parcel`.

        Raises:
            MotetError: whatever `make` raised of this family; a task that kills its workers.
        """
        while len(self.workers) < self.count:
            self.workers.append(_Worker(self.make))
        todo = deque(enumerate(tasks))
        done: dict[int, Any] = {}
        turn = 0
        try:
            while turn < len(tasks):
                self._deal(todo, turn + 2 * AHEAD * self.count)
                while turn not in done:
                    self._gather(done, name)
                    self._deal(todo, turn + 2 * AHEAD * self.count)
                yield _delivered(done.pop(turn))
                turn += 1
        finally:
            if any(worker.held for worker in self.workers):
                self.close()  # what they work on is wanted by nobody

    def _deal(self, todo: deque[tuple[int, Task]], end: int) -> None:
        """Tasks before `end`, each to a worker that holds fewest, so that at the end none does two while
        another does nothing."""
        while todo and todo[0][0] < end:
            worker = min(self.workers, key=lambda one: len(one.held))
            if len(worker.held) >= AHEAD:
                return
            worker.give(*todo.popleft())

    def _gather(self, done: dict[int, Any], name: Callable[[Task], str]) -> None:
        """Wait for one result at least, or for the death of a worker."""
        ready = wait([w.pipe for w in self.workers] + [w.process.sentinel for w in self.workers])
        for worker in self.workers:
            if worker.pipe not in ready and worker.process.sentinel not in ready:
                continue
            while worker.held and worker.delivers():
                try:
                    index, result = _received(worker.pipe)
                except (EOFError, OSError):  # died in the middle of it
                    break
                worker.held.pop(index)
                done[index] = result
            if worker.process.sentinel in ready:
                worker.revive(name)

    def close(self) -> None:
        _end(self.workers)


class _Worker(Generic[Task]):
    """One process and the tasks that it has not delivered yet, by their place."""

    def __init__(self, make: Callable[[Task], Any]) -> None:
        self.make = make
        self.held: dict[int, Task] = {}
        self.deaths: dict[int, int] = {}
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_work, args=(theirs,), name="motet-loader", daemon=True
        )
        before = {key: os.environ.get(key) for key in QUIET}
        os.environ.update(QUIET)  # read when torch is loaded, which unpickling does
        try:
            self.process.start()
        finally:
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.update({key: value})
        theirs.close()
        with contextlib.suppress(OSError):  # its death is noticed where results are awaited
            self.pipe.send(self.make)

    def give(self, index: int, task: Task) -> None:
        self.held[index] = task
        with contextlib.suppress(OSError):
            self.pipe.send((index, task))

    def delivers(self) -> bool:
        try:
            return self.pipe.poll()
        except OSError:
            return False

    def revive(self, name: Callable[[Task], str]) -> None:
        """A new process for the same tasks; the first of them is the suspect."""
        self.process.join()
        first = next(iter(self.held), -1)
        self.deaths[first] = self.deaths.get(first, 0) + 1
        if self.deaths[first] == TRIES:
            what = name(self.held[first]) if first in self.held else "the start"
            raise MotetError(
                f"a loader process died {TRIES} times at {what} (exit code {self.process.exitcode}). "
                "A script that uses loader.kind=process must start under `if __name__ == '__main__':`; "
                "--set loader.workers=0 makes batches in this process and shows the cause."
            )
        self.pipe.close()
        held, self.held = self.held, {}
        self._start()
        for index, task in held.items():
            self.give(index, task)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _end(workers: list[_Worker[Any]]) -> None:
    while workers:
        workers.pop().end()


def _delivered(result: Any) -> Any:
    kind, value = result
    match kind:
        case "made":
            return value
        case "data":
            raise DataError(value[0], rule=value[1])
        case "config":
            raise ConfigError(value)
        case _:
            raise MotetError(f"a loader process failed:\n{value}")


def _work(pipe: Connection) -> None:
    """In the worker: tasks from the pipe, results into it, until the parent is gone."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        make = pipe.recv()
        if "torch" in sys.modules:  # brought by what it makes
            sys.modules["torch"].set_num_threads(1)
        with ThreadPoolExecutor(1) as sender:  # a result waits to be read while the next is made
            sending: Future[None] | None = None
            while True:
                index, task = pipe.recv()
                made = _made(make, task)
                if sending is not None:
                    sending.result()
                sending = sender.submit(_send, pipe, *_packed(index, *made))


def _packed(index: int, kind: str, value: Any) -> tuple[bytes, list[np.ndarray]]:
    """A result as it travels: what says which arrays follow, and those."""
    arrays = [np.ascontiguousarray(a) for a in value.arrays] if isinstance(value, Parcel) else None
    shapes = None if arrays is None else [(a.dtype.str, a.shape) for a in arrays]
    rest = value.rest if isinstance(value, Parcel) else value
    return bytes(ForkingPickler.dumps((index, kind, rest, shapes))), arrays or []


def _send(pipe: Connection, head: bytes, arrays: Sequence[np.ndarray]) -> None:
    pipe.send_bytes(head)
    for array in arrays:
        left = array.reshape(-1).view(np.uint8).data
        while left:
            left = left[os.write(pipe.fileno(), left) :]


def _received(pipe: Connection) -> tuple[int, tuple[str, Any]]:
    """A task's place and its result. Raises EOFError or OSError where the worker dies on the way."""
    index, kind, value, shapes = pipe.recv()
    if shapes is None:
        return index, (kind, value)
    arrays = [np.empty(shape, dtype) for dtype, shape in shapes]
    for array in arrays:
        left = array.reshape(-1).view(np.uint8).data
        while left:
            count = os.readv(pipe.fileno(), [left])
            if not count:
                raise EOFError
            left = left[count:]
    return index, (kind, Parcel(value, arrays))


def _made(make: Callable[[Any], Any], task: Any) -> tuple[str, Any]:
    try:
        return "made", make(task)
    except DataError as error:
        return "data", (str(error), error.rule)
    except ConfigError as error:
        return "config", str(error)
    except (MotetError, ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError):
        return "failed", traceback.format_exc()
