"""The same files give the same numbers in training, with workers, from a cache, at prediction, reloaded."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from motet.data.blob import Blob
from motet.data.cache import FeatureCache
from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.frames import VideoConfig
from motet.data.loader import Loader, LoaderConfig
from motet.data.processor import ProcessorConfig, load_processor, make_processor
from motet.data.table import open_table
from motet.data.text import TextConfig
from motet.predictor.cells import read_entries
from motet.predictor.inputs import entry_of
from tests.data.media_fakes import tone, write_clip, write_wav

ROWS = 4
KINDS = {"photo": "image", "sound": "audio", "clip": "video", "words": "text", "pulse": "features"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A table of every kind of cell, and processors learned from it."""
    folder = tmp_path_factory.mktemp("same")
    rng = np.random.default_rng(0)
    lines = ["photo,sound,clip,words,pulse"]
    for i in range(ROWS):
        noise = rng.integers(0, 256, (30 + i, 44, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.{('jpg', 'png', 'tif', 'gif')[i]}")
        write_wav(folder / f"{i}.wav", tone(0.5 + i / 5, hertz=200 * (i + 1)))
        write_clip(folder / f"{i}.mp4", sound=tone(3.0))
        np.save(folder / f"{i}.npy", rng.normal(size=(3 + i, 5)))
        lines.append(f"{i}.{('jpg', 'png', 'tif', 'gif')[i]},{i}.wav,{i}.mp4,some words {i},{i}.npy")
    (folder / "t.csv").write_text("\n".join(lines) + "\n")
    table = open_table(folder / "t.csv")
    columns = infer_columns(table, overrides=KINDS)
    config = ProcessorConfig(text=TextConfig(spoken_in="clip"), video=VideoConfig(max_frames=3))
    kinds = KINDS | {"clip_sound": "audio"}
    processors = {
        name: make_processor(
            name, kind, config, None, lambda n=name: list(table.column(n.removesuffix("_sound"))), root=folder
        )
        for name, kind in kinds.items()
    }
    return folder, table, columns, processors


def batch_of(made, cache=None, **config):
    _, table, columns, processors = made
    data = Dataset(table, columns, processors, range(ROWS), cache=cache)
    if cache is not None:
        data.prepare()
    specs = [p.spec for p in processors.values()]
    loader = Loader(data, specs, {}, LoaderConfig(batch_size=ROWS, **config))
    (batch,) = loader.batches(0)
    loader.close()
    return batch


def same(a, b):
    for name, values in a.values.items():
        assert torch.equal(values, b.values[name]), name
    for name in ("sample", "modality", "position", "time", "row", "col"):
        assert torch.equal(getattr(a.layout, name), getattr(b.layout, name)), name
    return set(a.values) == set(b.values)


def test_training_gives_the_same_with_workers_and_from_the_cache(made, tmp_path):
    alone = batch_of(made)
    assert all(len(values) for values in alone.values.values()) and len(alone.values) == 6
    assert same(alone, batch_of(made, workers=2))
    assert same(alone, batch_of(made, workers=2, kind="process"))
    assert same(alone, batch_of(made, FeatureCache(tmp_path)))  # filled
    assert same(alone, batch_of(made, FeatureCache(tmp_path)))  # and read back


def test_prediction_and_a_reloaded_model_give_the_same_as_training(made, tmp_path):
    folder, table, columns, processors = made
    trained = Dataset(table, columns, processors, range(ROWS))
    saved = json.loads(json.dumps({name: p.to_dict() for name, p in processors.items()}))
    again = {name: load_processor(one) for name, one in saved.items()}
    for use in (processors, again):
        given = [
            entry_of({name: free(cell, name, folder) for name, cell in table.row(i).items()}, use)
            for i in range(ROWS)
        ]
        for i, sample in enumerate(read_entries(given, use, FeatureCache(None))):
            assert set(sample.pieces) == set(trained[i].pieces) == set(processors)
            for name, piece in trained[i].pieces.items():
                assert np.array_equal(sample.pieces[name].values, piece.values), name
                assert np.array_equal(sample.pieces[name].time, piece.time), name


def free(cell, name, folder):
    return cell if name == "words" else Path(folder / cell)


def test_what_is_uploaded_gives_the_same_as_the_file(made):
    folder, table, _, processors = made
    for name, processor in processors.items():
        if processor.kind == "text":
            continue
        cell = table.row(1)[name.removesuffix("_sound")]
        blob = Blob("upload", (folder / cell).read_bytes())
        (a,), (b,) = (processor.pieces([processor.read(c, folder)]) for c in (cell, blob))
        assert np.array_equal(a.values, b.values) and np.array_equal(a.time, b.time), name
