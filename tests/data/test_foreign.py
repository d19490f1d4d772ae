"""Tables that other packages wrote, by those packages themselves where they are installed."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.processor import make_processor
from motet.data.table import open_table
from motet.errors import ConfigError


def png(colour):
    out = io.BytesIO()
    Image.new("RGB", (20, 16), colour).save(out, "PNG")
    return out.getvalue()


def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "caption": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["bad", "good"]),
            "vector": datasets.Sequence(datasets.Value("float32")),
        }
    )
    rows = {
        "picture": [{"bytes": png(c), "path": None} for c in ("red", "green", "blue", "white")],
        "caption": ["a red one", None, "a blue one", "a white one"],
        "label": [1, 0, 0, 1],
        "vector": [[float(i), 1.0] for i in range(4)],
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    parts = datasets.DatasetDict({"train": whole.select(range(3)), "test": whole.select([3])})
    parts.save_to_disk(str(tmp_path / "saved"))
    table = open_table(tmp_path / "saved")
    assert [row["split"] for row in map(table.row, range(4))] == ["train"] * 3 + ["test"]
    assert list(table.column("label")) == ["good", "bad", "bad", "good"]
    columns = infer_columns(table, label="label")
    assert columns.modalities == {"picture": "image", "caption": "text", "vector": "features"}
    assert columns.classes == ("bad", "good") and columns.split == "split"
    picture = make_processor("picture", "image")
    vector = make_processor("vector", "features", None, None, lambda: rows["vector"])
    data = Dataset(table, columns, {"picture": picture, "vector": vector}, range(4))
    data.prepare()
    colours = [data[i].pieces["picture"].values.reshape(-1, 3).mean(0).tolist() for i in range(4)]
    assert colours == [[255, 0, 0], [0, 128, 0], [0, 0, 255], [255, 255, 255]]
    whole.save_to_disk(str(tmp_path / "one"))
    assert len(open_table(tmp_path / "one")) == 4 and "split" not in open_table(tmp_path / "one").columns


def test_the_shuffled_and_filtered_rows_of_datasets_are_those_that_were_saved(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    rows = datasets.Dataset.from_dict({"text": [f"text {i}" for i in range(50)]})
    rows = rows.filter(lambda row: not row["text"].endswith("7")).shuffle(seed=0)
    rows.save_to_disk(str(tmp_path / "saved"))
    assert list(open_table(tmp_path / "saved").column("text")) == rows["text"][:]


def test_shards_that_webdataset_wrote(tmp_path):
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    with wds.ShardWriter(str(tmp_path / "part-%03d.tar"), maxcount=2, verbose=0) as out:
        for i in range(5):
            sample = {"__key__": f"{i:04d}", "png": png("red"), "txt": f"caption {i}", "cls": i % 2}
            out.write(sample | {"json": {"stars": i}, "npy": np.full(3, i, np.float32)})
    table = open_table(f"{tmp_path}/part-*.tar")
    assert len(table) == 5
    row = table.row(3)
    assert (row["text"], row["label"], row["stars"]) == ("caption 3", "1", 3)
    kinds = infer_columns(table).modalities
    assert kinds["image"] == "image" and kinds["text"] == "text" and kinds["npy"] == "features"


@pytest.mark.parametrize(("address", "package"), [("s3://bucket/t.csv", "s3fs"), ("gs://b/t.csv", "gcsfs")])
def test_an_address_without_its_package_names_it(address, package):
    pytest.importorskip("fsspec", reason="the extra remote is not installed")
    done = subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True, check=False)
    if done.returncode == 0:
        pytest.skip(f"{package} is installed")
    with pytest.raises(ConfigError, match=rf"'{package}', which is not installed"):
        open_table(address, remote=True)
