"""`motet predict`: what a model says of a file, a text or every row of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from motet.cli.output import emit, say
from motet.errors import ConfigError, DataError


def predict(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    input: Annotated[str, typer.Argument(help="A media file, a text, or a table.")],
    json: Annotated[bool, typer.Option("--json", help="One JSON object a row.")] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="Of one clip or sound: a row for each window of its time.")
    ] = False,
    window: Annotated[float, typer.Option(metavar="SECONDS", help="Of the timeline: what a row sees.")] = 6.0,
    step: Annotated[float, typer.Option(metavar="SECONDS", help="Of the timeline: between rows.")] = 2.0,
    save: Annotated[
        Path | None, typer.Option(help="Of the timeline: also write it, as .json or a picture, .png or .svg.")
    ] = None,
) -> None:
    """Predict for a media file, a text, or each row of a table."""
    if timeline:
        _timeline(model, Path(input), window, step, save, json=json)
        return
    from motet.predictor import Predictor, is_table

    predictor = Predictor.load(model)
    several = bool(input.strip()) and is_table(input)  # nothing is an empty text, not the folder one is in
    rows = predictor.predict_table(input) if several else [predictor.predict(input)]
    for row in rows:
        if json:
            emit(row)
        else:
            print("\t".join(_cells(row)), flush=True)


def _cells(row: dict[str, Any]) -> list[str]:
    """id, answer with its probability, then the other classes; or what is wrong with the row."""
    head = [str(row["id"])] if row.get("id") is not None else []
    if row["status"] != "ok":
        return [*head, row["status"]]
    scores = row["scores"]
    if not scores:
        return [*head, f"{row['label']:.4g}"]
    ordered = sorted(scores.items(), key=lambda item: -item[1])
    others = list(row.get("tasks", {}).items())[1:]
    more = [f"{name} {_short(task['label'])}" for name, task in others]
    return [*head, _short(row["label"]), *(f"{name} {score:.3f}" for name, score in ordered), *more]


def _short(label: Any) -> str:
    return f"{label:.4g}" if isinstance(label, float) else str(label)


def _timeline(model: Path, clip: Path, window: float, step: float, save: Path | None, *, json: bool) -> None:
    from motet.predictor.inputs import kind_of_file
    from motet.tasks.sentiment import SentimentAnalyzer

    if not clip.is_file():
        raise DataError(f"{clip}: no such file (looked from {Path.cwd()}). A timeline is of one file.")
    analyzer = SentimentAnalyzer.from_pretrained(model)
    match kind_of_file(clip):
        case "video":
            found = analyzer.timeline(video=clip, window=window, step=step)
        case "audio":
            found = analyzer.timeline(audio=clip, window=window, step=step)
        case kind:
            raise ConfigError(f"{clip}: a file of kind {kind} has no time; give a clip or a sound.")
    if json:
        emit(found.to_dict())
    else:
        for point in found.points:
            scores = point["probabilities"] or {}
            row = point | {"scores": scores, "label": point["label"] if scores else point["score"]}
            row["id"] = f"{point['start']:g}-{point['end']:g} s"
            print("\t".join(_cells(row)), flush=True)
    if save is not None:
        say(f"written: {found.save(save)}")
