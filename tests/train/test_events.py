"""What TensorBoard reads of a run: every logged line once, also after a stop, a kill and a resume."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from motet.errors import Interrupted, StorageError
from motet.train.events import NAME, Events, crc32c
from motet.train.run import read_lines
from motet.train.track import scalars
from tests.train.test_watch import run_once


def test_the_checksum_is_the_castagnoli_one() -> None:
    """RFC 3720, appendix B.4, whose bytes stand in the order of the wire."""
    assert crc32c(bytes(32)) == int.from_bytes(bytes.fromhex("aa36918a"), "little")
    assert crc32c(b"\xff" * 32) == int.from_bytes(bytes.fromhex("43aba862"), "little")
    assert crc32c(bytes(range(32))) == int.from_bytes(bytes.fromhex("4e79dd46"), "little")


def read(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Every event by TensorBoard's own reader."""
    pytest.importorskip("tensorboard", reason="needs the extra 'track'")
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    events: list[Any] = list(LegacyEventFileLoader(str(folder / "events" / NAME)).Load())
    assert events[0].file_version == "brain.Event:2"
    assert all(a.wall_time <= b.wall_time for a, b in itertools.pairwise(events))
    return [(event.step, {v.tag: v.simple_value for v in event.summary.value}) for event in events[1:]]


def test_tensorboard_reads_what_was_logged_once(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run_once(tmp_path / "run", stop_at=5)
    lines = len(read(tmp_path / "run"))
    late = Events(tmp_path / "run", 5)
    late.log({"train/loss": 99.0}, 300)  # as kill -9 leaves it: a line after the checkpoint, and half a one
    with open(late.path, "ab") as file:
        file.write(b"\x40\0\0\0\0\0\0\0half")
    run_once(tmp_path / "run", resume=True)
    rows = read_lines(tmp_path / "run/metrics.jsonl")
    found = read(tmp_path / "run")
    assert lines < len(found) == len(rows)
    for (step, values), row in zip(found, rows, strict=True):
        expected = scalars(row)
        assert step == row["step"] and values == {k: pytest.approx(v) for k, v in expected.items()}
    assert {"lr/text", "gradient/shared", "val/loss", "train/loss"} <= {tag for _, v in found for tag in v}


@pytest.mark.parametrize("step", [0, 127, 128, 300, 2**40])
def test_what_came_after_a_step_goes(step: int, tmp_path: Path) -> None:
    events = Events(tmp_path, 0)
    for at in (step, step + 1):
        events.log({"a": 1e40}, at)  # more than 4 bytes hold
    size = events.path.stat().st_size
    Events(tmp_path, step)
    assert 0 < size - events.path.stat().st_size < size / 2


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("in the way")
    with pytest.raises(StorageError, match=r"events.* cannot be written: .* --resume"):
        Events(tmp_path, 0)
