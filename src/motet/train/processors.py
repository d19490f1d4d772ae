"""What turns the columns of a table into tokens: a processor a column, and what a clip brings besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from motet.data.columns import Columns, modality_name
from motet.data.hear import check_whisper
from motet.data.isolate import load_audio
from motet.data.media import open_media
from motet.data.processor import Processor, ProcessorConfig, make_processor
from motet.data.spoken import placed
from motet.data.table import Table
from motet.data.transcript import beside, is_transcript
from motet.errors import ConfigError, DataError
from motet.nn.backbones import available, load_encoder
from motet.train.modality import modality_settings
from motet.train.settings import FitConfig
from motet.train.tuning import encoder_kind, tuned_processor
from motet.types import Encoder

SPOKEN = ("transcript", "transcripts", "subtitle", "subtitles", "words")  # what such a column's name ends in
LOOK_AT = 64  # cells that are looked at to find out whether clips have sound, or texts beside them


def derived(modalities: Mapping[str, str]) -> dict[str, str]:
    """modality -> kind, with those that clips and sounds may bring: their sound track, texts beside them."""
    made = dict(modalities)
    for name, kind in modalities.items():
        if kind == "video":
            made.setdefault(f"{name}_sound", "audio")
        if kind in ("video", "audio"):
            made.setdefault(f"{name}_words", "text")
    return made


def make_processors(
    table: Table,
    columns: Columns,
    rows: Sequence[int],
    config: FitConfig,
    *,
    preset: str,
    say: Callable[[str], None],
) -> dict[str, Processor]:
    """modality -> its processor, learned from `rows`.

    Besides a processor for each column, a clip with sound gives "<clip>_sound", and a sound or clip
    with transcripts beside it (`a.mp4`, `a.srt`) gives "<clip>_words", where no column is its transcript.

    Raises:
        ConfigError: settings or a backbone that cannot be had.
        DataError: a column with nothing usable.
    """
    kinds = {modality_name(column): kind for column, kind in columns.modalities.items()}
    cells = {modality_name(column): _Cells(table, column, rows) for column in columns.modalities}
    made: dict[str, Processor] = {}

    def add(name: str, kind: str, given: Callable[[], Sequence[Any]], said_in: str = "") -> None:
        said = modality_settings(config, name, kind)
        settings, tuning = said.processor, said.tuning
        if said_in:
            text = replace(settings.text, spoken_in=said_in, transcribe=_transcriber(name, config))
            settings = replace(settings, text=text)
        on = f", on the clock of {said_in}" if said_in else ""
        if said_in and kind == "text" and settings.text.transcribe:
            on += f", heard by {settings.text.transcribe} where there are no words"
        if tuning.trained:
            made[name] = tuned_processor(name, kind, settings, tuning)
            how = "LoRA on" if tuning.tune == "lora" else "training all of"
            backbone = made[name].spec.backbone
            later = f" from epoch {tuning.unfreeze_at}" if tuning.unfreeze_at else ""
            say(f"{name} starts from {backbone.name if backbone else ''}, {how} it{later}{on}")
            return
        encoder = make_encoder(tuning.backbone, kind, preset)
        start = f"the frozen encoder {encoder.name}" if encoder else "scratch"
        say(f"{name} starts from {start}{on}")
        made[name] = make_processor(name, kind, settings, encoder, given, root=table.root)

    spoken = {n: _spoken_in(n, kinds, cells[n], config) for n, kind in kinds.items() if kind == "text"}
    for name, kind in kinds.items():
        own = cells[name]
        if kind == "text":
            model = _transcriber(name, config)
            add(name, kind, partial(_placed, own, cells.get(spoken[name]), model), spoken[name])
            continue
        add(name, kind, own)
        if kind == "video" and f"{name}_sound" not in kinds and _has_sound(name, own, config):
            add(f"{name}_sound", "audio", own)
        heard = kind in ("video", "audio") and name not in spoken.values() and f"{name}_words" not in kinds
        if not heard:
            continue
        model, found = _transcriber(f"{name}_words", config), (c for c in own.some() if isinstance(c, str))
        if model or any(beside(cell, table.root) for cell in found):
            add(f"{name}_words", "text", partial(_placed, None, own, model), name)
    return made


def make_encoder(backbone: str | None, kind: str, preset: str) -> Encoder | None:
    """The encoder that is asked for; where nothing is said, an installed one unless from scratch."""
    if kind not in ("text", "image", "video") or backbone in ("none", "scratch"):
        return None
    wanted = encoder_kind(kind)
    if backbone is None and preset != "scratch":
        backbone = available(wanted)
    return load_encoder(backbone, wanted) if backbone is not None else None


class _Cells:
    """The cells of a column in some rows, read when they are asked for."""

    def __init__(self, table: Table, column: str, rows: Sequence[int]) -> None:
        self.table, self.column, self.rows = table, column, rows

    def __call__(self) -> list[Any]:
        cells = self.table.column(self.column)
        return [cells[i] for i in self.rows]

    def some(self) -> Iterator[Any]:
        """Filled ones, at most `LOOK_AT`, spread over the rows."""
        filled = [cell for cell in self() if cell is not None]
        return iter(filled[:: max(1, len(filled) // LOOK_AT)][:LOOK_AT])


def _transcriber(name: str, config: FitConfig) -> str:
    """The folder of the model that hears the words of a text; "" for none.

    Raises:
        ConfigError: there is no Whisper model.
    """
    folder = modality_settings(config, name, "text").processor.text.transcribe
    if not folder:
        return ""
    check_whisper(folder)
    return str(Path(folder).resolve())  # a saved model may be used from elsewhere


def _placed(own: _Cells | None, media: _Cells | None, model: str = "") -> list[Any]:
    given = own or media
    assert given is not None
    empty = [None] * len(given.rows)
    pairs = zip(own() if own else empty, media() if media else empty, strict=True)
    return [placed(cell, clip, given.table.root, transcribe=model) for cell, clip in pairs]


def _spoken_in(name: str, kinds: Mapping[str, str], cells: _Cells, config: FitConfig) -> str:
    """The sound or clip that a text column is the transcript of; "" or "none" for none."""
    heard = [n for kind in ("video", "audio") for n, k in kinds.items() if k == kind]
    settings: ProcessorConfig = modality_settings(config, name, "text").processor
    said = settings.text.spoken_in
    if said and said != "none" and said not in heard:
        raise ConfigError(
            f"--set {name}.spoken_in={said}: no modality of sound or video; there are "
            f"{', '.join(heard) or 'none'}."
        )
    if said or not heard:
        return said
    named = name.rpartition("_")[2] in SPOKEN
    return heard[0] if named or any(is_transcript(cell) for cell in cells.some()) else ""


def _has_sound(name: str, cells: _Cells, config: FitConfig) -> bool:
    """Whether one of the clips that are looked at has a sound track that can be read."""
    if not modality_settings(config, name, "video").processor.video.sound:
        return False
    settings = modality_settings(config, f"{name}_sound", "audio").processor.audio
    for cell in cells.some():
        try:
            path = open_media(cell, cells.table.root)
            if path is not None and load_audio(path, str(cell), settings) is not None:
                return True
        except DataError:
            continue
    return False
