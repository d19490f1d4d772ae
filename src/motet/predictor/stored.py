"""A model folder, opened: weights, processors, columns, and the fingerprint that vectors are known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from motet.checkpoint import Folder, load_folder, load_state
from motet.config import from_dict
from motet.data.columns import Columns
from motet.data.context import context_names
from motet.data.processor import Processor, load_processor
from motet.errors import ConfigError, DataError
from motet.model import Motet, MotetConfig
from motet.nn.backbones import load_encoder
from motet.tasks.scores import Scores
from motet.types import Kind


@dataclass(frozen=True)
class Judged:
    """The rows that a model was judged by when it was trained, of the table with this fingerprint."""

    table: str
    part: str
    rows: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Stored:
    """What stands in a model folder. The model is on the CPU."""

    path: Path
    model: Motet
    processors: Mapping[str, Processor]
    columns: Columns
    judged: Judged | None
    scores: Scores
    fingerprint: str


def open_model(folder: str | Path) -> Stored:
    """Read and verify a model folder; for the errors see `Predictor.load`."""
    stored = load_folder(folder)
    config_json, saved = (stored.documents.get(name) for name in ("config.json", "processors.json"))
    if not isinstance(config_json, dict) or not {"model", "columns"} <= config_json.keys() or not saved:
        raise ConfigError(
            f"{stored.path}: was saved by Motet but is not a model (a checkpoint, perhaps). Give the "
            "folder that `motet fit` wrote, such as runs/NAME."
        )
    where = str(stored.path / "config.json")
    config = from_dict(MotetConfig, config_json["model"], where=where)
    columns = from_dict(Columns, config_json["columns"], where=where)
    judged = from_dict(Judged, config_json["judged"], where=where) if "judged" in config_json else None
    scores = from_dict(Scores, config_json["scores"], where=where) if "scores" in config_json else Scores()
    model = Motet(config)
    load_state(model, stored.tensors, where=stored.path)
    around = context_names([spec.name for spec in config.modalities], columns)
    processors = {
        spec.name: _processor(stored, spec.name) for spec in config.modalities if spec.name not in around
    }
    return Stored(stored.path, model, processors, columns, judged, scores, _fingerprint(stored))


def _processor(stored: Folder, name: str) -> Processor:
    saved = stored.documents["processors.json"]
    if name not in saved:
        raise DataError(
            f"{stored.path}: processors.json lacks {name!r}, which config.json names. Train again."
        )
    encoder = saved[name].get("encoder")
    kind: Kind = "text" if saved[name]["kind"] == "text" else "image"
    return load_processor(saved[name], load_encoder(encoder["name"], kind) if encoder else None)


def _fingerprint(stored: Folder) -> str:
    """Of the weights, the architecture and the processors: what vectors depend on."""
    digest = hashlib.sha256()
    for name in ("config.json", "processors.json"):
        document = stored.documents[name]
        part = document["model"] if name == "config.json" else document
        digest.update(json.dumps(part, sort_keys=True).encode())
    for name in sorted(stored.tensors):
        digest.update(name.encode())
        digest.update(stored.tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def choose_device(name: str) -> torch.device:
    """ "auto" is the GPU where there is one.

    Raises:
        ConfigError: a device that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r}: cannot be used here: {reason} Choose auto or cpu.") from None
    return device
