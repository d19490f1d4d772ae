"""A long clip cut by time: what each window holds, and the curve of what a model says of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from motet.data.audio import AudioProcessor
from motet.data.cache import FeatureCache
from motet.data.clock import cut_piece
from motet.data.features import FeaturesProcessor
from motet.data.frames import Clip
from motet.data.isolate import load_audio, load_video
from motet.data.mel import RATE
from motet.data.processor import Processor
from motet.data.spoken import Timed
from motet.data.video import VideoProcessor
from motet.errors import ConfigError, DataError
from motet.explain.draw import Line, line_chart
from motet.predictor import Entry
from motet.predictor.cells import Broken, cell_of, read_entries
from motet.tasks.curve import draw_curve
from motet.types import Piece, Sample

LONGEST = 4 * 3600.0  # seconds
MAX_FRAMES = 3600  # kept of a clip; beyond, half as many a second
MAX_BYTES = 2**31  # of decoded sound
MAX_WINDOWS = 20_000
MAX_CHARS = 1_000_000
MAX_LINES = 3  # drawn where there is no score
_CSS = (
    "svg{background:#fff;fill:#1c2027;font:13px system-ui,sans-serif}.soft{fill:#5d6573}"
    ".grid{stroke:#e5e2dc;fill:none}.middle{text-anchor:middle}.end{text-anchor:end}"
    ".line{fill:none;stroke-width:2}.s0{stroke:#1b4a92}.s1{stroke:#5d6573}.s2{stroke:#b4560a}"
    ".f0{fill:#1b4a92}.f1{fill:#5d6573}.f2{fill:#b4560a}"
)


@dataclass(frozen=True)
class Cuts:
    """A sample a window, with times from the window's start. `estimated`: the words' times are a guess."""

    windows: list[tuple[float, float]]
    samples: list[Sample]
    seconds: float
    estimated: bool


@dataclass(frozen=True)
class Timeline:
    """points: "start", "end" in seconds, and what `SentimentAnalyzer.predict` gives. seconds: the clip's."""

    points: list[dict[str, Any]]
    seconds: float
    estimated: bool

    def to_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "word_times_estimated": self.estimated, "points": self.points}

    def svg(self, title: str = "Feeling over time") -> str:
        """The curve as one SVG document: the score, or the probabilities of the likeliest classes."""
        lines, name = self._drawn()
        chart = line_chart(lines, title=title, x_name="seconds", y_name=name)
        opened, _, rest = chart.partition(">")
        return f'{opened} xmlns="http://www.w3.org/2000/svg"><style>{_CSS}</style>{rest}'

    def picture(self, title: str = "Feeling over time") -> Image.Image:
        """The same curve in pixels."""
        lines, name = self._drawn()
        return draw_curve(lines, title=title, x_name="seconds", y_name=name)

    def _drawn(self) -> tuple[list[Line], str]:
        """Raises:
        DataError: there is nothing to draw.
        """
        lines = self.lines()
        if not lines:
            raise DataError(
                "timeline: no window has anything that the model can use, so nothing can be drawn."
            )
        return lines, "score" if lines[0].name == "score" else "probability"

    def lines(self) -> list[Line]:
        """What is drawn, over the middle of each window that has an answer."""
        told = [point for point in self.points if point["status"] == "ok"]
        at = [(point["start"] + point["end"]) / 2 for point in told]
        if told and all(point["score"] is not None for point in told):
            return [Line("score", at, [point["score"] for point in told])]
        shares = {
            name: [p["probabilities"][name] for p in told]
            for name in (told[0]["probabilities"] if told else ())
        }
        largest = sorted(shares, key=lambda name: -float(np.mean(shares[name])))[:MAX_LINES]
        return [Line(name, at, shares[name]) for name in largest]

    def save(self, path: str | Path) -> Path:
        """Write .json, or a picture as .png or .svg.

        Raises:
            ConfigError: another ending.
        """
        path = Path(path)
        match path.suffix.lower():
            case ".json":
                path.write_text(json.dumps(self.to_dict(), ensure_ascii=False, indent=1), "utf-8")
            case ".svg":
                path.write_text(self.svg(), "utf-8")
            case ".png":
                self.picture().save(path)
            case _:
                raise ConfigError(f"{path}: a timeline is saved as .json, .png or .svg.")
        return path


def cut_entry(entry: Entry, processors: Mapping[str, Processor], *, window: float, step: float) -> Cuts:
    """Every medium of an entry decoded once, whole, and cut into windows.

    Raises:
        DataError: a broken file, or longer than four hours.
        ConfigError: a window or step not above 0, or so small that there are more than 20,000 windows.
    """
    if not (0 < window < math.inf and 0 < step < math.inf):
        raise ConfigError(f"timeline: window={window} and step={step} must be seconds above 0.")
    whole = {m: raw for m, p in processors.items() if (raw := _whole(entry, m, p)) is not None}
    seconds = round(max(map(_length, whole.values()), default=0.0), 3)
    count = max(1, math.ceil(max(0.0, seconds - window) / step - 1e-9) + 1)
    if count > MAX_WINDOWS:
        raise ConfigError(f"timeline: {count} windows of {seconds:g} s; choose a step above {step:g} s.")
    windows = [(i * step, min(max(seconds, step), i * step + window)) for i in range(count)]
    pieces: list[dict[str, Piece]] = [{} for _ in windows]
    for m, raw in whole.items():
        if isinstance(raw, _Still):
            for found in pieces:
                found[m] = raw.piece
            continue
        if isinstance(raw, Piece):
            for found, (a, b) in zip(pieces, windows, strict=True):
                if part := cut_piece(raw, a, b):
                    found[m] = part
            continue
        parts = [(i, part) for i, (a, b) in enumerate(windows) if (part := _part(raw, a, b)) is not None]
        made = processors[m].pieces([part for _, part in parts]) if parts else []
        for (i, _), piece in zip(parts, made, strict=True):
            pieces[i][m] = piece
    estimated = any(isinstance(raw, Timed) and raw.estimated for raw in whole.values())
    return Cuts(windows, [Sample(str(i), found) for i, found in enumerate(pieces)], seconds, estimated)


def _whole(entry: Entry, modality: str, processor: Processor) -> Any:
    """Frames, sound, timed words or a picture: all of it, beyond what the model hears at once."""
    cell, root = cell_of(entry, modality, processor)
    if cell is None:
        return None
    whole: Any
    match processor:
        case VideoProcessor():
            clip = replace(processor.config, max_frames=MAX_FRAMES, max_seconds=LONGEST, wall_seconds=600.0)
            whole = load_video(root / cell, str(cell), clip, size=processor.size)
        case AudioProcessor() if isinstance(cell, str):
            sound = replace(processor.config, max_seconds=LONGEST, max_bytes=MAX_BYTES, wall_seconds=600.0)
            whole = load_audio(root / cell, str(cell), sound)
        case FeaturesProcessor():
            whole = _features(processor, cell, root)
        case _ if processor.kind == "text":
            whole = _words(processor, cell, root)
        case _ if processor.kind == "image":
            whole = _picture(entry, modality, processor)
        case _:  # the samples of a sound
            whole = np.asarray(cell, np.float32)
    return whole


def _features(processor: FeaturesProcessor, cell: Any, root: Path) -> Piece | None:
    longest = replace(processor.config, max_tokens=int(LONGEST / processor.config.step))
    longer = FeaturesProcessor(processor.name, longest, processor.mean.tolist(), processor.std.tolist())
    values = longer.read(cell, root)
    return None if values is None else longer.pieces([values])[0]


def _words(processor: Any, cell: Any, root: Path) -> Timed | None:
    longer = type(processor)(
        processor.name,
        replace(processor.config, max_chars=MAX_CHARS),
        None if processor.encoder else processor.tokenizer,
        processor.encoder,
    )
    told = longer.read(cell, root)
    if isinstance(told, str):
        times = np.arange(len(told.split()), dtype=np.float32) * processor.config.seconds_per_word
        return Timed(told, times, estimated=True)
    return told


@dataclass(frozen=True)
class _Still:
    """A picture, as its tokens: it counts in every window."""

    piece: Piece


def _picture(entry: Entry, modality: str, processor: Processor) -> _Still | None:
    alone = replace(entry, cells={modality: entry.cells[modality]})
    sample = read_entries([alone], {modality: processor}, FeatureCache(None))[0]
    if isinstance(sample, Broken):
        raise sample.error
    return _Still(sample.pieces[modality]) if modality in sample.pieces else None


def _length(raw: Any) -> float:
    match raw:
        case Clip():
            return float(raw.times[-1]) + (float(raw.times[1]) if len(raw.times) > 1 else 0.0)
        case Timed():
            return float(raw.times[-1]) + 0.3 if len(raw.times) else 0.0
        case np.ndarray():
            return len(raw) / RATE
        case Piece() if len(raw):
            step = float(raw.time[1] - raw.time[0]) if len(raw) > 1 else 0.0
            return float(raw.time[-1]) + step
    return 0.0


def _part(raw: Any, start: float, end: float) -> Any:
    """What lies within [start, end), with times from `start`; None for nothing."""
    match raw:
        case Clip():
            inside = (raw.times >= start) & (raw.times < end)
            return Clip(raw.frames[inside], raw.times[inside] - np.float32(start)) if inside.any() else None
        case Timed():
            inside = (raw.times >= start) & (raw.times < end)
            words = [word for word, kept in zip(raw.text.split(), inside, strict=False) if kept]
            shifted = raw.times[inside][: len(words)] - np.float32(start)
            return Timed(" ".join(words), shifted, raw.estimated) if words else None
        case np.ndarray():
            part = raw[int(start * RATE) : int(end * RATE)]
            return part if len(part) else None
    return None
