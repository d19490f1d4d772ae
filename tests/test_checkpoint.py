import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from motet import checkpoint
from motet.checkpoint import load_folder, load_state, recover, save_folder
from motet.errors import ConfigError, DataError, StorageError


def save(path: Path, value: float = 1.0, **documents: object) -> Path:
    tensors = {"a.weight": torch.full((40, 3), value), "b": torch.arange(7)}
    return save_folder(
        path, tensors=tensors, documents={"config.json": {"value": value}, "note.txt": "ü", **documents}
    )


def value_of(path: Path) -> float:
    folder = load_folder(path)
    value = folder.documents["config.json"]["value"]
    assert torch.equal(folder.tensors["a.weight"], torch.full((40, 3), value))
    return value


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    base = torch.randn(6, 4)
    tensors = {
        "x": base,
        "tied": base,
        "part": base[1:3],
        "turned": base.T,
        "half": base.bfloat16(),
        "none": base[:0],
    }
    save_folder(
        tmp_path / "new" / "m",
        tensors=tensors,
        documents={"README.md": "hi", "t.json": {"k": [1, float("nan")]}},
    )
    folder = load_folder(tmp_path / "new" / "m")
    assert folder.tensors.keys() == tensors.keys()
    assert all(torch.equal(folder.tensors[k], v) for k, v in tensors.items())
    assert folder.documents == {"README.md": "hi", "t.json": {"k": [1, None]}}
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["m"]


def test_a_folder_without_tensors_is_a_folder(tmp_path: Path) -> None:
    save_folder(tmp_path / "m", tensors={}, documents={"a.json": {}})
    assert load_folder(tmp_path / "m").tensors == {}


def test_every_flipped_bit_is_detected_and_the_file_named(tmp_path: Path) -> None:
    path = save(tmp_path / "m")
    rng = random.Random(0)
    files = sorted(path.iterdir())
    for _ in range(300):
        file = rng.choice(files)
        whole = file.read_bytes()
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=file.name):
            load_folder(path)
        file.write_bytes(whole)
    assert value_of(path) == 1.0


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
def test_every_cut_is_detected(tmp_path: Path, name: str) -> None:
    file = save(tmp_path / "m") / name
    whole = file.read_bytes()
    for cut in {0, 1, len(whole) // 2, len(whole) - 1}:
        file.write_bytes(whole[:cut])
        with pytest.raises(DataError, match=name):
            load_folder(tmp_path / "m")
    file.write_bytes(whole + b" ")
    with pytest.raises(DataError, match=name):
        load_folder(tmp_path / "m")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (save(tmp_path / "m") / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json.*missing"):
        load_folder(tmp_path / "m")


def test_the_card_may_be_edited(tmp_path: Path) -> None:
    path = save(tmp_path / "m", **{"README.md": "card"})
    (path / "README.md").write_text("a better card")
    assert load_folder(path).documents["README.md"] == "a better card"


def test_what_is_no_model_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    for name, words in (("nothing", "does not exist"), ("file", "not a folder"), ("empty", "manifest")):
        with pytest.raises(ConfigError, match=words):
            load_folder(tmp_path / name)


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden", "manifest.json", "model.safetensors", ""])
def test_documents_have_plain_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="document"):
        save_folder(tmp_path / "m", tensors={}, documents={name: "x"})


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    path = save(tmp_path / "m")
    (tmp_path / "other.json").write_text("{}")
    listed = {"../other.json": checkpoint._describe(tmp_path / "other.json")}
    (path / "manifest.json").write_text(checkpoint._render(listed))
    with pytest.raises(DataError, match="plain file name"):
        load_folder(path)


@pytest.mark.parametrize(
    "header", [b"", b"\xff" * 8, (10**12).to_bytes(8, "little"), (2).to_bytes(8, "little") + b"{]"]
)
def test_broken_safetensors_with_a_right_hash_are_refused(tmp_path: Path, header: bytes) -> None:
    path = save(tmp_path / "m")
    (path / "model.safetensors").write_bytes(header)
    listed = {"model.safetensors": checkpoint._describe(path / "model.safetensors")}
    (path / "manifest.json").write_text(checkpoint._render(listed))
    with pytest.raises(DataError, match="safetensors"):
        load_folder(path)


def test_replacing_keeps_files_that_are_not_ours(tmp_path: Path) -> None:
    path = save(tmp_path / "m", **{"old.json": {}})
    (path / "metrics.jsonl").write_text("log")
    (path / "checkpoints").mkdir()
    (path / "checkpoints" / "x").write_text("y")
    save(path, 2.0)
    assert value_of(path) == 2.0
    assert (path / "metrics.jsonl").read_text() == "log" and (path / "checkpoints" / "x").read_text() == "y"
    assert not (path / "old.json").exists()


def test_a_folder_of_others_is_added_to_but_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.mkdir()
    (path / "notes").write_text("mine")
    save(path)
    assert value_of(path) == 1.0 and (path / "notes").read_text() == "mine"
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text("mine")
    with pytest.raises(ConfigError, match=r"config\.json"):
        save(other)
    assert (other / "config.json").read_text() == "mine"


def _fail(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("step", ["save_file", "_render", "_sync_folder", "_swap"])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = save(tmp_path / "m")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, step, _fail)
        with pytest.raises(StorageError, match="Free some space"):
            save(path, 2.0)
    assert value_of(path) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    assert value_of(save(path, 3.0)) == 3.0


def test_a_refused_write_is_a_storage_error(tmp_path: Path) -> None:
    """The kernel itself refuses: a limit on file size stands in for the full disk."""
    path = save(tmp_path / "m")
    code = f"""
import resource, signal, torch
from motet.checkpoint import save_folder
from motet.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_folder({str(path)!r}, tensors={{"x": torch.zeros(100_000)}}, documents={{}})
except StorageError as error:
    raise SystemExit(error.exit_code)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 5
    assert value_of(path) == 1.0
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("new_in_place", [False, True])
def test_a_save_cut_off_in_mid_swap_is_read_and_recovered(tmp_path: Path, new_in_place: bool) -> None:
    path, aside = save(tmp_path / "m"), tmp_path / ".m.old"
    (path / "log").write_text("kept")
    path.rename(aside)
    if new_in_place:
        save_folder(
            tmp_path / "n",
            tensors={"a.weight": torch.full((40, 3), 2.0)},
            documents={"config.json": {"value": 2.0}},
        )
        (tmp_path / "n").rename(path)
    (tmp_path / ".m.new-dead").mkdir()
    assert value_of(path) == (2.0 if new_in_place else 1.0)  # reading changes nothing
    assert aside.exists()
    recover(path)
    assert value_of(path) == (2.0 if new_in_place else 1.0)
    assert (path / "log").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_kill_9_at_random_times_always_leaves_a_whole_folder(tmp_path: Path) -> None:
    """One child saves again and again, saying each value after it is saved; it is killed 20 times."""
    path = tmp_path / "m"
    code = f"""
import sys, torch
from motet.checkpoint import save_folder
torch.set_num_threads(1)
value = float(sys.argv[1])
while True:
    value += 1
    tensors = {{"a.weight": torch.full((40, 3), value), "big": torch.full((300_000,), value)}}
    save_folder({str(path)!r}, tensors=tensors, documents={{"config.json": {{"value": value}}}})
    print(value, flush=True)
"""
    rng, reached = random.Random(0), 0.0
    for _ in range(20):
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(reached)],
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert child.stdout is not None
        said = [child.stdout.readline()]
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child.pid, signal.SIGKILL)
        said += child.stdout.read().split()
        child.wait()
        acknowledged = float(said[-1])
        found = load_folder(path)
        reached = found.documents["config.json"]["value"]
        assert acknowledged <= reached <= acknowledged + 1
        assert bool((found.tensors["big"] == reached).all())
    save_folder(path, tensors={}, documents={})
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_load_state_wants_exactly_the_models_tensors(tmp_path: Path) -> None:
    module = nn.Linear(3, 2)
    state = {k: v + 1 for k, v in module.state_dict().items()}
    load_state(module, state, where="m")
    assert torch.equal(module.weight, state["weight"])
    for bad, words in (
        ({"weight": state["weight"]}, "'bias' is missing"),
        ({**state, "more": state["bias"]}, "'more' does not belong"),
        ({**state, "bias": torch.zeros(3)}, "shape"),
    ):
        with pytest.raises(DataError, match=words):
            load_state(module, bad, where="m")


def test_the_manifest_can_be_checked_with_common_tools(tmp_path: Path) -> None:
    path = save(tmp_path / "m")
    listed = json.loads((path / "manifest.json").read_text())["files"]
    assert set(listed) == {"model.safetensors", "config.json", "note.txt"}
    for name, entry in listed.items():
        out = subprocess.run(
            ["sha256sum", str(path / name)], capture_output=True, text=True, check=True
        ).stdout
        assert out.split()[0] == entry["sha256"]
