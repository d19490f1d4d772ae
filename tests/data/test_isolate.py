import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from motet.data import frames, isolate, sound
from motet.data.blob import Blob
from motet.data.isolate import Child, load_audio, load_video
from motet.data.sound import AudioConfig
from motet.data.video import VideoConfig
from motet.errors import DataError
from tests.data.media_fakes import tone, write_clip, write_wav


@pytest.fixture
def child(monkeypatch):
    fresh = Child()
    monkeypatch.setattr(isolate, "child", fresh)
    yield fresh
    fresh.close()


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "a.mp4", sound=tone(3.0))


def test_the_child_gives_what_this_process_would(child, clip, tmp_path):
    config = VideoConfig(fps=4)
    here, there = frames.load_video(clip, config=config, size=20), load_video(clip, config=config, size=20)
    assert (here.frames == there.frames).all() and (here.times == there.times).all()
    assert (load_audio(clip) == sound.load_audio(clip)).all()
    blob = Blob("a.mp4", clip.read_bytes())
    assert (load_audio(blob) == load_audio(clip)).all()
    one = child._process.pid
    assert load_video(write_clip(tmp_path / "s.mp4", video=False, sound=tone(0.5))) is None
    assert load_audio(write_clip(tmp_path / "v.mp4")) is None
    (tmp_path / "bad.mp4").write_bytes(clip.read_bytes()[:2000])
    for load in (load_audio, load_video):
        with pytest.raises(DataError, match=r"bad\.mp4.*announces") as error:
            load(tmp_path / "bad.mp4")
        assert error.value.rule == "truncated" and str(tmp_path) not in str(error.value)
    assert child._process.pid == one  # one child for all of them


def test_wav_needs_no_child(child, tmp_path):
    load_audio(write_wav(tmp_path / "a.wav", tone(0.5)))
    assert child._process is None


def test_never_decodes_here(child, clip):
    child.mode = "never"
    assert len(load_video(clip).frames) and len(load_audio(clip)) and child._process is None


def test_a_hanging_file_is_given_up_and_the_next_one_read(child, clip):
    load_audio(clip)
    os.kill(child._process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(DataError, match="wall time") as error:
        load_video(clip, config=VideoConfig(wall_seconds=0.2))
    assert error.value.rule == "too slow" and time.monotonic() - start < 3
    assert len(load_video(clip).frames)


def test_a_killed_child_is_replaced_and_the_file_tried_again(child, clip):
    load_audio(clip)
    first = child._process.pid
    os.kill(first, signal.SIGSTOP)
    killer = threading.Timer(0.2, os.kill, (first, signal.SIGKILL))
    killer.start()
    assert len(load_video(clip).frames) and child._process.pid != first


def test_a_file_that_crashes_the_decoder_is_one_broken_file(child, clip):
    with pytest.raises(DataError, match="crashes on it") as error:
        child.ask("crash", clip, "a.mp4", AudioConfig(), {})  # an unknown request ends the child
    assert error.value.rule == "crashed"
    assert len(load_audio(clip))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b"no\n",
        b'{"arrays": [[[-4], "f4"]]}\n',
        b'{"arrays": [[[99999, 99999], "f4"]]}\n',
        b'{"arrays": [[[4], "O"]]}\n',
        b'{"arrays": [[[4], "f4"]]}\nabc',
        b'{"arrays": [["x", "u1"]]}\n',
    ],
)
def test_a_lying_child_is_not_believed(answer):
    import io

    with pytest.raises((OSError, ValueError, KeyError, TypeError)):
        isolate._answer(io.BytesIO(answer))


def test_threads_share_the_child(child, clip):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_audio(clip))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all((wave == found[0]).all() for wave in found)


def test_the_child_ends_with_its_parent_and_imports_no_torch(clip):
    code = (
        "import sys, time; from pathlib import Path; from motet.data import isolate\n"
        f"isolate.load_audio(Path({str(clip)!r}))\n"
        "assert 'torch' not in sys.modules; print(isolate.child._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    pid = int(parent.stdout.readline())
    os.kill(pid, 0)
    parent.kill()
    parent.wait()
    for _ in range(50):
        with open(f"/proc/{pid}/stat") if os.path.exists(f"/proc/{pid}") else open(os.devnull) as file:
            state = file.read().rpartition(")")[2].split()[:1]
        if state in ([], ["Z"]):
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


def test_limits_hold_in_the_child(child, clip):
    with pytest.raises(DataError, match="max_seconds"):
        load_audio(clip, config=AudioConfig(max_seconds=1))
    assert np.isfinite(load_audio(clip)).all()
