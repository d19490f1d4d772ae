"""What a clip feels like: one answer for the whole, or a curve over its time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from motet.errors import ConfigError, DataError
from motet.predictor import Entry, Predictor
from motet.predictor.answers import prediction
from motet.predictor.cells import Broken, read_entries
from motet.tasks.timeline import Cuts, Timeline, cut_entry
from motet.types import Output, Sample

BATCH = 32  # windows predicted together


class SentimentAnalyzer:
    """A trained model, asked by kind of medium. Whatever is missing, silent or empty is left out.

    analyzer = motet.SentimentAnalyzer.from_pretrained("runs/reviews")
    analyzer.predict(video="clip.mp4", text="I loved it")
    analyzer.timeline(video="talk.mp4").save("talk.svg")
    """

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        if not predictor.tasks:
            raise ConfigError(
                f"{predictor.folder}: was trained for retrieval only and predicts no label. Train with "
                "--label COLUMN."
            )

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str = "auto") -> SentimentAnalyzer:
        """Open a model folder, as `motet fit` wrote it; for the errors see `Predictor.load`."""
        return cls(Predictor.load(folder, device=device))

    def predict(
        self,
        *,
        video: Any = None,
        audio: Any = None,
        text: str | Path | None = None,
        image: Any = None,
        features: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """{"label", "probabilities", "score", "modalities", "status"} of what is given.

        video, audio, image: paths (audio also (n,) samples at 16 kHz, image also a PIL picture or
        array); text: the words, or the path of a transcript with times; features: by modality, an `.npy`
        file or vectors (n, d). label: the likeliest class, or None for numbers; probabilities: calibrated
        on validation rows; score: the number, or for classes "positive" and "negative" the difference of
        their probabilities, else None; modalities: those that were heard; status: "ok", or "missing"
        where nothing was there to hear.
        A model of a label and a score gives both, and in "tasks" what it says of each.

        Raises:
            DataError: a file is broken or not there.
            ConfigError: the model has no modality for what is given.
        """
        entry = self.entry(video=video, audio=audio, text=text, image=image, features=features)
        sample = read_entries([entry], self.predictor.processors, self.predictor.cache)[0]
        if isinstance(sample, Broken):
            raise DataError(f"{sample.column}: {sample.error}", rule=sample.error.rule)
        return self._answers([sample])[0]

    def timeline(
        self,
        *,
        video: Any = None,
        audio: Any = None,
        text: str | Path | None = None,
        image: Any = None,
        features: Mapping[str, Any] | None = None,
        window: float = 6.0,
        step: float = 2.0,
    ) -> Timeline:
        """The same for windows of `window` seconds, one every `step` seconds.

        A picture counts in every window; words stand at their times, which are estimated where no
        transcript says them; features are cut by their own clock.

        Raises:
            DataError, ConfigError: as `predict`; a window or step that is not above 0.
        """
        entry = self.entry(video=video, audio=audio, text=text, image=image, features=features)
        return self.timeline_of(entry, window=window, step=step)

    def timeline_of(self, entry: Entry, *, window: float = 6.0, step: float = 2.0) -> Timeline:
        """`timeline` of an entry that is there already."""
        cuts: Cuts = cut_entry(entry, self.predictor.processors, window=window, step=step)
        answers = []
        for start in range(0, len(cuts.samples), BATCH):
            answers += self._answers(cuts.samples[start : start + BATCH])
        points = [
            {"start": a, "end": b} | answer for (a, b), answer in zip(cuts.windows, answers, strict=True)
        ]
        return Timeline(points, cuts.seconds, cuts.estimated)

    def entry(
        self,
        *,
        video: Any = None,
        audio: Any = None,
        text: str | Path | None = None,
        image: Any = None,
        features: Mapping[str, Any] | None = None,
    ) -> Entry:
        """What is given, by the model's modalities. A model without frames hears a video's sound.

        Raises:
            ConfigError: no modality for one of them. DataError: no such file.
        """
        cells: dict[str, Any] = {}
        for kind, given in (("video", video), ("audio", audio), ("image", image), ("text", text)):
            if given is None or (isinstance(given, str) and not given.strip()):
                continue
            value = _there(kind, given)
            names = self._names(kind)
            if not names:
                raise self._unknown(kind)
            cells |= dict.fromkeys(names, value)
        for name, given in (features or {}).items():
            if name not in self.predictor.processors or self.predictor.processors[name].kind != "features":
                raise self._unknown(name)
            cells |= {} if given is None else {name: _there(name, given)}
        return Entry("input", cells, Path())

    def _unknown(self, name: str) -> ConfigError:
        has = ", ".join(f"{m} ({p.kind})" for m, p in self.predictor.processors.items())
        return ConfigError(f"{name}: this model has no modality for it; it has {has}.")

    def _names(self, kind: str) -> list[str]:
        """The modalities that one input of this kind goes to."""
        kinds = {m: p.kind for m, p in self.predictor.processors.items()}
        first = [m for m, k in kinds.items() if k == kind][:1]
        if kind == "video":
            heard = [m for m, k in kinds.items() if k == "audio"]
            first += [m for m in heard if first and m == f"{first[0]}_sound"][:1] or heard[:1]
        return first

    @torch.inference_mode()
    def _answers(self, samples: list[Sample]) -> list[dict[str, Any]]:
        usable = [sample for sample in samples if sample.pieces]
        output = self.predictor.model(self.predictor.batch(usable)) if usable else None
        rows = iter(range(len(usable)))
        return [self._answer(sample, output, next(rows) if sample.pieces else 0) for sample in samples]

    def _answer(self, sample: Sample, output: Output | None, row: int) -> dict[str, Any]:
        said = prediction(
            Entry("input", {}, Path()),
            row,
            sample,
            output if sample.pieces else None,
            row,
            tasks=self.predictor.tasks,
            modalities=self.predictor.modalities,
        )
        tasks = {name: _words_of(answer) for name, answer in said.get("tasks", {}).items()}
        first = next((t.name for t in self.predictor.tasks if t.kind != "number"), "")
        lead = tasks.get(first) or _words_of(said)
        more = {"tasks": tasks} if tasks else {}
        kept = {key: said[key] for key in ("score", "modalities")}
        return lead | kept | more | {"status": said["status"]}


def _there(kind: str, given: Any) -> Any:
    """What is given, a path as a Path.

    Raises:
        DataError: no such file.
    """
    value = Path(given) if kind != "text" and isinstance(given, str) else given
    if isinstance(value, Path) and not value.is_file():
        raise DataError(f"{kind}: {value}: no such file (looked from {Path.cwd()}). Check the path.")
    return value


def _words_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A task's label and probabilities; a number is no label, but a score."""
    number = isinstance(answer["label"], float)
    said = {"label": None if number else answer["label"], "probabilities": answer["scores"]}
    return said | {"score": answer["label"] if number else None}
