"""Synthesised speech by the espeak-ng library of the package `espeakng-loader`, through ctypes.

The library carries its noise and its filters' state from one text to the next, and cannot be set
back. It runs in a process of its own, so that the same list of texts always sounds the same.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr

from motet.errors import DataError, missing_extra

RATE = 16_000
_SYNCHRONOUS, _UTF8, _RETURN_ON_ERROR = 2, 1, 0x8000
_LONGEST_PATH = 150  # espeak-ng cuts the path of its data near 160 bytes
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


def speak(texts: Sequence[str], *, voice: str = "en-us") -> Iterator[np.ndarray]:
    """Each text as sound: (samples,) int16, mono, 16 kHz. About 2 ms a name.

    Raises:
        ConfigError: espeakng-loader is not installed.
        DataError: the library does not start, or lacks the voice.
    """
    if importlib.util.find_spec("espeakng_loader") is None:
        raise missing_extra("demo", "espeakng-loader", "Synthesising speech")
    command = [sys.executable, "-P", "-m", "motet.data.builtin.espeak"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(json.dumps([voice, *texts]).encode())
            child.stdin.close()
            for _ in texts:
                size = int.from_bytes(child.stdout.read(4), "little")
                sound = child.stdout.read(size)
                if not size or len(sound) < size:
                    raise DataError(
                        f"espeak-ng stopped while speaking with the voice {voice!r}. "
                        "Install it anew: pip install --force-reinstall espeakng-loader"
                    )
                yield np.frombuffer(sound, "<i2")
        finally:
            child.kill()


def _main() -> None:
    """The child: [voice, text, ...] as JSON on stdin; on stdout, for each text, bytes and their count."""
    import espeakng_loader

    voice, *texts = json.load(sys.stdin)
    data = Path(espeakng_loader.get_data_path())
    with tempfile.TemporaryDirectory(prefix="motet-") as folder:
        if len(str(data)) > _LONGEST_PATH:
            (Path(folder) / data.name).symlink_to(data)
            data = Path(folder) / data.name
        library = ctypes.CDLL(espeakng_loader.get_library_path())
        rate = library.espeak_Initialize(_SYNCHRONOUS, 0, str(data).encode(), _RETURN_ON_ERROR)
        if rate <= 0 or library.espeak_SetVoiceByName(voice.encode()):
            sys.exit(f"{data}: espeak-ng does not start with the voice {voice!r}")
        pieces: list[np.ndarray] = []

        @_Callback
        def collect(samples: ctypes._Pointer, count: int, _events: int) -> int:
            if samples and count > 0:
                pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        library.espeak_SetSynthCallback(collect)
        for text in texts:
            pieces.clear()
            spoken = text.encode()
            library.espeak_Synth(spoken, len(spoken) + 1, 0, 1, 0, _UTF8, None, None)
            sound = np.trim_zeros(np.concatenate([*pieces, np.zeros(1, np.int16)]), "b")
            sound = soxr.resample(sound if len(sound) else np.zeros(rate // 10, np.int16), rate, RATE)
            sys.stdout.buffer.write((2 * len(sound)).to_bytes(4, "little") + sound.astype("<i2").tobytes())


if __name__ == "__main__":
    _main()
