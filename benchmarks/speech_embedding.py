"""Google's speech embedding, frozen, from the wheel `pyopen-wakeword`: 96 numbers every 80 ms of a sound.

It was trained on short English phrases (Lin et al. 2020, arXiv:2002.01322). The wheel brings the model
and a TensorFlow Lite library, called here through ctypes as the wheel itself does.
"""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path

import numpy as np

RATE = 16_000
MELS, WINDOW, STEP, WIDTH = (
    32,
    76,
    8,
    96,
)  # mel frames of 10 ms: what one embedding sees, and how far it moves
SECONDS = WINDOW / 100  # that one embedding sees
QUIET = np.zeros(RATE // 2, np.float32)  # around a sound: the first words are whole in one window, too


class SpeechEmbedding:
    """Sounds (n,) float32 at 16 kHz -> (tokens, 96) float32."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("pyopen_wakeword")
        if spec is None or spec.origin is None:
            sys.exit("the speech embedding is not installed: pip install pyopen-wakeword")
        folder = Path(spec.origin).parent
        self.library = ctypes.CDLL(str(folder / "lib" / "libtensorflowlite_c.so"))
        for name in ("ModelCreateFromFile", "InterpreterCreate", "InterpreterGetInputTensor"):
            getattr(self.library, f"TfLite{name}").restype = ctypes.c_void_p
        self.library.TfLiteInterpreterGetOutputTensor.restype = ctypes.c_void_p
        self.library.TfLiteTensorByteSize.restype = ctypes.c_size_t
        self.mels = self._interpreter(folder / "models" / "melspectrogram.tflite")
        self.embed = self._interpreter(folder / "models" / "embedding_model.tflite")

    def _interpreter(self, path: Path) -> ctypes.c_void_p:
        model = ctypes.c_void_p(self.library.TfLiteModelCreateFromFile(str(path).encode()))
        return ctypes.c_void_p(self.library.TfLiteInterpreterCreate(model, None))

    def __call__(self, wave: np.ndarray) -> np.ndarray:
        loudest = float(np.abs(wave).max(initial=0.0)) or 1.0
        wave = np.concatenate([QUIET, wave * (0.5 / loudest), QUIET])
        mels = self._run(self.mels, (wave * 32767).astype(np.float32)[None])
        mels = mels.reshape(-1, MELS) / 10 + 2  # as the embedding was trained
        frames = WINDOW + STEP * ((len(mels) - WINDOW) // STEP)
        return self._run(self.embed, mels[None, :frames, :, None]).reshape(-1, WIDTH)

    def _run(self, interpreter: ctypes.c_void_p, values: np.ndarray) -> np.ndarray:
        library, values = self.library, np.ascontiguousarray(values, np.float32)
        shape = (ctypes.c_int32 * values.ndim)(*values.shape)
        library.TfLiteInterpreterResizeInputTensor(interpreter, 0, shape, values.ndim)
        library.TfLiteInterpreterAllocateTensors(interpreter)
        given = ctypes.c_void_p(library.TfLiteInterpreterGetInputTensor(interpreter, 0))
        data = values.ctypes.data_as(ctypes.c_void_p)
        library.TfLiteTensorCopyFromBuffer(given, data, ctypes.c_size_t(values.nbytes))
        if library.TfLiteInterpreterInvoke(interpreter):
            raise RuntimeError(f"the speech embedding cannot read a sound of shape {values.shape}")
        made = ctypes.c_void_p(library.TfLiteInterpreterGetOutputTensor(interpreter, 0))
        out = np.empty(library.TfLiteTensorByteSize(made) // 4, np.float32)
        library.TfLiteTensorCopyToBuffer(
            made, out.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(out.nbytes)
        )
        return out
