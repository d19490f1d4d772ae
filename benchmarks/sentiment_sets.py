"""The sets of benchmarks/sentiment.py: texts rated by people, and clips made so that one modality decides."""

from __future__ import annotations

import csv
import json
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from motet.data.builtin.espeak import speak

VADER = {
    "tweets": "tweets_GroundTruth.txt",
    "film": "movieReviewSnippets_GroundTruth.txt",
    "product": "amazonReviewSnippets_GroundTruth.txt",
}
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
WORDS = {
    "positive": ("wonderful", "delightful", "happy", "excellent", "lovely", "great"),
    "negative": ("terrible", "horrible", "sad", "dreadful", "ugly", "awful"),
    "neutral": ("table", "number", "paper", "window", "corner", "street"),
}
SAYS = ("that was {}", "how {} it is", "i call it {}", "they find it {}")
RATE, SIDE, FPS = 16_000, 64, 4
DECIDES = ("clip", "clip_sound", "text")


def vader_table(folder: Path, name: str, out: Path, *, limit: int | None) -> Path:
    """Texts with the mean of 20 ratings, -4..4 (Hutto and Gilbert 2014); a review is one group."""
    file = out / VADER[name]
    if not file.is_file():
        loose = next(folder.rglob(VADER[name]), None)
        if loose is not None:
            data = loose.read_bytes()
        else:
            with tarfile.open(next(folder.rglob(ARCHIVE))) as archive:
                member = next(m for m in archive.getmembers() if m.isfile() and m.name.endswith(VADER[name]))
                data = archive.extractfile(member).read()  # type: ignore[union-attr]
        file.write_bytes(data)
    rows = []
    for line in file.read_bytes().decode("utf-8", errors="replace").splitlines():
        parts = line.split("\t", 2)
        if len(parts) == 3:
            rows.append((parts[0], float(parts[1]), parts[2].strip()))
    if limit is not None and len(rows) > limit:
        rows = [rows[i] for i in sorted(np.random.default_rng(0).permutation(len(rows))[:limit])]
    path = out / f"{name}.jsonl"
    with path.open("w", encoding="utf-8") as table:
        for id, score, text in rows:
            row = {"id": id, "group": id.split("_")[0], "text": text, "score": score}
            table.write(json.dumps(row) + "\n")
    return path


def clips_table(emoji: Path, out: Path, rows: int, *, seed: int = 0) -> Path:
    """Clips of a picture, a spoken word and a sentence, of which one alone tells the feeling.

    Pictures: emoji that people rated; speech: **synthesised**, at a random speed and pitch. The words and
    emoji of the test are those of the training, other clips of them. `decides` names the modality.
    """
    draw = np.random.default_rng(seed)
    pictures = _pictures(emoji)
    vocabulary = [word for words in WORDS.values() for word in words]
    voices = dict(
        zip(vocabulary, (wave.astype(np.float32) / 32768 for wave in speak(vocabulary)), strict=True)
    )
    table = []
    for i in range(rows):
        feeling, decides = ("positive", "negative")[i % 2], DECIDES[i // 2 % 3]
        shown, heard, read = (feeling if decides == one else "neutral" for one in DECIDES)
        word, said = (str(draw.choice(WORDS[kind])) for kind in (heard, read))
        picture = _varied(pictures[shown][draw.integers(len(pictures[shown]))], draw)
        _mux(out / f"{i}.mp4", picture, _spoken(voices[word], draw))
        split = ("train", "train", "train", "val", "test")[i // 6 % 5]
        text = str(draw.choice(SAYS)).format(said)
        table.append(
            {
                "id": i,
                "clip": f"{i}.mp4",
                "text": text,
                "sentiment": feeling,
                "decides": decides,
                "split": split,
            }
        )
    path = out / "clips.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return path


def _pictures(emoji: Path, each: int = 6) -> dict[str, list[Image.Image]]:
    found: dict[str, list[Image.Image]] = {feeling: [] for feeling in WORDS}
    with emoji.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            some = found.get(row["sentiment"])
            if some is not None and len(some) < each:
                some.append(Image.open(emoji.parent / row["picture"]).convert("RGBA"))
    return found


def _varied(picture: Image.Image, draw: np.random.Generator) -> Image.Image:
    """On a random light ground, at a random place and size."""
    ground = Image.new("RGB", (SIDE, SIDE), tuple(draw.integers(180, 256, 3).tolist()))
    size = int(draw.integers(44, 61))
    small = picture.resize((size, size))
    ground.paste(small, tuple(draw.integers(0, SIDE - size + 1, 2).tolist()), small)
    return ground


def _spoken(wave: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """(RATE,) samples: the word, faster or slower, somewhere in a second of faint noise."""
    speed = draw.uniform(0.85, 1.2)
    wave = np.interp(np.arange(0, len(wave) - 1, speed), np.arange(len(wave)), wave)[:RATE]
    out = draw.normal(0, 0.002, RATE)
    start = int(draw.integers(0, RATE - len(wave) + 1))
    out[start : start + len(wave)] += wave * draw.uniform(0.6, 1.0)
    return out.astype(np.float32)


def _mux(path: Path, picture: Image.Image, wave: np.ndarray) -> None:
    with av.open(str(path), "w") as container:
        shown = container.add_stream("mpeg4", rate=FPS)
        shown.width = shown.height = SIDE
        shown.pix_fmt, shown.bit_rate = "yuv420p", 400_000
        heard = container.add_stream("aac", rate=RATE, layout="mono")
        for _ in range(FPS):
            container.mux(shown.encode(av.VideoFrame.from_image(picture)))
        container.mux(shown.encode(None))
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(heard.encode(frame))
        container.mux(heard.encode(None))
