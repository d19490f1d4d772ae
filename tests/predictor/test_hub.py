"""Saving, fetching and pushing model folders, with a stand-in for the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from motet.errors import ConfigError
from motet.predictor import hub

hub_package = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed (extra hf)")

FILES = {"config.json": "{}", "model.safetensors": "weights", "README.md": "# card", "metrics.jsonl": "log"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "checkpoint").mkdir(parents=True)
    for name, text in FILES.items():
        (made / name).write_text(text)
    return made


class FakeApi:
    """Remembers what it was asked."""

    calls: list[tuple[str, dict[str, Any]]]

    def __init__(self) -> None:
        FakeApi.calls = []

    def create_repo(self, name: str, **said: Any) -> None:
        FakeApi.calls.append((name, said))
        if name == "someone/else":
            raise OSError("403 Forbidden: not yours\nmore")

    def upload_folder(self, **said: Any) -> str:
        FakeApi.calls.append(("upload", said))
        return f"https://hub/{said['repo_id']}"


def test_pushing_makes_the_repository_and_sends_weights_json_and_card(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_package, "HfApi", FakeApi)
    assert hub.push(folder, "me/clips", private=True) == "https://hub/me/clips"
    (name, made), (_, sent) = FakeApi.calls
    assert (name, made) == ("me/clips", {"private": True, "exist_ok": True})
    assert sent["folder_path"] == folder and sent["repo_id"] == "me/clips"
    assert sent["allow_patterns"] == ["*.json", "*.safetensors", "*.md"]
    with pytest.raises(ConfigError, match="did not take it: 403 Forbidden"):
        hub.push(folder, "someone/else", private=False)


def test_a_name_is_fetched_from_the_hub_and_a_folder_is_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def snapshot(name: str, **said: Any) -> str:
        asked.update(said, name=name)
        if name == "no/network":
            raise OSError("no route")
        return str(folder)

    monkeypatch.setattr(hub_package, "snapshot_download", snapshot)
    assert hub.fetch(folder) == folder and not asked
    assert hub.fetch("me/clips", revision="v2") == folder
    assert (asked["name"], asked["revision"]) == ("me/clips", "v2")
    with pytest.raises(ConfigError, match=r"'no/network'.*not in the local cache"):
        hub.fetch("no/network")


def test_a_copy_holds_what_the_hub_gets(folder: Path, tmp_path: Path) -> None:
    copied = hub.copy(folder, tmp_path / "there")
    assert {path.name for path in copied.iterdir()} == FILES.keys() - {"metrics.jsonl"}
