"""What turns a cell into tokens, for every kind: made from the training part, saved as JSON, loaded back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np

from motet.config import from_dict
from motet.data.audio import AudioConfig, AudioProcessor, fit_audio, read_audio
from motet.data.features import FeaturesConfig, FeaturesProcessor, fit_features, read_features
from motet.data.hear import transcribed
from motet.data.image import ImageProcessor
from motet.data.media import VERSIONS, check_encoder
from motet.data.picture import ImageConfig
from motet.data.spoken import Heard, Spoken, read_words
from motet.data.text import TextConfig, TextProcessor, parse_tokenizer, train_tokenizer
from motet.data.video import VideoConfig, VideoProcessor
from motet.errors import ConfigError, DataError, MismatchError
from motet.types import Encoder, Kind, ModalitySpec, Piece

FIT_CELLS = 512  # sounds or feature files whose statistics are taken, spread evenly over the training part


class Processor(Protocol):
    """Cells of one modality to Pieces: the same at training, prediction and serving.

    `read` decodes a cell (None: missing; DataError: broken), `pieces` turns decoded cells into
    tokens, through the frozen encoder if there is one. `fingerprint` changes with anything that
    changes the Pieces. `load_processor(to_dict())` gives a processor with equal output, bit by bit.
    """

    name: str
    kind: Kind
    spec: ModalitySpec
    fingerprint: str

    def read(self, cell: Any, root: Path) -> Any: ...
    def pieces(self, raws: Sequence[Any]) -> list[Piece]: ...
    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class ProcessorConfig:
    """One group of settings a kind; a modality uses the group of its kind."""

    text: TextConfig = field(default_factory=TextConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    video: VideoConfig = field(default_factory=VideoConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)


def make_processor(
    name: str,
    kind: str,
    config: ProcessorConfig | None = None,
    encoder: Encoder | None = None,
    fit_cells: Callable[[], Iterable[Any]] | None = None,
    *,
    root: Path = Path(),
) -> Processor:
    """A processor for the modality `name`.

    What must be learned (a tokenizer, statistics) is learned from `fit_cells()`: the training
    part's cells as they stand in the table, whose paths are read under `root`. Broken cells are
    passed over here; the dataset reports them.

    Raises:
        ConfigError: an unknown kind, an encoder of another kind, or nothing to learn from.
        DataError: no usable cell.
    """
    config = config or ProcessorConfig()
    _check_kind(name, kind, encoder)
    cells = list(fit_cells()) if fit_cells and encoder is None else []
    match kind:
        case "text":
            tokenizer = None
            if encoder is None:
                texts = [c for c in (_as_text(cell, root) for cell in cells) if c]
                if not texts:
                    raise DataError(f"column {name!r}: not one text to train a tokenizer on.")
                tokenizer = train_tokenizer(texts, config.text)
            return TextProcessor(name, config.text, tokenizer, encoder)
        case "image":
            return ImageProcessor(name, config.image, encoder)
        case "video":
            return VideoProcessor(name, config.video, encoder)
        case "audio":
            waves = _usable(cells, lambda cell: read_audio(cell, root, config.audio))
            return AudioProcessor(name, config.audio, **fit_audio(waves, config.audio))
        case "features":
            values = _usable(cells, lambda cell: read_features(cell, root))
            return FeaturesProcessor(name, config.features, **fit_features(values, config.features, name))
        case _:
            raise ConfigError(
                f"column {name!r}: unknown kind {kind!r}; it is text, image, audio, video or features."
            )


def load_processor(saved: Mapping[str, Any], encoder: Encoder | None = None) -> Processor:
    """The processor that `to_dict` described; `encoder` must be the one it was made with.

    Raises:
        MismatchError: another encoder, or a newer Motet wrote it.
        DataError: not such a description.
    """
    where = f"processor {saved.get('name')!r}"
    try:
        name, kind, version, values = saved["name"], saved["kind"], saved["version"], saved["config"]
        if version != VERSIONS.get(kind, version):
            raise MismatchError(
                f"{where}: made by version {version} of the {kind} processor, this is {VERSIONS[kind]}. "
                "Fit again."
            )
        check_encoder(saved, encoder, where)
        match kind:
            case "text":
                text = from_dict(TextConfig, values, where=where)
                tokenizer = None if encoder else parse_tokenizer(saved["tokenizer"], where)
                return TextProcessor(name, text, tokenizer, encoder)
            case "image":
                return ImageProcessor(name, from_dict(ImageConfig, values, where=where), encoder)
            case "video":
                return VideoProcessor(name, from_dict(VideoConfig, values, where=where), encoder)
            case "audio":
                return AudioProcessor(
                    name, from_dict(AudioConfig, values, where=where), saved["mean"], saved["std"]
                )
            case "features":
                features = from_dict(FeaturesConfig, values, where=where)
                return FeaturesProcessor(name, features, saved["mean"], saved["std"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: not the description of a processor ({error}). Fit the model again."
        ) from None
    raise DataError(f"{where}: unknown kind {kind!r}. Fit the model again.")


def spoken_in(processor: Processor) -> str:
    """The modality of sound or video that a text is said in; "" for none."""
    said = processor.config.spoken_in if isinstance(processor, TextProcessor) else ""
    return "" if said == "none" else said


def heard_by(processor: Processor) -> str:
    """The folder of the model that hears the words where a text has none; "" for none."""
    return processor.config.transcribe if isinstance(processor, TextProcessor) else ""


def _check_kind(name: str, kind: str, encoder: Encoder | None) -> None:
    if encoder is None:
        return
    wanted = {"text": "text", "image": "image", "video": "image"}.get(kind)
    if encoder.kind != wanted:
        raise ConfigError(
            f"column {name!r}: {kind} cannot start from the {encoder.kind} encoder {encoder.name!r}. "
            f"Remove {name}.backbone, or name one for {wanted or 'another column'}."
        )


def _as_text(cell: Any, root: Path) -> str | None:
    if isinstance(cell, Path):
        try:
            return read_words(cell, root)[0]
        except DataError:
            return None
    if isinstance(cell, Spoken):
        return cell.text
    if isinstance(cell, Heard):
        try:
            heard = transcribed(cell, root)
        except DataError:
            return None
        return None if heard is None else heard.text
    return None if cell is None or isinstance(cell, list | dict) else str(cell)


def _usable(cells: Sequence[Any], read: Callable[[Any], np.ndarray | None]) -> Iterator[np.ndarray]:
    given = [cell for cell in cells if cell is not None]
    for i in np.unique(np.linspace(0, len(given) - 1, min(len(given), FIT_CELLS)).round().astype(int)):
        try:
            value = read(given[i])
        except DataError:
            continue
        if value is not None:
            yield cast(np.ndarray, value)
