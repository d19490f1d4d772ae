"""CMU-MOSI, CMU-MOSEI and CH-SIMS in the layout of MMSA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from motet.data.folder import SPLITS
from motet.data.pickled import read_pickled
from motet.data.published.writer import MediaWriter, Row
from motet.errors import ConfigError, DataError

Words = Literal["raw", "features", "both"]
SENTIMENT = ("negative", "neutral", "positive")


def read_mmsa(source: Path, text: Words, writer: MediaWriter) -> Iterator[Row]:
    """Layout: https://github.com/thuiar/MMSA, `data_loader.py`; arrays (N, time, size) padded with zeros."""
    parts = _mmsa_parts(source)
    for name, part in parts.items():
        where = f"{source}, part {name!r}"
        ids = [str(id) for id in _sequence(part, "id", where)]
        raw = _sequence(part, "raw_text", where, len(ids)) if "raw_text" in part else [None] * len(ids)
        if text in ("features", "both") and "text" not in part:
            raise ConfigError(f"{where}: has no features of its texts; use --text raw.")
        spoken = text != "features" and "raw_text" in part
        columns = {"audio": "audio", "vision": "vision"} | (
            {} if text == "raw" and spoken else {"text": "text_features"}
        )
        arrays = {
            column: _Features(part, key, len(ids), where) for key, column in columns.items() if key in part
        }
        if not arrays and not spoken:
            raise DataError(f"{where}: has neither 'audio', 'vision' nor a text.")
        labels = _labels(part, len(ids), where)
        for i, id in enumerate(ids):
            video, _, place = id.partition("$_$")
            row: Row = {"id": id, "group": video, "split": SPLITS[name.lower()]}
            row |= {"order": int(place)} if place.isdecimal() else {}
            if spoken:
                row["text"] = str(raw[i]).strip() or None
            for column, features in arrays.items():
                row[column] = writer.features(column, id, features.of(i))
            yield row | {label: values[i] for label, values in labels.items()}
        replaced = sum(features.replaced for features in arrays.values())
        if replaced:
            writer.notes.append(f"{name}: {replaced} feature values were NaN or infinite and are 0 now")


def _mmsa_parts(source: Path) -> dict[str, dict[str, Any]]:
    if source.suffix.lower() == ".npz":
        found = _npz_parts(source)
    else:
        found = read_pickled(source)
    parts = {}
    if isinstance(found, dict):
        parts = {str(k): v for k, v in found.items() if str(k).lower() in SPLITS and isinstance(v, dict)}
    if not parts:
        raise DataError(
            f"{source}: not of this layout: expected a dict with 'train', 'valid' and 'test', each with "
            "'id', 'audio', 'vision', 'raw_text' and 'regression_labels', as MMSA ships it."
        )
    return parts


def _npz_parts(source: Path) -> dict[str, dict[str, Any]]:
    """Arrays called train/audio or train_audio, and so on."""
    parts: dict[str, dict[str, Any]] = {}
    try:
        with np.load(source, allow_pickle=False) as arrays:
            for name in arrays.files:
                part, _, key = name.replace("/", "_").partition("_")
                if key:
                    parts.setdefault(part, {})[key] = arrays[name]
    except (ValueError, OSError, EOFError, KeyError) as error:
        raise DataError(f"{source}: cannot be read as .npz: {str(error).splitlines()[0]}") from None
    return parts


def _sequence(part: Mapping[str, Any], key: str, where: str, rows: int | None = None) -> list[Any]:
    value = part.get(key)
    found = value.reshape(-1).tolist() if isinstance(value, np.ndarray) else value
    if not isinstance(found, list | tuple) or (rows is not None and len(found) != rows):
        expected = "a list or array" + ("" if rows is None else f" of {rows}")
        raise DataError(f"{where}: {key!r} must be {expected}, one entry a clip.")
    if not all(isinstance(entry, str | int | float | None) for entry in found):
        raise DataError(f"{where}: {key!r} holds more than texts and numbers.")
    return list(found)


class _Features:
    """One modality of a part, (N, time, size), padded with zeros at either end or with its lengths."""

    def __init__(self, part: Mapping[str, Any], key: str, rows: int, where: str) -> None:
        values = part[key]
        if not isinstance(values, np.ndarray) or values.ndim not in (2, 3) or len(values) != rows:
            shape = getattr(values, "shape", type(values).__name__)
            raise DataError(f"{where}: {key!r} must be an array ({rows}, time, size), found {shape}.")
        if values.dtype.kind not in "fiu":
            raise DataError(f"{where}: {key!r} must hold numbers, found {values.dtype}.")
        self.values = values[:, None] if values.ndim == 2 else values
        lengths = f"{key}_lengths"
        self.lengths = _sequence(part, lengths, where, rows) if lengths in part else None
        self.replaced = 0

    def of(self, i: int) -> np.ndarray:
        """(n, size), without the padding; no rows where there is nothing but padding."""
        values = self.values[i]
        if self.lengths is not None:
            values = values[: max(0, int(self.lengths[i]))]
        finite = np.isfinite(values)
        self.replaced += int(finite.size - finite.sum())
        values = np.where(finite, values, 0)
        said = np.flatnonzero((values != 0).any(1))
        return values[said[0] : said[-1] + 1] if len(said) else values[:0]


def _labels(part: Mapping[str, Any], rows: int, where: str) -> dict[str, list[Any]]:
    """`score`, `sentiment`, and CH-SIMS's scores of single modalities."""
    labels: dict[str, list[Any]] = {}
    for key, column in (
        ("regression_labels", "score"),
        ("regression_labels_T", "score_text"),
        ("regression_labels_A", "score_audio"),
        ("regression_labels_V", "score_vision"),
    ):
        if key in part:
            labels[column] = [float(value) for value in _sequence(part, key, where, rows)]
            if not np.isfinite(labels[column]).all():
                raise DataError(f"{where}: {key!r} holds NaN or infinity.")
    if "annotations" in part:
        labels["sentiment"] = [
            str(value).strip().lower() for value in _sequence(part, "annotations", where, rows)
        ]
    elif "classification_labels" in part:
        codes = [int(value) for value in _sequence(part, "classification_labels", where, rows)]
        known = set(codes) <= {0, 1, 2}
        labels["sentiment"] = [SENTIMENT[code] if known else str(code) for code in codes]
    if not labels:
        raise DataError(
            f"{where}: has neither 'regression_labels', 'annotations' nor 'classification_labels'."
        )
    return labels
