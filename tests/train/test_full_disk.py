"""No space while training: exit code 5, what was saved stays whole, and it goes on once space is free."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from motet import checkpoint
from motet.checkpoint import load_folder
from motet.errors import StorageError
from motet.train.loop import TrainConfig, train
from motet.train.run import RunFolder
from tests.train.training_fakes import FakeLoader, make

CONFIG = TrainConfig(epochs=4, log_steps=1, ema=0.9, checkpoint_steps=3, checkpoint_seconds=0, metric="loss")
ROOT = Path(__file__).parents[2]


def run_to_the_end(path: Path) -> None:
    model, objective = make()
    run = RunFolder(path, {"seed": 0}, resume=(path / "run.json").exists())
    train(model, objective, FakeLoader(), FakeLoader(seed=7, steps=1), CONFIG, run=run)


def assert_equal(whole: Path, cut: Path) -> None:
    one, other = (load_folder(path / "checkpoints/last") for path in (whole, cut))
    assert one.documents == other.documents
    assert all((value == other.tensors[name]).all() for name, value in one.tensors.items())
    assert (whole / "metrics.jsonl").read_text() == (cut / "metrics.jsonl").read_text()


@pytest.mark.parametrize("fails", [0, 1, 2, 3, 4])
def test_any_save_may_find_the_disk_full(fails: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_to_the_end(tmp_path / "whole")
    save, saves = checkpoint.save_file, iter(range(100))

    def full(*given: object, **more: object) -> None:
        if next(saves) == fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(*given, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(StorageError, match="No space left") as caught:
            run_to_the_end(tmp_path / "cut")
    assert caught.value.exit_code == 5
    for kept in (tmp_path / "cut/checkpoints").iterdir():
        assert not kept.name.startswith(".")  # nothing half written lies about
        load_folder(kept)
    run_to_the_end(tmp_path / "cut")
    assert_equal(tmp_path / "whole", tmp_path / "cut")


CHILD = """
import sys
from pathlib import Path
from motet.checkpoint import load_folder
from motet.errors import StorageError
from tests.train.test_full_disk import run_to_the_end
path, ballast, back = Path(sys.argv[1]) / "run", Path(sys.argv[1]) / "ballast", Path(sys.argv[2])
size = {room} * 1000
ballast.write_bytes(bytes({disk} * 1000 - size))
try:
    run_to_the_end(path)
except StorageError as error:
    assert error.exit_code == 5, error
else:
    raise SystemExit("the disk was never full")
for kept in (path / "checkpoints").iterdir():
    load_folder(kept)
ballast.unlink()
run_to_the_end(path)
import shutil
shutil.copytree(path, back)
"""


@pytest.mark.parametrize("room", [30, 250, 500])
def test_on_a_small_disk_of_its_own(room: int, tmp_path: Path) -> None:
    """A real one: tmpfs in a mount namespace, with `room` kB free, where the system lets us."""
    (tmp_path / "disk").mkdir()
    mount = f"mount -t tmpfs -o size=4M none {tmp_path / 'disk'}"
    inside = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*inside, mount], capture_output=True).returncode:
        pytest.skip("no mount namespaces here")
    code = CHILD.format(room=room, disk=4 * 1024)
    words = [sys.executable, "-c", code, str(tmp_path / "disk"), str(tmp_path / "cut")]
    done = subprocess.run(
        [*inside, f'{mount} && exec "$@"', "sh", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    run_to_the_end(tmp_path / "whole")
    assert_equal(tmp_path / "whole", tmp_path / "cut")
