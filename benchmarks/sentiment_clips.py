"""Clips muxed from real parts, in each of which one modality alone tells the answer: sound, words or picture.

A clip is a person's recorded speech, its transcript, and a picture: Tux Paint's stamps (Debian's
`tuxpaint-stamps-default`). In a third of the clips the **voice** tells: the caption is read in French
(yes) or Spanish (no), by one person a language; in a third the **words**: what is read of is an animal
(yes) or food (no); in a third the **picture**: an animal (yes) or food (no). The two other modalities
are then neutral: read in Romanian, of clothes, vehicles or household things, with a picture of such. The
transcript is the caption in English, so that it does not tell the voice, and no two parts of the split
share a caption, so that a recording tells its content to nobody who does not know the language.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from motet.data.builtin.tuxpaint import find_stamps
from motet.data.isolate import load_audio
from motet.data.mel import RATE
from motet.data.picture import load_image
from motet.explain.relevance import token_relevance
from motet.metrics import softmax
from motet.nn.segments import by_modality, segment_sum
from motet.predictor import Predictor
from motet.predictor.cells import read_entries
from motet.tasks.evaluate import ask, make_batch
from motet.types import Output

DECIDES = ("clip_sound", "transcript", "clip")
VOICES = {"yes": "fr", "no": "es", "neutral": "ro"}
THINGS = {
    "yes": ("animals",),
    "no": ("food",),
    "neutral": ("clothes", "vehicles", "household"),
}
PARTS = {"train": 0.7, "val": 0.15, "test": 0.15}
SECONDS, SIDE, FPS = 3.0, 128, 1
LOOKED_AT = 32  # clips followed back together


def clips_table(out: Path, rows: int, *, seed: int = 0) -> Path:
    """Write `rows` clips and their table, `out/clips.csv`.

    Raises:
        ConfigError: the stamps are not installed.
    """
    draw = np.random.default_rng(seed)
    out.mkdir(parents=True, exist_ok=True)
    parts = _parts(draw)
    counts = {name: round(rows * share) for name, share in PARTS.items()}
    table = []
    for part, count in counts.items():
        for i in range(count):
            answer, decides = ("yes", "no")[i % 2], DECIDES[i // 2 % 3]
            told = {one: answer if one == decides else "neutral" for one in DECIDES}
            name = f"{part}-{i}"
            spoken = parts[part][told["transcript"]]
            stem = str(draw.choice(sorted(spoken)))
            shown = parts[part][told["clip"]]
            pictures = [stem for stem, files in sorted(shown.items()) if "picture" in files]
            picture = shown[str(draw.choice(pictures))]["picture"]
            _mux(out / f"{name}.mp4", picture, spoken[stem][VOICES[told["clip_sound"]]])
            table.append(
                {
                    **{"id": name, "clip": f"{name}.mp4", "transcript": spoken[stem]["caption"]},
                    **{"answer": answer, "decides": decides, "split": part},
                }
            )
    path = out / "clips.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return path


def _parts(draw: np.random.Generator) -> dict[str, dict[str, dict[str, dict]]]:
    """part -> kind of thing -> stamp -> its files: "picture", "caption", and the speech by language."""
    files: dict[str, dict] = {}
    kinds: dict[str, str] = {}
    for language in VOICES.values():
        for stamp in find_stamps(language):
            kind = next((k for k, categories in THINGS.items() if stamp.category in categories), None)
            if kind and stamp.speech:
                kinds[stamp.id] = kind
                mine = files.setdefault(stamp.id, {"caption": stamp.caption})
                mine[language] = stamp.speech
                if stamp.picture and stamp.picture.suffix != ".svg":  # the same clips with the extra `svg`
                    mine["picture"] = stamp.picture
    whole = {id for id, mine in files.items() if set(VOICES.values()) <= set(mine)}
    ends, part_of = np.cumsum(list(PARTS.values())), {}
    for kind in THINGS:
        captions = sorted({files[id]["caption"] for id in whole if kinds[id] == kind})
        order = draw.permutation(len(captions)) / len(captions)
        for caption, place in zip(captions, order, strict=True):  # one caption, one part
            part_of.setdefault(caption, list(PARTS)[int((ends[:-1] <= place).sum())])
    found: dict[str, dict[str, dict[str, dict]]] = {part: {kind: {} for kind in THINGS} for part in PARTS}
    for id in whole:
        found[part_of[files[id]["caption"]]][kinds[id]][id] = files[id]
    return found


def _mux(path: Path, picture: Path, speech: Path) -> None:
    """The picture for as long as the speech lasts, at most `SECONDS`."""
    sound = load_audio(speech, speech.name)
    assert sound is not None  # a stamp's speech has a sound track
    wave = sound[: int(SECONDS * RATE)]
    image = Image.new("RGB", (SIDE, SIDE), "white")
    small = load_image(picture, picture.name)
    small.thumbnail((SIDE, SIDE))
    image.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    with av.open(str(path), "w") as container:
        shown = container.add_stream("mpeg4", rate=FPS)
        shown.width = shown.height = SIDE
        shown.pix_fmt, shown.bit_rate = "yuv420p", 1_000_000
        heard = container.add_stream("aac", rate=RATE, layout="mono")
        for _ in range(max(1, round(len(wave) / RATE * FPS))):
            container.mux(shown.encode(av.VideoFrame.from_image(image)))
        container.mux(shown.encode(None))
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(wave[None, start : start + 1024]), "fltp", "mono"
            )
            frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
            container.mux(heard.encode(frame))
        container.mux(heard.encode(None))


def thirds(table: Path, predictor: Predictor) -> dict[str, dict[str, float]]:
    """Of the test clips, by the modality that decides: accuracy, and how often it is named.

    By deletion: the modality without which the probability of the answer falls the most. By attention: the
    one whose tokens brought the most to the answer, followed back through the attention layers
    (`motet.explain.relevance`).
    """
    with table.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    test = [entry for entry in predictor.entries(table) if entry.fields["split"] == "test"]
    samples = read_entries(test, predictor.processors, predictor.cache)
    (task,) = predictor.tasks
    model, modalities = predictor.model, predictor.model.modalities
    keeps = [modalities, *(tuple(m for m in modalities if m != one) for one in DECIDES)]
    said = [softmax(ask(model, samples, keep=keep).predictions[task.name]) for keep in keeps]  # type: ignore[arg-type]
    answer, every = said[0].argmax(1), np.arange(len(rows))
    fall = np.array([said[0][every, answer] - part[every, answer] for part in said[1:]])
    brought = _brought(predictor, samples, task.name, answer)
    right = np.array([task.classes[a] == row["answer"] for a, row in zip(answer, rows, strict=True)])
    return _by_third([row["decides"] for row in rows], right, fall.argmax(0), brought.argmax(0))


def _brought(predictor: Predictor, samples: Sequence[Any], task: str, answer: np.ndarray) -> np.ndarray:
    """(3, N): what the tokens of each of `DECIDES` brought to the answer's lead over the other one."""
    model, parts = predictor.model, []
    for start in range(0, len(samples), LOOKED_AT):
        batch = make_batch(model, samples[start : start + LOOKED_AT])
        chosen = torch.from_numpy(answer[start : start + LOOKED_AT])[:, None]

        def lead(output: Output, chosen: torch.Tensor = chosen) -> torch.Tensor:
            logits = output.predictions[task]
            return (logits.gather(1, chosen) - logits.gather(1, 1 - chosen))[:, 0]

        value, layout = token_relevance(model, batch, lead), batch.layout
        total = segment_sum(value.float(), *by_modality(layout)).unflatten(0, (len(layout.modalities), -1))
        parts.append(total[[layout.modalities.index(one) for one in DECIDES]].numpy())
    return np.concatenate(parts, axis=1)


def _by_third(
    decides: Sequence[str], right: np.ndarray, blamed: np.ndarray, attended: np.ndarray
) -> dict[str, dict[str, float]]:
    found = {}
    for m, one in enumerate(DECIDES):
        mine = np.array([d == one for d in decides])
        found[one] = {
            "accuracy": float(right[mine].mean()),
            "found_by_deletion": float((blamed[mine] == m).mean()),
            "found_by_attention": float((attended[mine] == m).mean()),
        }
    return found
