"""Model folders by the names of the hub: save, load, push (needs `huggingface_hub`)."""

from __future__ import annotations

import shutil
from pathlib import Path

from motet.errors import ConfigError, StorageError, missing_extra

FILES = ["*.json", "*.safetensors", "*.md"]


def fetch(name: str | Path, *, revision: str | None = None) -> Path:
    """A folder as it is, or the local copy of a model on the hub, from the cache where it is there.

    Raises:
        ConfigError: no such folder or model, or the hub cannot be reached.
    """
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise missing_extra("hf", "huggingface_hub", f"the model {str(name)!r} from the hub") from None
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=FILES, etag_timeout=5))
    except HFValidationError:
        raise ConfigError(f"model {str(name)!r}: no such folder, and not a name on the hub.") from None
    except OSError as error:  # the hub's own errors and those of the network are OSErrors
        raise ConfigError(
            f"model {str(name)!r}: no such folder, not in the local cache, and the hub did not give it "
            f"({type(error).__name__})."
        ) from None


def copy(folder: Path, to: str | Path) -> Path:
    """A model folder's files in another, new or empty folder.

    Raises:
        ConfigError: there is something already.
        StorageError: no space, or it cannot be written.
    """
    to = Path(to)
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to}: already there, and not empty. Choose another folder.")
    try:
        to.mkdir(parents=True, exist_ok=True)
        for path in sorted(path for pattern in FILES for path in folder.glob(pattern)):
            shutil.copyfile(path, to / path.name)
    except OSError as error:
        raise StorageError(f"{to}: the model cannot be written: {error.strerror or error}.") from None
    return to


def push(folder: Path, name: str, *, private: bool) -> str:
    """Upload a model folder with its card; its address.

    Raises:
        ConfigError: the hub refuses, or cannot be reached.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        raise missing_extra("hf", "huggingface_hub", "pushing to the hub") from None
    try:
        api = HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder, allow_patterns=FILES))
    except (HFValidationError, OSError) as error:
        raise ConfigError(f"{name}: the hub did not take it: {str(error).splitlines()[0]}") from None
