"""fit with several labels at once, with ratings in order, and with hidden features to guess."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from motet.checkpoint import load_folder
from motet.data.columns import Columns
from motet.errors import ConfigError
from motet.metrics import multilabel_metrics
from motet.train.fit import fit
from motet.train.run import Reporter
from motet.train.settings import ModelSettings

SMALL = [
    *("model.width=16", "model.heads=2", "model.embedding=8", "train.epochs=8", "train.batch_size=32"),
    *("train.lr=5e-3", "model.head_dropout=0.1", "data.cache=false", "loss.focal=1.0"),
]
QUIET = Reporter(quiet=True)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    draw = np.random.default_rng(0)
    with open(tmp_path / "things.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["caption", "features", "tags", "stars"])
        for i in range(120):
            red, loud = bool(i % 2), i % 3 == 0
            words = f"{'red' if red else 'blue'} {'loud' if loud else 'quiet'} thing {i}"
            tags = "|".join([*(["red"] if red else []), *(["loud"] if loud else [])])
            vector = draw.normal(size=4) + np.array([3 * red, 3 * loud, 0, 0])
            rows.writerow([words, json.dumps([round(v, 3) for v in vector]), tags or "none", 1 + red + loud])
    return tmp_path / "things.csv"


def test_several_labels_at_once(table: Path, tmp_path: Path) -> None:
    out = fit(
        table,
        label="tags",
        out=tmp_path / "run",
        settings=[*SMALL, "columns.tags=multilabel", "columns.stars=ignore"],
        preset="scratch",
        progress=QUIET,
    )
    documents = load_folder(out).documents
    assert documents["config.json"]["model"]["tasks"][0]["kind"] == "multilabel"
    judged = documents["metrics.json"]["tasks"]["tags"]
    assert judged["classes"] == ["loud", "none", "red"]
    assert judged["full"]["macro_f1"] > judged["baseline"]["macro_f1"] + 0.2


def test_ratings_in_order(table: Path, tmp_path: Path) -> None:
    out = fit(
        table,
        label="stars",
        out=tmp_path / "run",
        settings=[*SMALL, "columns.stars=classes", "columns.tags=ignore", "model.ordinal=true"],
        preset="scratch",
        progress=QUIET,
    )
    folder = load_folder(out)
    task = folder.documents["config.json"]["model"]["tasks"][0]
    assert task["classes"] == ["1", "2", "3"] and task["ordinal"]
    assert "heads.0.gaps" in folder.tensors
    judged = folder.documents["metrics.json"]["tasks"]["stars"]
    assert judged["full"]["macro_f1"] > judged["baseline"]["macro_f1"] + 0.2


def test_modulation_and_learned_balance_are_settings(table: Path, tmp_path: Path) -> None:
    chosen = ["model.late_heads=true", "train.modulation=0.5", "loss.balance=uncertainty", "train.epochs=1"]
    chosen += ["model.guess_hidden=true", "train.micro_batch=8"]
    out = fit(
        table,
        label="stars",
        out=tmp_path / "run",
        settings=[*SMALL, "columns.stars=classes", "columns.tags=ignore", *chosen],
        preset="scratch",
        progress=QUIET,
    )
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"alone/caption/stars", "alone/features/stars"} <= set(rows[-1]["train"])
    with pytest.raises(ConfigError, match=r"model\.late_heads=true"):
        fit(
            table,
            label="stars",
            out=tmp_path / "other",
            settings=[*SMALL, "columns.stars=classes", "train.modulation=0.5", "model.late_heads=false"],
            preset="scratch",
            progress=QUIET,
        )


@pytest.mark.parametrize(
    ("ordinal", "classes", "expected"),
    [
        (False, ("b", "a"), ("b", "a")),
        (True, ("1", "10", "2"), ("1", "2", "10")),
        (("low", "mid", "high"), ("high", "low", "mid"), ("low", "mid", "high")),
        (True, ("high", "low"), None),
        (("low",), ("high", "low"), None),
        (True, (), None),
    ],
)
def test_the_order_of_classes(
    ordinal: bool | tuple[str, ...], classes: tuple[str, ...], expected: tuple[str, ...] | None
) -> None:
    columns = Columns({"text": "text"}, label="y", task="classes", classes=classes)
    if expected is None:
        with pytest.raises(ConfigError, match=r"model\.ordinal=\[low, high\]"):
            ModelSettings(ordinal=ordinal).in_order(columns)
    else:
        assert ModelSettings(ordinal=ordinal).in_order(columns).classes == expected


def test_multilabel_metrics_by_hand() -> None:
    scores = np.array([[2.0, -1.0], [-1.0, -1.0], [1.0, 3.0], [-2.0, 1.0]])
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = multilabel_metrics(scores, labels, ["a", "b"])
    assert found["f1"] == pytest.approx({"a": 2 * 2 / 5, "b": 2 * 1 / 3})
    assert found["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 3 / 8) and found["accuracy"] == 0.5
    assert found["auroc"] == pytest.approx((1.0 + 1.0) / 2)
