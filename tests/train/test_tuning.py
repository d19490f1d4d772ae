"""Encoders trained with the model by `fit`: full, LoRA, frozen and then unfrozen; saved and loaded."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from motet.checkpoint import load_folder
from motet.errors import ConfigError, Interrupted
from motet.predictor.predictor import Predictor
from motet.train.fit import fit
from motet.train.run import Reporter
from motet.train.settings import read_settings

pytest.importorskip("transformers", reason="needs the extra 'hf'")

SMALL = (
    *("model.width=16", "model.heads=2", "model.depth=2", "model.embedding=8", "train.epochs=3"),
    *("train.batch_size=16", "data.cache=false", "train.log_steps=1", "image.backbone=none", "image.size=16"),
)
QUIET = Reporter(quiet=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A table of 40 rows, and tiny encoders for its texts and pictures."""
    from tests.nn.tiny_folders import bert_folder, vit_folder

    path = tmp_path_factory.mktemp("tuning")
    draw = np.random.default_rng(0)
    with open(path / "things.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["caption", "picture", "mood"])
        for i in range(40):
            bright = i % 2
            pixels = draw.integers(0, 80, (16, 16, 3)) + 170 * bright
            Image.fromarray(pixels.astype(np.uint8)).save(path / f"{i}.png")
            rows.writerow(
                [f"a {'bright' if bright else 'dark'} thing {i}", f"{i}.png", ["bad", "good"][bright]]
            )
    return {
        "table": path / "things.csv",
        "text": bert_folder(path / "bert"),
        "image": vit_folder(path / "vit"),
    }


def run(folders: dict[str, Path], out: Path, *settings: str, **more: object) -> Path:
    said = [*SMALL, f"caption.backbone={folders['text']}", *settings]
    return fit(
        folders["table"], label="mood", retrieval=True, out=out, settings=said, progress=QUIET,
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def moved(folders: dict[str, Path], out: Path, part: str = "") -> float:
    """How far the saved backbone's weights lie from those that it started from."""
    from safetensors.torch import load_file

    began = load_file(folders["text"] / "model.safetensors")
    ended = load_folder(out).tensors
    prefix = f"{part}backbone.caption.net.model."
    return max(float((ended[prefix + k] - v).abs().max()) for k, v in began.items() if prefix + k in ended)


@pytest.mark.parametrize("tune", ["full", "lora"])
def test_trained_saved_and_loaded_without_its_folder(
    tune: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    if tune == "lora":
        pytest.importorskip("peft", reason="needs the extra 'hf'")
    out = run(folders, tmp_path / "run", f"caption.tune={tune}", "caption.backbone_lr=1e-2")
    folder = load_folder(out)
    assert moved(folders, out) > 1e-3
    assert not any("lora" in name for name in folder.tensors)
    spec = folder.documents["config.json"]["model"]["modalities"][0]
    assert spec["backbone"]["width"] == 16 and spec["input"] == "ids" and spec["pretrained"] is None
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    assert set(steps[0]["lr"]) == {"caption", "picture", "shared", "caption.backbone"}
    assert max(row["lr"]["caption.backbone"] for row in steps) <= 1e-2
    assert all(row["gradient"]["caption.backbone"] > 0 for row in steps)
    away = folders["text"].rename(folders["text"].with_name("away"))  # its own weights are all it needs
    try:
        model = Predictor.load(out)
        said = model.predict({"caption": "a bright thing"})
        again = Predictor.load(out).predict({"caption": "a bright thing"})
    finally:
        away.rename(folders["text"])
    assert said == again and set(said["scores"]) == {"bad", "good"}


def test_frozen_then_unfrozen_and_stopped_in_between(folders: dict[str, Path], tmp_path: Path) -> None:
    said = ("caption.tune=full", "caption.unfreeze_at=2", "caption.backbone_lr=1e-2")
    whole = run(folders, tmp_path / "whole", *said)
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    for row in (row for row in rows if row["kind"] == "step"):
        learns = row["epoch"] >= 2
        assert (row["gradient"]["caption.backbone"] > 0) == (row["lr"]["caption.backbone"] > 0) == learns
    with pytest.raises(Interrupted):
        run(folders, tmp_path / "cut", *said, stop=lambda step: step == 3)
    cut = run(folders, tmp_path / "cut", *said, resume=True)
    one, two = load_folder(whole).tensors, load_folder(cut).tensors
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert moved(folders, whole / "checkpoints/last", "model/") > 1e-3  # the best may be an earlier epoch


def test_until_it_is_unfrozen_nothing_moves(folders: dict[str, Path], tmp_path: Path) -> None:
    out = run(folders, tmp_path / "run", "caption.tune=full", "caption.unfreeze_at=3")
    assert moved(folders, out) == 0.0


def test_pictures_too_and_with_the_batch_in_pieces(folders: dict[str, Path], tmp_path: Path) -> None:
    out = run(
        folders, tmp_path / "run", f"picture.backbone={folders['image']}", "picture.tune=full",
        "picture.backbone_lr=1e-3", "train.micro_batch=5", "train.epochs=1",
    )  # fmt: skip
    spec = load_folder(out).documents["config.json"]["model"]["modalities"][1]
    assert (spec["backbone"]["side"], spec["backbone"]["patch"], spec["size"]) == (32, 8, 192)
    model = Predictor.load(out)
    given = {"caption": "a bright thing", "picture": folders["table"].with_name("1.png")}
    said = model.predict({"picture": given["picture"]})
    assert set(said["scores"]) == {"bad", "good"}
    page = model.explain(given).save(tmp_path / "report.html")  # which leaves tokens out
    assert "bright" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["caption.tune=half"], r"caption: tune.*full"),
        (["caption.unfreeze_at=1"], r"say tune=full"),
        (["picture.tune=full"], r"picture\.tune=full: say which encoder"),
        (["caption.schedule=steps"], r"caption: schedule"),
        (["shared.lr=1e-3", "shared.colour=1"], r"shared: colour: unknown key"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    settings: list[str], said: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(folders, tmp_path / "run", *settings)


def test_optimizers_are_set_by_modality_kind_or_shared() -> None:
    from motet.train.modality import optimizer_groups

    said = [
        "text.lr=1e-3",
        "caption.lr=5e-4",
        "caption.schedule=wsd",
        "image.tune=lora",
        "shared.weight_decay=0",
    ]
    groups = optimizer_groups(
        read_settings(said, "scratch"), {"caption": "text", "title": "text", "photo": "image"}
    )
    assert groups["caption"].lr == 5e-4 and groups["caption"].schedule == "wsd" and groups["title"].lr == 1e-3
    assert (
        groups["photo.backbone"].lr == 3e-4 and groups["shared"].weight_decay == 0 and "photo" not in groups
    )
