"""Those who wait for the model: one line, answered some at a time, and no longer than agreed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from motet.predictor import Entry
from motet.predictor.batches import BATCH
from motet.serve.limits import Refused

Work = Entry | Callable[[], Any]


@dataclass(eq=False)
class _Job:
    work: Work
    answer: asyncio.Future[Any]


class Line:
    """Entries that stand in the line together are predicted together; anything else has its turn alone.

    There is one thread for the model: more would share the same cores. predict: entries -> an answer each.
    longest: how many may wait. seconds: how long one waits and is worked on before it is given up.
    """

    def __init__(
        self, predict: Callable[[Sequence[Entry]], list[Any]], *, longest: int, seconds: float
    ) -> None:
        self._predict, self.longest, self.seconds = predict, longest, seconds
        self._waiting: deque[_Job] = deque()
        self._someone = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model")
        self._serving: asyncio.Task[None] | None = None

    def refuse_if_full(self) -> None:
        """Raises: Refused (429) where nobody more may wait."""
        if len(self._waiting) >= self.longest:
            raise Refused(429, f"{self.longest} requests are waiting already. Try again in a second.")

    async def ask(self, work: Work) -> Any:
        """The answer to an entry, or what a call returns; whoever is cancelled leaves the line.

        Raises:
            Refused: 429 the line is full; 504 the time is over.
            MotetError: what the work raised.
        """
        self.refuse_if_full()
        job = _Job(work, asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._someone.set()
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        try:
            async with asyncio.timeout(self.seconds):
                return await job.answer
        except TimeoutError:
            raise Refused(504, f"not answered within {self.seconds:g} seconds; given up.") from None
        finally:
            with suppress(ValueError):  # its turn has come
                self._waiting.remove(job)

    async def close(self) -> None:
        """Answer nobody any more."""
        if self._serving is not None:
            self._serving.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        while True:
            await self._someone.wait()
            if jobs := self._next():
                await self._turn(jobs)
            else:
                self._someone.clear()

    async def _turn(self, jobs: list[_Job]) -> None:
        """Answer some together; where that raises, each alone. Who does not wait any more gets nothing."""
        turn = asyncio.get_running_loop().run_in_executor(self._thread, self._answers, jobs)
        await asyncio.wait({turn})
        error = turn.exception()
        if error is not None and len(jobs) > 1:
            for job in jobs:
                await self._turn([job])
            return
        for i, job in enumerate(jobs):
            if job.answer.done():
                continue
            if error is not None:
                job.answer.set_exception(error)
            else:
                job.answer.set_result(turn.result()[i])

    def _next(self) -> list[_Job]:
        if not self._waiting:
            return []
        jobs = [self._waiting.popleft()]
        while (
            isinstance(jobs[0].work, Entry)
            and self._waiting
            and isinstance(self._waiting[0].work, Entry)
            and len(jobs) < BATCH
        ):
            jobs.append(self._waiting.popleft())
        return jobs

    def _answers(self, jobs: list[_Job]) -> list[Any]:
        """In the model's thread."""
        entries = [job.work for job in jobs if isinstance(job.work, Entry)]
        return self._predict(entries) if entries else [job.work() for job in jobs if callable(job.work)]
