"""Containers decoded in a child process: what crashes or hangs there is one broken file, and no more.

The child is started at the first container, serves one file after the other, and is replaced when it
dies or when a file takes longer than its wall time. It answers in JSON and raw numbers, which are
checked here: a file that takes the child over reaches nothing through it. WAV, FLAC, Ogg and plain
pictures are decoded in this process.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from PIL import Image

from motet.data import frames, picture, sound
from motet.data.blob import Blob
from motet.data.frames import Clip, VideoConfig
from motet.data.media import broken
from motet.data.picture import ImageConfig
from motet.data.sound import AudioConfig
from motet.errors import DataError, MotetError

Mode = Literal["auto", "never"]
GRACE = 1.0  # seconds over its wall time after which the child is killed; before, it should say so itself
START = 120.0  # seconds that a busy machine may take to start it
MAX_ANSWER = 2**30
ADDRESS_SPACE = 8 * 2**30
_START = "import sys; sys.path.append(sys.argv[1]); from motet.data.isolate import serve; serve()"


def load_audio(path: Path | Blob, name: str = "", config: AudioConfig | None = None) -> np.ndarray | None:
    """The whole sound, (n,) float32, mono, 16 kHz, n >= 1; None for a video without sound.

    Raises:
        DataError: as `motet.data.sound.load_audio`; the decoder crashed or hung on it.
    """
    return sound.load_audio(path, name, config, container=_container_sound)


def load_video(
    path: Path | Blob, name: str = "", config: VideoConfig | None = None, *, size: int = 0
) -> Clip | None:
    """The frames of a clip by time; None for a file that has sound only.

    Raises:
        DataError: as `motet.data.frames.load_video`; the decoder crashed or hung on it.
    """
    name, config = name or path.name, config or VideoConfig()
    if child.mode == "never":
        return frames.load_video(path, name, config, size=size)
    found = child.ask("frames", path, name, config, {"size": size})
    return None if found is None else Clip(found[0], found[1])


def load_image(
    path: Path | Blob, name: str = "", config: ImageConfig | None = None, *, least: int = 0
) -> Image.Image:
    """The picture as it should be seen, RGB; see `motet.data.picture.load_image`.

    Raises:
        DataError: as there; the decoder crashed or hung on it.
    """
    name, config = name or path.name, config or ImageConfig()

    def apart() -> Image.Image:
        found = child.ask("picture", path, name, config, {"least": least})
        assert found is not None  # there is no missing picture
        return Image.fromarray(found[0])

    return picture.load_image(path, name, config, least=least, apart=None if child.mode == "never" else apart)


def _container_sound(path: Path | Blob, name: str, config: AudioConfig) -> np.ndarray | None:
    if child.mode == "never":
        return sound.container_sound(path, name, config)
    found = child.ask("sound", path, name, config, {})
    return None if found is None else found[0]


class Child:
    """One decoding process. `mode` "never" decodes containers in this process instead."""

    def __init__(self) -> None:
        self.mode: Mode = "auto"
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(
        self,
        what: str,
        media: Path | Blob,
        name: str,
        config: AudioConfig | ImageConfig | VideoConfig,
        options: Mapping[str, Any],
    ) -> list[np.ndarray] | None:
        """The arrays that decoding gives; a child that dies is tried once more, with a fresh one.

        Raises:
            DataError: what the decoder says of the file; it took too long; it crashed twice.
        """
        data = media.read_bytes() if isinstance(media, Blob) else b""
        place = {"bytes": len(data)} if isinstance(media, Blob) else {"path": str(media.resolve())}
        request = {"what": what, "name": name, "config": asdict(config), **options, **place}
        seconds = max(config.wall_seconds, 0) + GRACE
        with self._lock:
            for _ in range(2):
                answer = self._once(json.dumps(request).encode() + b"\n" + data, seconds, name)
                if answer is not None:
                    break
            else:
                raise broken(name, "crashed", "the decoder crashes on it")
        header, arrays = answer
        if "error" in header:
            raise DataError(str(header["error"]), rule=str(header.get("rule")))
        return None if header.get("missing") else arrays

    def _once(
        self, request: bytes, seconds: float, name: str
    ) -> tuple[dict[str, Any], list[np.ndarray]] | None:
        """The child's answer, or None if it died."""
        process = self._started()
        assert process.stdin and process.stdout
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(request)
            process.stdin.flush()
            return _answer(process.stdout)
        except (OSError, ValueError, KeyError, TypeError):  # gone, or its answer is none
            self.close()
            if late.is_set():
                why = f"decoding took more than {seconds - GRACE:g} s of wall time"
                raise broken(name, "too slow", why) from None
            return None
        except BaseException:
            self.close()  # interrupted in the middle of an answer
            raise
        finally:
            timer.cancel()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        # -P: no module is taken from the working folder, where the user's files lie
        command = [sys.executable, "-P", "-c", _START, str(Path(__file__).parents[2])]
        pipe = subprocess.PIPE
        self._process = process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, env=os.environ | quiet, start_new_session=True
        )
        assert process.stdout
        timer = threading.Timer(START, process.kill)
        timer.start()
        ready = process.stdout.readline()
        timer.cancel()
        if ready != b"ready\n":
            self.close()
            raise MotetError(
                "the process that decodes sound and video could not be started. "
                "--set data.isolate=never decodes without it."
            )
        return process

    def close(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                try:
                    if pipe:
                        pipe.close()
                except OSError:
                    pass  # what was not yet written to it

    def forget(self) -> None:
        """After a fork the child is the parent's."""
        self._lock = threading.Lock()
        self._process = None


def _answer(pipe: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Raises EOFError (an OSError here), ValueError, KeyError or TypeError where it is none."""
    line = pipe.readline(1 << 16)
    if not line.endswith(b"\n"):
        raise OSError("the child is gone")
    header = json.loads(line)
    arrays = []
    for shape, kind in header["arrays"]:
        dtype = {"f4": np.float32, "u1": np.uint8}[kind]
        size = int(np.prod([int(n) for n in shape], dtype=np.float64)) * np.dtype(dtype).itemsize
        if not 0 <= size <= MAX_ANSWER:
            raise ValueError(size)
        data = pipe.read(size)
        if len(data) < size:
            raise OSError("the child is gone")
        arrays.append(np.frombuffer(bytearray(data), dtype).reshape(shape))
    return header, arrays


child = Child()
atexit.register(child.close)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=child.forget)


# ---- in the child


def serve() -> None:
    """Decode what standard input asks for, until it ends."""
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints does not get into the answers
    _confine()
    answers.write(b"ready\n")
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        _alarm(request["config"]["wall_seconds"] + 2 * GRACE)
        header, arrays = _decoded(request, requests)
        kinds = [[list(a.shape), {"float32": "f4", "uint8": "u1"}[str(a.dtype)]] for a in arrays]
        answers.write(json.dumps(header | {"arrays": kinds}).encode() + b"\n")
        for array in arrays:
            answers.write(np.ascontiguousarray(array).data)
        answers.flush()
        _alarm(0)


def _decoded(request: dict[str, Any], data: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    name = request["name"]
    media = Path(request["path"]) if "path" in request else Blob(name, data.read(request["bytes"]))
    found: Any
    try:
        match request["what"]:
            case "sound":
                wave = sound.container_sound(media, name, AudioConfig(**request["config"]))
                arrays = [] if wave is None else [wave]
            case "frames":
                config = VideoConfig(**request["config"])
                found = frames.load_video(media, name, config, size=request["size"])
                arrays = [] if found is None else [found.frames, found.times]
            case "picture":
                limits = ImageConfig(**request["config"])
                image = picture.load_image(media, name, limits, least=request["least"])
                arrays = [np.asarray(image)]
            case _:
                raise ValueError(request["what"])
    except DataError as error:
        return {"error": str(error), "rule": error.rule}, []
    return {"missing": not arrays}, arrays


def _confine() -> None:
    """No core dumps, bounded memory, and the signals of the terminal are the parent's to answer."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = ADDRESS_SPACE if hard == resource.RLIM_INFINITY else min(ADDRESS_SPACE, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _alarm(seconds: float) -> None:
    """The child ends itself where the parent, which would have killed it, is gone."""
    import signal

    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
