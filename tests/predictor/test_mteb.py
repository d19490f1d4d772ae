"""A model behind mteb's own protocol, through mteb's own evaluation, without network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import motet
from motet.errors import ConfigError
from motet.predictor.mteb_encoder import MtebEncoder

mteb = pytest.importorskip("mteb", reason="mteb is not installed (extra mteb)")
datasets = pytest.importorskip("datasets")
retrieval = pytest.importorskip("mteb.abstasks.retrieval")
metadata = pytest.importorskip("mteb.abstasks.task_metadata")

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220), "white": (250, 250, 250)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of pictures of one colour and their names."""
    home = tmp_path_factory.mktemp("mteb")
    draw = np.random.default_rng(0)
    lines = ["caption,photo,group"]
    for i in range(80):
        name, colour = list(COLOURS.items())[i % 4]
        pixels = np.clip(np.array(colour) + draw.integers(-20, 20, (16, 16, 3)), 0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(home / f"{i}.png")
        lines.append(f"a {name} thing,{i}.png,{name}{i % 8}")
    (home / "colours.csv").write_text("\n".join(lines))
    settings = ("train.epochs=8", "model.width=32", "model.embedding=16", "columns.group=ignore")
    settings += ("columns.caption=text", "columns.photo=image")
    return motet.fit(
        home / "colours.csv", out=home / "run", settings=settings, preset="scratch", device="cpu"
    ).folder


class Colours(retrieval.AbsTaskRetrieval):  # type: ignore[name-defined,misc]
    """Names look for pictures."""

    metadata = metadata.TaskMetadata(
        type="Any2AnyRetrieval",
        name="MotetColours",
        main_score="hit_rate_at_1",
        description="Names of colours look for pictures of them.",
        reference=None,
        dataset={"path": "NA", "revision": "NA"},
        category="t2i",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        modalities=["text", "image"],
        date=("2026-01-01", "2026-01-01"),
        dialect=[],
        domains=[],
        task_subtypes=[],
        license="cc0-1.0",
        annotations_creators="derived",
        sample_creation="created",
        bibtex_citation="",
    )

    def load_data(self, num_proc: int | None = None, **kwargs: object) -> None:
        shown = [Image.new("RGB", (16, 16), colour) for colour in COLOURS.values()]
        corpus = datasets.Dataset.from_dict({"id": [f"d{i}" for i in range(4)], "image": shown})
        corpus = corpus.cast_column("image", datasets.Image())
        queries = datasets.Dataset.from_dict(
            {"id": [f"q{i}" for i in range(4)], "text": [f"a {name} thing" for name in COLOURS]}
        )
        relevant = {f"q{i}": {f"d{i}": 1} for i in range(4)}
        split = {"corpus": corpus, "queries": queries, "relevant_docs": relevant, "top_ranked": None}
        self.dataset = {"default": {"test": split}}  # type: ignore[dict-item]
        self.data_loaded = True


def test_it_is_an_encoder_and_runs_through_an_evaluation(folder: Path) -> None:
    encoder = MtebEncoder(folder, device="cpu")
    assert isinstance(encoder, mteb.models.EncoderProtocol)
    meta = encoder.mteb_model_meta
    assert (meta.name, meta.embed_dim, meta.modalities) == ("motet/run", 16, ["text", "image"])
    done = mteb.evaluate(encoder, Colours(), cache=None, show_progress_bar=False, co2_tracker=False)
    names = [f"a {name} thing" for name in COLOURS]
    shown = [Image.new("RGB", (16, 16), colour) for colour in COLOURS.values()]
    nearest = encoder.model.similarity(encoder.model.encode(names), encoder.model.encode(shown)).argmax(1)
    scores = done.task_results[0].scores["test"][0]
    assert scores["main_score"] == pytest.approx((nearest == np.arange(4)).mean())
    assert scores["hit_rate_at_10"] == 1  # all four are found within ten


def test_batches_of_several_kinds_are_encoded_as_the_model_does(folder: Path) -> None:
    encoder = MtebEncoder(folder, device="cpu")
    picture = Image.new("RGB", (16, 16), (220, 30, 30))
    batches = [
        {"text": ["a red thing", "a blue thing"], "image": [picture, picture]},
        {"text": ["a red thing"]},
    ]
    words = {"task_metadata": Colours.metadata, "hf_split": "test", "hf_subset": "default"}
    found = encoder.encode(batches, batch_size=2, **words)
    wanted = encoder.model.encode([{"text": "a red thing", "image": picture}, "a red thing"])
    assert found.shape == (3, 16) and np.allclose(found[[0, 2]], wanted, atol=1e-5)
    assert encoder.similarity(found, found[:2]).shape == (3, 2)
    assert np.allclose(encoder.similarity_pairwise(found, found), 1, atol=1e-5)
    with pytest.raises(ConfigError, match=r"a task of audio; this model has caption \(text\)"):
        encoder.encode([{"audio": [None]}], **words)
    with pytest.raises(ConfigError, match="colour: unknown"):
        MtebEncoder(folder, colour="red")
