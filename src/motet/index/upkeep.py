"""Upkeep of an index beside its work: small files merged, what speeds up searching brought up to date."""

from __future__ import annotations

from pathlib import Path
from threading import Thread

from motet.errors import MotetError
from motet.index.address import open_store, read_pointer
from motet.index.durable import lock


class Upkeep:
    """At most one thread, on a handle of its own: searches go on and miss nothing, writers wait their turn.

    A process that ends waits for it. If it is killed in the midst, all rows are there and the next one
    starts anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread: Thread | None = None
        self._error: MotetError | None = None

    def start(self) -> None:
        """Begin in the background, unless it is under way.

        Raises:
            MotetError: as `wait`.
        """
        if self._thread is None or not self._thread.is_alive():
            self.wait()
            self._thread = Thread(target=self._run, name=f"upkeep of {self.path.name}")
            self._thread.start()

    def wait(self) -> None:
        """Until it has ended.

        Raises:
            MotetError: what went wrong in it since the last time; no row is lost by it.
        """
        if self._thread is not None:
            self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _run(self) -> None:
        try:
            with lock(self.path):
                open_store(self.path, read_pointer(self.path)).flush()
        except MotetError as error:
            self._error = error
