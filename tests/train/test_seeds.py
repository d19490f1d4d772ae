"""Several seeds: a folder each, and their mean and spread."""

import json

import pytest

from motet.errors import ConfigError
from motet.train.seeds import fit_seeds, summarise


def metrics(value):
    row = {"n": 10, "macro_f1": value, "pearson": None, "modalities": ["text"]}
    task = {
        "full": row,
        "text_only": row | {"macro_f1": value / 2},
        "baseline": {"label": "a", "macro_f1": 0.25},
    }
    pair = {"query": "text", "answer": "image", "R@10": value}
    return {"tasks": {"mood": task}, "retrieval": [pair]}


def test_mean_and_spread():
    said = summarise([metrics(0.5), metrics(0.7), metrics(0.9)])
    full = said["tasks"]["mood"]["full"]
    assert full["macro_f1"] == {
        "mean": pytest.approx(0.7),
        "std": pytest.approx(0.2),
        "values": [0.5, 0.7, 0.9],
    }
    assert "pearson" not in full and "modalities" not in full
    assert said["tasks"]["mood"]["text_only"]["macro_f1"]["mean"] == pytest.approx(0.35)
    assert said["tasks"]["mood"]["baseline"]["macro_f1"]["std"] == 0
    assert said["retrieval"][0]["query"] == "text"
    assert said["retrieval"][0]["R@10"]["mean"] == pytest.approx(0.7)
    said = summarise([{"tasks": {"mood": {"full": {"a": 1}, "text_only": None, "baseline": {}}}}] * 2)
    assert said["tasks"]["mood"]["text_only"] == {}  # a model without a text


def test_every_seed_has_a_folder(tmp_path):
    def fit_one(seed, folder):
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(metrics(seed / 10)))
        return folder

    path = fit_seeds(tmp_path / "run", [3, 5], fit_one)
    said = json.loads(path.read_text())
    assert said["seeds"] == [3, 5] and (tmp_path / "run" / "seed-5").is_dir()
    assert said["tasks"]["mood"]["full"]["macro_f1"]["mean"] == pytest.approx(0.4)
    for seeds in ([1], [1, 1], []):
        with pytest.raises(ConfigError, match="two or more"):
            fit_seeds(tmp_path / "other", seeds, fit_one)
