"""One input explained: what was said, who listened to whom, and whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from motet.explain.capture import Capture, Score, capture
from motet.explain.faithfulness import DeletionTest, deletion_test
from motet.explain.rollout import Importance, gradient_rollout, rollout
from motet.explain.views import (
    ModalityMatrix,
    TokenAttention,
    by_word,
    modality_matrix,
    token_attention,
    word_spans,
)
from motet.model import Motet, TaskSpec
from motet.types import Kind, Output, TokenBatch


@dataclass(frozen=True)
class Media:
    """What to show of one modality: a picture or sound file, or a text, and a note under it."""

    file: Path | None = None
    text: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Explained:
    """Everything that a report says of one input. `truth` is the right answer, where it is known.

    predictions[task] = {"label", "scores"}; importance: gradient-weighted rollout of the first task
    with classes, or plain rollout where there is none (`deletion` is None then); plain: plain rollout.
    words[m]: each word of the text over the tokens of modality m, where the two meet.
    """

    title: str
    kinds: Mapping[str, Kind]
    media: Mapping[str, Media]
    predictions: Mapping[str, Mapping[str, Any]]
    matrix: ModalityMatrix
    words: Mapping[str, TokenAttention]
    plain: Importance
    importance: Importance
    deletion: DeletionTest | None
    captured: Capture = field(repr=False)
    truth: str = ""

    def weighed_words(self, text: str) -> tuple[tuple[str, ...], np.ndarray]:
        """The words of one text modality and how much of it reached the answer through each."""
        name = np.array(self.importance.modality) == text
        labels = [label for label, here in zip(self.importance.labels, name, strict=True) if here]
        spans = word_spans(self.captured.layout.time[self.importance.token[name]].cpu().numpy())
        sums = np.array([self.importance.value[name][span].sum() for span in spans])
        return tuple("".join(labels[span]) for span in spans), sums

    def to_dict(self) -> dict[str, Any]:
        """The numbers behind the report, as JSON values."""
        return {
            "title": self.title,
            "predictions": {task: dict(said) for task, said in self.predictions.items()},
            "modality_matrix": self.matrix.to_dict(),
            "words": {name: view.to_dict() for name, view in self.words.items()},
            "rollout": self.plain.to_dict(),
            "importance": self.importance.to_dict(),
            "deletion": None if self.deletion is None else self.deletion.to_dict(),
        }


def explain_sample(
    model: Motet, batch: TokenBatch, media: Mapping[str, Media], *, title: str = "", truth: str = ""
) -> Explained:
    """Explain a batch of one sample.

    Raises:
        ConfigError: the sample has no tokens.
    """
    task = next((t for t in model.config.tasks if t.kind == "classes"), None)
    chosen = None if task is None else likelihood(task, model(batch))
    captured = capture(model, batch, chosen)
    kinds = {spec.name: spec.kind for spec in model.config.modalities}
    plain = rollout(captured)
    importance = plain if chosen is None else gradient_rollout(captured)
    test = None if chosen is None else deletion_test(model, batch, importance, chosen)
    return Explained(
        title=title or ", ".join(m.text for m in media.values() if m.text) or "One input",
        kinds=kinds,
        media=media,
        predictions={t.name: _said(t, captured.output) for t in model.config.tasks},
        matrix=modality_matrix(captured),
        words=_words(captured, kinds),
        plain=plain,
        importance=importance,
        deletion=test,
        truth=truth,
        captured=captured,
    )


def likelihood(task: TaskSpec, output: Output) -> Score:
    """The probability of the class that `output` holds likeliest for its first sample."""
    likeliest = int(output.predictions[task.name][0].argmax())

    def score(said: Output) -> Tensor:
        return said.predictions[task.name].softmax(-1)[:, likeliest]

    return score


def _said(task: TaskSpec, output: Output) -> dict[str, Any]:
    prediction = output.predictions[task.name][0]
    if task.kind == "number":
        return {"label": float(prediction), "scores": {}}
    scores = prediction.float().softmax(-1).tolist()
    label = task.classes[scores.index(max(scores))]
    return {"label": label, "scores": dict(zip(task.classes, scores, strict=True))}


def _words(captured: Capture, kinds: Mapping[str, Kind]) -> dict[str, TokenAttention]:
    present = captured.present()
    texts = [name for name in present if kinds[name] == "text"]
    others = [name for name in present if kinds[name] in ("image", "audio")]
    return {
        other: by_word(token_attention(captured, texts[0], other))
        for other in others
        if texts and captured.layers_between(texts[0], other)
    }
