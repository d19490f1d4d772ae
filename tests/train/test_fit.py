"""`fit` on tiny tables: the folder it leaves, resuming, and what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motet.checkpoint import load_folder
from motet.errors import ConfigError, Interrupted, MismatchError
from motet.model import TaskSpec
from motet.train.fit import fit, train_job
from motet.train.job import Job
from motet.train.run import Reporter
from motet.train.settings import ModelSettings, TrainSettings, read_settings
from motet.types import ModalitySpec

SMALL = (
    "model.width=16",
    "model.heads=2",
    "model.depth=2",
    "model.embedding=8",
    "train.epochs=3",
    "train.batch_size=16",
    "image.size=16",
    "data.cache=false",
)
QUIET = Reporter(quiet=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """60 rows: "bright"/"dark" words beside a bright or dark picture, a mood and a score."""
    draw = np.random.default_rng(0)
    with open(tmp_path / "things.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["caption", "picture", "mood", "score"])
        for i in range(60):
            bright = i % 2
            pixels = draw.integers(0, 80, (16, 16, 3)) + 170 * bright
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
            words = f"{'bright' if bright else 'dark'} thing number {i}"
            mood = "" if i % 5 == 4 else "good" if bright else "bad"
            rows.writerow([words, f"{i}.png", mood, i / 10])
    return tmp_path / "things.csv"


def test_leaves_a_whole_model_folder(table: Path, tmp_path: Path) -> None:
    out = fit(
        table,
        label="mood",
        retrieval=True,
        out=tmp_path / "run",
        settings=SMALL,
        preset="scratch",
        progress=QUIET,
    )
    folder = load_folder(out)
    assert out == tmp_path / "run"
    assert set(folder.documents) >= {"config.json", "processors.json", "metrics.json", "README.md"}
    config = folder.documents["config.json"]
    assert [m["name"] for m in config["model"]["modalities"]] == ["caption", "picture"]
    assert config["model"]["tasks"][0]["name"] == config["columns"]["label"] == "mood"
    metrics = folder.documents["metrics.json"]
    assert metrics["part"] == "test"
    assert len(metrics["tasks"]["mood"]["subsets"]) == 3
    assert len(metrics["retrieval"]) == 2
    kinds = [json.loads(line)["kind"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("epoch") == 3


@pytest.mark.parametrize(
    ("label", "said", "loses"),
    [(None, (), False), ("mood", (), True), (None, ("train.modality_dropout=0.5",), True)],
)
def test_alignment_alone_loses_no_modality(
    table: Path, tmp_path: Path, label: str | None, said: tuple[str, ...], loses: bool
) -> None:
    settings = (*SMALL, "columns.score=ignore", "train.epochs=1", *said)
    settings += () if label else ("columns.mood=ignore",)
    done = train_job(Job(table, label=label, settings=settings, preset="scratch"), tmp_path / "run", QUIET)
    loader = done.data.loader(done.opened.config, 0, done.opened.world)
    whole = [bool(batch.layout.present().all()) for epoch in range(3) for batch in loader.batches(epoch)]
    assert all(whole) != loses


def test_same_seed_same_weights_and_resume_is_bit_equal(table: Path, tmp_path: Path) -> None:
    def run(name: str, *, resume: bool = False, stop_at: int = -1) -> Path:
        return fit(
            table,
            out=tmp_path / name,
            settings=SMALL,
            preset="scratch",
            resume=resume,
            stop=lambda step: step == stop_at,
            progress=QUIET,
        )

    whole = load_folder(run("whole"))
    with pytest.raises(Interrupted):
        run("cut", stop_at=4)
    cut = load_folder(run("cut", resume=True))
    assert whole.tensors.keys() == cut.tensors.keys()
    assert all((whole.tensors[name] == value).all() for name, value in cut.tensors.items())
    logs = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("whole", "cut")]
    assert logs[0] == logs[1]

    Image.new("RGB", (16, 16)).save(table.parent / "3.png")
    with pytest.raises(MismatchError, match="changed since this run began"):
        run("cut", resume=True)


def test_a_run_goes_on_in_smaller_pieces(table: Path, tmp_path: Path) -> None:
    """As where memory ran out: no other setting of the training may change."""

    def run(*more: str, stop_at: int = -1) -> Path:
        return fit(
            table,
            out=tmp_path / "run",
            settings=[*SMALL, *more],
            preset="scratch",
            resume=bool(more),
            stop=lambda step: step == stop_at,
            progress=QUIET,
        )

    with pytest.raises(Interrupted):
        run(stop_at=2)
    with pytest.raises(MismatchError, match=r"train\.lr"):
        run("train.lr=0.5")
    run("train.micro_batch=3")
    assert load_folder(tmp_path / "run/checkpoints/last").documents["state.json"]["micro"] == 3


def test_a_number_is_regressed_with_another_table_to_validate_on(table: Path, tmp_path: Path) -> None:
    out = fit(
        table,
        label="score",
        val=table,
        out=tmp_path / "run",
        settings=[*SMALL, "columns.picture=ignore", "columns.mood=ignore"],
        preset="scratch",
        progress=QUIET,
    )
    metrics = load_folder(out).documents["metrics.json"]
    assert metrics["part"] == "val"
    assert metrics["counts"] == {"train": 60, "val": 60, "quarantined": 0}
    assert metrics["tasks"]["score"]["kind"] == "number"
    assert "optimistic" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["train.epoch=3"], r"--set train: epoch: unknown key.*epochs"),
        (["epochs=3"], r"epochs.*Groups of keys: data, columns, model, train, loader, loss"),
        (["photo.backbone=x"], r"photo.*modality of .*caption, picture.*kind"),
        (["picture.pixels=3"], r"picture.*pixels: unknown key.*size"),
        (["text.backbone=/nowhere/at/all"], r"/nowhere/at/all"),
        (["train.groups.sound.lr=0.1"], r"train\.groups\.sound.*caption, picture, shared"),
        (["model.width=seven"], r"--set model: width"),
        (["train=3"], "train is a group of keys"),
    ],
)
def test_wrong_settings_are_refused_by_name(
    settings: list[str], said: str, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        fit(table, out=tmp_path / "run", settings=[*SMALL, *settings], preset="scratch", progress=QUIET)


def test_a_small_table_has_small_batches() -> None:
    settings = TrainSettings()
    assert [settings.batch(rows) for rows in (20, 320, 483, 1280, 50_000)] == [32, 32, 48, 128, 128]
    assert TrainSettings(batch_size=7).batch(50_000) == 7


def test_each_modality_has_a_head_where_nothing_else_teaches_it_alone() -> None:
    specs = tuple(ModalitySpec(name, "text", "ids", 9) for name in ("said", "meant"))
    tasks, settings = (TaskSpec("mood", "classes", ("bad", "good")),), ModelSettings()
    assert settings.build(specs, tasks, contrastive=False).late_heads
    assert not settings.build(specs[:1], tasks, contrastive=False).late_heads
    assert not settings.build(specs, tasks, contrastive=True).late_heads
    assert ModelSettings(late_heads=True).build(specs, tasks, contrastive=True).late_heads


def test_what_cannot_be_learned_is_refused(table: Path, tmp_path: Path) -> None:
    one = ["columns.picture=ignore", "columns.mood=ignore"]
    with pytest.raises(ConfigError, match="nothing to learn"):
        fit(table, out=tmp_path / "a", settings=[*SMALL, *one], preset="scratch", progress=QUIET)
    with pytest.raises(ConfigError, match="retrieval needs two modalities"):
        fit(
            table,
            label="score",
            retrieval=True,
            out=tmp_path / "a",
            settings=[*SMALL, *one],
            preset="scratch",
        )
    with pytest.raises(ConfigError, match="--preset tiny"):
        read_settings([], "tiny")
