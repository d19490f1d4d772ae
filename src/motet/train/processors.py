"""What turns the columns of a table into tokens: a processor a column, and what a clip brings besides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from motet.data.columns import Columns, modality_name
from motet.data.isolate import load_audio
from motet.data.media import open_media
from motet.data.processor import Processor, ProcessorConfig, make_processor
from motet.data.spoken import placed
from motet.data.table import Table
from motet.data.transcript import beside, is_transcript
from motet.errors import ConfigError, DataError
from motet.nn.backbones import available, load_encoder
from motet.train.settings import FitConfig, modality_settings
from motet.types import Encoder, Kind

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
        backbone, settings = modality_settings(config, name, kind)
        if said_in:
            settings = replace(settings, text=replace(settings.text, spoken_in=said_in))
        encoder = make_encoder(backbone, kind, preset)
        start = f"the frozen encoder {encoder.name}" if encoder else "scratch"
        on = f", on the clock of {said_in}" if said_in else ""
        say(f"{name} starts from {start}{on}")
        made[name] = make_processor(name, kind, settings, encoder, given, root=table.root)

    spoken = {n: _spoken_in(n, kinds, cells[n], config) for n, kind in kinds.items() if kind == "text"}
    for name, kind in kinds.items():
        own = cells[name]
        if kind == "text":
            media = cells.get(spoken[name])
            add(name, kind, lambda own=own, media=media: _placed(own, media), spoken[name])  # type: ignore[misc]
            continue
        add(name, kind, own)
        if kind == "video" and f"{name}_sound" not in kinds and _has_sound(name, own, config):
            add(f"{name}_sound", "audio", own)
        heard = kind in ("video", "audio") and name not in spoken.values() and f"{name}_words" not in kinds
        if heard and any(beside(cell, table.root) for cell in own.some() if isinstance(cell, str)):
            add(f"{name}_words", "text", lambda own=own: _placed(None, own), name)  # type: ignore[misc]
    return made


def make_encoder(backbone: str | None, kind: str, preset: str) -> Encoder | None:
    """The encoder that is asked for; where nothing is said, an installed one unless from scratch."""
    if kind not in ("text", "image", "video") or backbone in ("none", "scratch"):
        return None
    wanted: Kind = "text" if kind == "text" else "image"
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


def _placed(own: _Cells | None, media: _Cells | None) -> list[Any]:
    given = own or media
    assert given is not None
    empty = [None] * len(given.rows)
    pairs = zip(own() if own else empty, media() if media else empty, strict=True)
    return [placed(cell, clip, given.table.root) for cell, clip in pairs]


def _spoken_in(name: str, kinds: Mapping[str, str], cells: _Cells, config: FitConfig) -> str:
    """The sound or clip that a text column is the transcript of; "" or "none" for none."""
    heard = [n for kind in ("video", "audio") for n, k in kinds.items() if k == kind]
    settings: ProcessorConfig = modality_settings(config, name, "text")[1]
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
    if not modality_settings(config, name, "video")[1].video.sound:
        return False
    settings = modality_settings(config, f"{name}_sound", "audio")[1].audio
    for cell in cells.some():
        try:
            path = open_media(cell, cells.table.root)
            if path is not None and load_audio(path, str(cell), settings) is not None:
                return True
        except DataError:
            continue
    return False
