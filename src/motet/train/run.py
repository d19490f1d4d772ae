"""The folder of a run: what was asked, what was measured, what was set aside, where it stands.

RUN/run.json  run.html  metrics.jsonl  timing.jsonl  events/  quarantine.jsonl
RUN/checkpoints/{last,previous,best}

and, once training ends, the files of the model itself.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from motet import config as configs
from motet.checkpoint import Folder, load_folder, recover
from motet.errors import ConfigError, DataError, MismatchError, StorageError

PLAIN_SECONDS = 5.0  # between two lines of progress where stderr is no terminal


class RunFolder:
    """A run's folder, new or continued.

    Raises:
        ConfigError: the folder holds a run and `resume` is False, or something that is no run.
        MismatchError: `resume`, and the data or the config is not that of the run.
    """

    def __init__(self, path: Path | str, identity: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = Path(path)
        self.identity = json.loads(json.dumps(identity))
        self.resume = resume
        self.lines = 0
        recover(self.path)
        try:
            held = sorted(p.name for p in self.path.iterdir()) if self.path.is_dir() else []
            held = [name for name in held if name != self.quarantine.name]  # of a run that never began
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror}.") from None
        if not held:
            self.resume = False
            self._start()
        elif "run.json" not in held:
            raise ConfigError(
                f"{self.path}: not empty, and not a run ({', '.join(held[:3])}...). Choose another --out."
            )
        elif not resume:
            raise ConfigError(
                f"{self.path}: already holds a run. Choose another --out, or continue it with --resume."
            )
        else:
            self._compare()

    @property
    def last(self) -> Path:
        return self.path / "checkpoints" / "last"

    @property
    def best(self) -> Path:
        return self.path / "checkpoints" / "best"

    @property
    def quarantine(self) -> Path:
        return self.path / "quarantine.jsonl"

    def give_up(self) -> None:
        """Nothing was trained: a new run may take the folder. Until then it says what was left out."""
        if not self.resume:
            (self.path / "run.json").unlink(missing_ok=True)
            with suppress(OSError):  # not empty
                self.last.parent.rmdir()

    def keep_previous(self) -> None:
        """Set the last checkpoint aside before it is written anew."""
        previous = self.last.with_name("previous")
        try:
            if self.last.exists():
                if previous.exists():
                    shutil.rmtree(previous)
                self.last.rename(previous)
        except OSError as error:
            raise StorageError(f"{self.last}: cannot be set aside: {error.strerror}.") from None

    def newest(self, say: Callable[[str], None]) -> Folder | None:
        """The newest checkpoint that is whole; None where there is none yet.

        Raises:
            DataError: there are checkpoints, and all are damaged.
        """
        recover(self.last)
        kept = [path for path in (self.last, self.last.with_name("previous")) if path.exists()]
        for i, path in enumerate(kept):
            try:
                return load_folder(path)
            except (DataError, ConfigError) as error:
                say(f"{error} " + (f"Going on from the one before, {kept[i + 1]}." if kept[i + 1 :] else ""))
        if kept:
            raise DataError(f"{self.path}: no checkpoint is whole; start again with another --out.")
        return None

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one JSON object; numbers that are not finite become null."""
        self._write("metrics.jsonl", "a", json.dumps({k: _finite(v) for k, v in row.items()}) + "\n")
        self.lines += 1

    def truncate(self, lines: int) -> None:
        """Keep the first `lines` lines of metrics.jsonl: what was logged after the checkpoint goes."""
        path = self.path / "metrics.jsonl"
        kept = path.read_bytes().splitlines(keepends=True)[:lines] if path.exists() else []
        try:
            if path.exists():
                os.truncate(path, sum(map(len, kept)))
        except OSError as error:
            raise StorageError(f"{path}: cannot be cut back: {error.strerror}.") from None
        self.lines = len(kept)

    def history(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl."""
        return read_lines(self.path / "metrics.jsonl")

    def pin(self, key: str, value: Any) -> None:
        """Add to the identity what is known only later, such as what the media files hold.

        Raises:
            MismatchError: `resume`, and it is not what it was.
        """
        value = json.loads(json.dumps(value))
        before = configs.read(self.path / "run.json").get(key)
        if before is None:
            self.identity[key] = value
            self._write("run.json", "w", json.dumps(self.identity, indent=1) + "\n")
        elif before != value:
            raise MismatchError(
                f"{self.path}: the {key} of the data changed since this run began (a media file, say). "
                "Restore it, or choose another --out for a new run."
            )

    def _start(self) -> None:
        try:
            (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{self.path}: cannot be created: {error.strerror}. Choose another --out."
            ) from None
        self.quarantine.unlink(missing_ok=True)
        self._write("run.json", "w", json.dumps(self.identity, indent=1) + "\n")

    def _compare(self) -> None:
        before = configs.read(self.path / "run.json")
        keys = sorted(differences({k: before[k] for k in before if k in self.identity}, self.identity))
        if keys:
            shown = ", ".join(keys[:4]) + (f" and {len(keys) - 4} more" if len(keys) > 4 else "")
            raise MismatchError(
                f"{self.path}: this run was started with other data or settings; what differs: {shown}. "
                "Give what it was started with, or choose another --out for a new run."
            )

    def _write(self, name: str, mode: str, text: str) -> None:
        try:
            with open(self.path / name, mode, encoding="utf-8") as file:
                file.write(text)
                file.flush()
                if mode == "w":
                    os.fsync(file.fileno())
        except OSError as error:
            raise StorageError(
                f"{self.path / name}: cannot be written: {error.strerror}. What was saved before is whole; "
                "free some space and run again with --resume."
            ) from None


def differences(a: Any, b: Any, path: str = "") -> set[str]:
    """Dotted paths at which two JSON values differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        found: set[str] = set()
        for key in {*a, *b}:
            here = f"{path}.{key}" if path else str(key)
            found |= differences(a[key], b[key], here) if key in a and key in b else {here}
        return found
    return set() if a == b else {path}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects in a file of one a line, [] without it; a last line cut off by a crash is left out."""
    found: list[dict[str, Any]] = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Reporter:
    """Progress on stderr: a live bar on a terminal, a plain line every few seconds elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.quiet = quiet
        self.live = sys.stderr.isatty() and not quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self._what = ""
        self._said_at = 0.0

    def say(self, text: str) -> None:
        if self.quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False)
        else:
            print(text, file=sys.stderr)

    def update(self, done: int, total: int, what: str, detail: str = "") -> None:
        """`done` of `total` steps of `what`; a bar opens with the first call and closes with the last."""
        if self.quiet:
            return
        if what != self._what:
            self.close()
            self._what, self._said_at = what, time.monotonic()
        if not self.live:
            self._plain(done, total, what, detail)
            return
        if self._bar is None:
            columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn())
            self._bar = Progress(
                *columns, TextColumn("{task.fields[detail]}"), TimeRemainingColumn(), console=self.console
            )
            self._bar.start()
            self._task = self._bar.add_task(what, total=total, detail=detail)
        self._bar.update(self._task, completed=done, total=total, detail=detail)
        if done >= total:
            self.close()

    def __call__(self, done: int, total: int, what: str) -> None:
        self.update(done, total, what)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._bar, self._what = None, ""

    def _plain(self, done: int, total: int, what: str, detail: str) -> None:
        """A line at the end, and one every few seconds of what takes long."""
        now = time.monotonic()
        if done >= total or now - self._said_at > PLAIN_SECONDS:
            self._said_at = now
            print(f"{what}: {done}/{total} {detail}".rstrip(), file=sys.stderr)
