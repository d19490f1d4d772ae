"""Broken and hostile media, made by one seeded script: `build(folder)` -> {name of the case: file}."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from tests.data.media_fakes import tone, write_clip, write_wav

CUTS = 50
PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")


def picture_bytes(format: str, seed: int = 0) -> bytes:
    """A noisy picture, which compresses badly, so that every cut takes something away."""
    noise = np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)
    image = Image.fromarray(noise)
    out = io.BytesIO()
    (image.convert("P") if format == "GIF" else image).save(out, format)
    return out.getvalue()


def cuts(data: bytes) -> list[bytes]:
    """The file cut at 50 points, 0 bytes included."""
    return [data[: len(data) * k // CUTS] for k in range(CUTS)]


def png(width: int, height: int, *, bits: int = 1, idat: bytes = b"") -> bytes:
    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", idat) + chunk(b"IEND", b"")


def wav(
    rate: int, body: bytes, *, format: int = 3, bits: int = 32, channels: int = 1, size: int | None = None
) -> bytes:
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", format, channels, rate, min(rate * frame, 2**32 - 1), frame, bits)
    data = b"fmt " + struct.pack("<I", len(head)) + head
    data += b"data" + struct.pack("<I", len(body) if size is None else size) + body
    return b"RIFF" + struct.pack("<I", 4 + len(data)) + b"WAVE" + data


def build(folder: Path, seed: int = 0) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path] = {}

    def put(name: str, data: bytes) -> None:
        made[name] = folder / name
        made[name].write_bytes(data)

    _pictures(put, seed)
    _sounds(put, folder, made)
    _clips(put, folder, made)
    return made


def _pictures(put, seed: int) -> None:
    put("bomb.png", png(13_300, 13_300, idat=zlib.compress(bytes((13_300 // 8 + 1 + 1) * 13_300), 9)))
    put("header_100k.png", png(100_000, 100_000, idat=zlib.compress(b"\0" * 100)))
    put("lying_header.png", png(5_000, 5_000, bits=8, idat=zlib.compress(b"\0" * 100)))
    put("empty.png", b"")
    put("text.png", b"I am a text, not a picture.\n" * 50)
    put("wrong_extension.png", picture_bytes("JPEG", seed))
    put("fits.png", b"SIMPLE  =                    T / FITS".ljust(2880) + bytes(2880))
    put("psd.png", b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 10, 10, 8, 3) + bytes(400))
    put("eps.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    put("svg.png", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="/etc/passwd"/></svg>')
    put("ppm.png", b"P6 2 2 255\n" + bytes(12))
    put("nan.tiff", _tiff(np.full((8, 8), np.nan, np.float32)))


def _tiff(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, "TIFF")
    return out.getvalue()


def _sounds(put, folder: Path, made: dict[str, Path]) -> None:
    samples = tone(1.0)
    whole = write_wav(folder / "whole.wav", samples).read_bytes()
    put("half.wav", whole[: len(whole) // 2])
    put("empty.wav", b"")
    put("no_samples.wav", wav(16_000, b""))
    put("one_sample.wav", wav(16_000, struct.pack("<f", 0.5)))
    for name, bad in (("nan", np.nan), ("inf", np.inf), ("minus_inf", -np.inf)):
        broken = samples.copy()
        broken[15_000] = bad
        put(f"{name}.wav", wav(16_000, broken.tobytes()))
    put("rate_1.wav", wav(1, samples.tobytes()))
    put("rate_huge.wav", wav(2**31 - 1, samples.tobytes()))
    put("rate_0.wav", wav(0, samples.tobytes()))
    put("no_channels.wav", wav(16_000, samples.tobytes(), channels=0))
    put("streamed.wav", wav(16_000, samples.tobytes(), size=0xFFFFFFFF))
    put("garbage.wav", whole[:44] + bytes(range(256)) * 4)
    wide = np.stack([tone(0.5, 192_000)] * 8, 1)
    made["wide.wav"] = folder / "wide.wav"
    soundfile.write(made["wide.wav"], wide, 192_000)
    made["bomb.flac"] = folder / "bomb.flac"
    with soundfile.SoundFile(made["bomb.flac"], "w", 48_000, 8, "PCM_16") as file:
        for _ in range(600):
            file.write(np.zeros((48_000, 8), np.int16))
    made["whole.ogg"] = folder / "whole.ogg"
    soundfile.write(made["whole.ogg"], np.random.default_rng(0).normal(size=32_000) * 0.1, 16_000)
    made["whole.flac"] = folder / "whole.flac"
    soundfile.write(made["whole.flac"], np.random.default_rng(0).normal(size=32_000) * 0.1, 16_000)


def _clips(put, folder: Path, made: dict[str, Path]) -> None:
    frames = {"colours": [(i * 9 % 256, 80, 160) for i in range(30)], "times": [i / 10 for i in range(30)]}
    for ending in ("mp4", "mkv", "avi", "mov"):
        name = f"whole.{ending}"
        times = frames | {"times": [i / 25 for i in range(30)]} if ending == "avi" else frames
        made[name] = write_clip(folder / name, sound=None if ending == "avi" else tone(3.0), **times)
    whole = made["whole.mp4"].read_bytes()
    put("cut_90.mp4", whole[: len(whole) * 9 // 10])
    put("empty.mp4", b"")
    put("garbage.mp4", np.random.default_rng(1).integers(0, 256, 50_000, np.uint8).tobytes())
    put("header_only.mp4", whole[: whole.find(b"mdat") + 4])
    flipped = bytearray(whole)
    for at in np.random.default_rng(2).integers(whole.find(b"mdat") + 8, len(whole), 200):
        flipped[at] ^= 0xFF
    put("flipped.mp4", bytes(flipped))
    made["sound_only.mp4"] = write_clip(folder / "sound_only.mp4", video=False, sound=tone(0.5))
    made["video_only.mp4"] = write_clip(folder / "video_only.mp4")
    made["secret.wav"] = write_wav(folder / "secret.wav", tone(0.5))
    beside = folder / "secret.wav"
    put("ffconcat.mp4", f"ffconcat version 1.0\nfile {beside.name}\n".encode())
    put("ffconcat_unsafe.mp4", f"ffconcat version 1.0\nfile '{beside}'\n".encode())
    for name, target in (
        ("hls", beside.name),
        ("hls_http", "http://127.0.0.1:9/a.ts"),
        ("hls_file", f"file://{beside}"),
    ):
        put(
            f"{name}.mp4",
            f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n".encode(),
        )
    put("dash.mp4", b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>')
    put("sdp.mp4", b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n")
    put("concat_line.mp4", f"concat:{beside}|{beside}".encode())
    put("picture.mp4", picture_bytes("PNG"))
    put("text.wav", b"not a sound at all\n" * 40)
