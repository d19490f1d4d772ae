"""Small encoders and files that the tests of data make up."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from motet.types import Kind


class TextEncoder:
    """A vector a token, which says its id and where it stood."""

    name, kind, width, fingerprint = "toy-text", "text", 3, "t1"
    kind: Kind

    def __init__(self, words: Sequence[str]) -> None:
        vocab = {w: i for i, w in enumerate(["[UNK]", "[CLS]", "[SEP]", "[PAD]", *words])}
        self.tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
        self.tokenizer.normalizer = normalizers.BertNormalizer()
        self.tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self.tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
        self.tokenizer.enable_padding(length=32, pad_id=3, pad_token="[PAD]")
        self.calls: list[list[np.ndarray]] = []

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.calls.append(list(inputs))
        return [
            np.stack([i, np.arange(len(i)), np.full(len(i), len(i))], 1).astype(np.float32) for i in inputs
        ]


class ImageEncoder:
    """A 2 x 3 grid of tokens: mean of each colour, and the token's number."""

    name, kind, width, fingerprint = "toy-image", "image", 4, "i1"
    size, mean, std = 12, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
    kind: Kind

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.seen += len(inputs)
        out = []
        for x in inputs:
            assert x.shape == (3, self.size, self.size) and x.dtype == np.float32
            tokens = np.concatenate([np.tile(x.mean((1, 2)), (6, 1)), np.arange(6)[:, None]], 1)
            out.append(tokens.reshape(2, 3, 4).astype(np.float32))
        return out


def tone(seconds: float, rate: int = 16_000, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = 16_000) -> Path:
    """16-bit PCM; samples (n,) or (n, channels) in -1..1."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


def write_clip(
    path: Path,
    *,
    colours: Sequence[tuple[int, int, int]] = ((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    times: Sequence[float] = (0.0, 1.0, 2.0),
    sound: np.ndarray | None = None,
    size: tuple[int, int] = (64, 48),
    video: bool = True,
    mark: bool = False,
) -> Path:
    """A clip whose frame i has colours[i] from times[i] on; `mark` whitens the upper left quarter."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if path.suffix == ".mp4" else {}) as out:
        pictures = out.add_stream("mpeg4", rate=25) if video else None
        voice = out.add_stream("aac", rate=16_000, layout="mono") if sound is not None else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = *size, "yuv420p"
            pictures.time_base = pictures.codec_context.time_base = Fraction(1, 1000)
            pictures.bit_rate = 2_000_000
            for colour, time in zip(colours, times, strict=True):
                array = np.full((size[1], size[0], 3), colour, np.uint8)
                if mark:
                    array[: size[1] // 2, : size[0] // 2] = 255
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                for packet in pictures.encode(frame):
                    out.mux(packet)
            for packet in pictures.encode():
                out.mux(packet)
        if voice is not None:
            for start in range(0, len(sound), 1024):
                frame = av.AudioFrame.from_ndarray(
                    sound[None, start : start + 1024], format="fltp", layout="mono"
                )
                frame.sample_rate, frame.pts = 16_000, start
                for packet in voice.encode(frame):
                    out.mux(packet)
            for packet in voice.encode():
                out.mux(packet)
    return path
