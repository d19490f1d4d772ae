"""One input explained: what was said, who listened to whom, and whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor

from motet.explain.capture import Capture, Score, capture
from motet.explain.faithfulness import DeletionTest, deletion_tests
from motet.explain.occlusion import Meeting, kept_place, leave_one_out
from motet.explain.patterns import Pattern, patterns
from motet.explain.relevance import relevance
from motet.explain.rollout import Importance, gradient_rollout, integrated_gradients, rollout
from motet.explain.units import Units, units
from motet.explain.views import (
    HeadStatistics,
    ModalityMatrix,
    TemporalAttention,
    TokenAttention,
    by_word,
    head_statistics,
    modality_matrix,
    temporal,
    token_attention,
)
from motet.explain.without import without_each
from motet.model import Motet, TaskSpec
from motet.types import Kind, Output, TokenBatch

LONG = 2048  # tokens from which on integrated gradients are left out and random orders are few
STEPS = 16
BINS = 16


@dataclass(frozen=True)
class Media:
    """What to show of one modality: a picture or sound file, or a text, and a note under it."""

    file: Path | None = None
    text: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Explained:
    """Everything that a report says of one input. `truth` is the right answer, where it is known.

    predictions[task] = {"label", "scores"}. What is explained is `answer`: the probability of the
    likeliest class of the first task, or how far a number lies from the training rows' mean, or, of a
    model without tasks, the input's place in the shared space. importance: relevance (of a
    place: leaving tokens out one by one); plain: attention rollout; check: integrated gradients. tests:
    the deletion test of each of these and of gradient-weighted rollout, importance first.
    words[m]: each word of the text over the tokens of modality m, where the two meet; seconds: pairs of
    modalities that both last; units: what a reader can point at;
    without[""]: the score that is explained, without[m]: what it is without modality m;
    meeting: set where the input was held against a result of a search.
    """

    title: str
    kinds: Mapping[str, Kind]
    media: Mapping[str, Media]
    predictions: Mapping[str, Mapping[str, Any]]
    answer: str
    matrix: ModalityMatrix
    heads: HeadStatistics
    patterns: tuple[Pattern, ...]
    seconds: tuple[TemporalAttention, ...]
    words: Mapping[str, TokenAttention]
    units: Units
    without: Mapping[str, float]
    plain: Importance
    importance: Importance
    check: Importance | None
    tests: tuple[DeletionTest, ...]
    captured: Capture = field(repr=False)
    truth: str = ""
    meeting: Meeting | None = None
    against: Mapping[str, Media] = field(default_factory=dict)

    @property
    def deletion(self) -> DeletionTest | None:
        """The test of `importance`."""
        return self.tests[0] if self.tests else None

    def to_dict(self) -> dict[str, Any]:
        """The numbers behind the report, as JSON values."""
        return {
            "title": self.title,
            "predictions": {task: dict(said) for task, said in self.predictions.items()},
            "modality_matrix": self.matrix.to_dict(),
            "words": {name: view.to_dict() for name, view in self.words.items()},
            "temporal": [view.to_dict() for view in self.seconds],
            "without": dict(self.without),
            "units": self.units.to_dict(),
            "heads": self.heads.to_dict(),
            "patterns": [view.to_dict() for view in self.patterns],
            "explained": self.answer,
            "rollout": self.plain.to_dict(),
            "importance": self.importance.to_dict(),
            "check": None if self.check is None else self.check.to_dict(),
            "deletion": None if self.deletion is None else self.deletion.to_dict(),
            "tests": [test.to_dict() for test in self.tests],
            "meeting": None if self.meeting is None else self.meeting.to_dict(),
        }


def explain_sample(
    model: Motet, batch: TokenBatch, media: Mapping[str, Media], *, title: str = "", truth: str = ""
) -> Explained:
    """Explain a batch of one sample.

    Raises:
        ConfigError: the sample has no tokens.
    """
    with torch.no_grad():
        output = model(batch)
    score, answer = answer_score(model.config.tasks, output)
    captured = capture(model, batch, score)
    kinds = {spec.name: spec.kind for spec in model.config.modalities}
    plain = rollout(captured)
    long = captured.layout.tokens > LONG
    check = None if long else integrated_gradients(model, batch, captured, score, steps=STEPS)
    tasked = bool(model.config.tasks)
    find = relevance if tasked else leave_one_out
    importance = find(model, batch, captured, score)
    views = [importance, *([check] if check else []), gradient_rollout(captured), plain]
    tests = deletion_tests(model, batch, views, score, orders=8 if long else 40)
    return Explained(
        title=title or _title(media),
        kinds=kinds,
        media=media,
        predictions={t.name: _said(t, captured.output) for t in model.config.tasks},
        answer=answer,
        matrix=modality_matrix(captured),
        heads=head_statistics(captured),
        patterns=patterns(captured),
        seconds=_seconds(captured, kinds),
        words=_words(captured, kinds),
        units=units(captured, importance, kinds),
        without=without_each(model, batch, importance, score)[0],
        plain=plain,
        importance=importance,
        check=check,
        tests=tuple(tests),
        truth=truth,
        captured=captured,
    )


def _title(media: Mapping[str, Media]) -> str:
    """The texts, shortened, or the names of the files."""
    texts = [m.text for m in media.values() if m.text]
    names = dict.fromkeys(m.file.name for m in media.values() if m.file is not None)
    return shorten(", ".join(texts) or ", ".join(names) or "One input", 80, placeholder=" \u2026")


def answer_score(tasks: Sequence[TaskSpec], output: Output) -> tuple[Score, str]:
    """What of this output is explained, as a function of any output, and its name.

    Of several labels at once, it is the one that the model is surest of.
    """
    if not tasks:
        return kept_place(output), "closeness to its place in the shared space"
    task = tasks[0]
    first = output.predictions[task.name][0]
    if task.kind == "number":
        side = 1.0 if float(first) >= task.mean else -1.0
        return (
            lambda said: side * (said.predictions[task.name] - task.mean) / task.std,
            f"{task.name}: spreads {'above' if side > 0 else 'below'} the training rows' mean",
        )
    best = int(first.argmax())

    def likely(said: Output) -> Tensor:
        logits = said.predictions[task.name]
        return logits.sigmoid()[:, best] if task.kind == "multilabel" else logits.softmax(-1)[:, best]

    return likely, f"probability of {task.classes[best]!r}"


def _said(task: TaskSpec, output: Output) -> dict[str, Any]:
    prediction = output.predictions[task.name][0]
    if task.kind == "number":
        return {"label": float(prediction), "scores": {}}
    if task.kind == "multilabel":
        each = dict(zip(task.classes, prediction.float().sigmoid().tolist(), strict=True))
        return {"label": [name for name, p in each.items() if p >= 0.5], "scores": each}
    scores = prediction.float().softmax(-1).tolist()
    label = task.classes[scores.index(max(scores))]
    return {"label": label, "scores": dict(zip(task.classes, scores, strict=True))}


def _words(captured: Capture, kinds: Mapping[str, Kind]) -> dict[str, TokenAttention]:
    present = captured.present()
    texts = [name for name in present if kinds[name] == "text"]
    others = [name for name in present if kinds[name] in ("image", "audio", "video")]
    return {
        other: by_word(token_attention(captured, texts[0], other))
        for other in others
        if texts and captured.layers_between(texts[0], other)
    }


def _seconds(captured: Capture, kinds: Mapping[str, Kind]) -> tuple[TemporalAttention, ...]:
    """Every ordered pair of modalities that last longer than a moment and meet in some layer."""
    lasting = [
        name
        for name in captured.present()
        if kinds[name] != "image" and float(captured.layout.time[captured.tokens_of(0, name)].max()) > 0
    ]
    pairs = [(a, b) for a in lasting for b in lasting if a != b and captured.layers_between(a, b)]
    return tuple(temporal(captured, a, b, bins=BINS) for a, b in pairs)
