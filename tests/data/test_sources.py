"""Arrow, folders saved by `datasets`, nested Parquet media, tar shards, addresses."""

import io
import json
import sys
import tarfile
import types

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from PIL import Image

from motet.data import arrow, table
from motet.data.arrow import ArrowRows
from motet.data.blob import Blob
from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.processor import make_processor
from motet.data.quarantine import Quarantine
from motet.data.table import open_table
from motet.errors import ConfigError, DataError, MismatchError


def png(colour, size=(20, 16)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


MEDIA = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def nested():
    cells = [{"bytes": png("red"), "path": None}, {"bytes": None, "path": "b.png"}, None]
    return pa.table({"image": pa.array(cells, MEDIA), "text": ["a", "b", "c"], "label": [1, 0, 1]})


def cells(opened):
    return [{k: str(v) for k, v in opened.row(i).items()} for i in range(len(opened))]


def test_arrow_feather_and_stream_give_the_cells_of_parquet(tmp_path):
    data = nested()
    pq.write_table(data, tmp_path / "t.parquet")
    pyarrow.feather.write_feather(data, tmp_path / "t.feather")
    with pa.ipc.new_file(str(tmp_path / "t.arrow"), data.schema) as out:
        out.write_table(data)
    with pa.ipc.new_stream(str(tmp_path / "s.arrow"), data.schema) as out:
        out.write_table(data)
    expected = cells(open_table(tmp_path / "t.parquet"))
    for name in ("t.feather", "t.arrow", "s.arrow"):
        opened = open_table(tmp_path / name)
        assert cells(opened) == expected
        assert [str(c) for c in opened.column("text")] == ["a", "b", "c"]
        assert list(opened.iterate(["label", "text"]))[2] == (1, "c")


@pytest.mark.parametrize("cut", [3, 40, 300, -20])
@pytest.mark.parametrize("name", ["t.arrow", "t.feather", "t.parquet"])
def test_a_cut_file_is_one_clear_error(tmp_path, name, cut):
    data = pa.table({"text": [f"text {i}" for i in range(500)]})
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(data, path)
    else:
        pyarrow.feather.write_feather(data, path, compression="uncompressed")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match="not a readable"):
        open_table(path)


def test_media_inside_a_table_become_pieces_and_broken_ones_are_quarantined(tmp_path):
    pictures = [png("red"), png("blue"), png("red")[:60], b"no picture"]
    rows = [{"image": {"bytes": p, "path": f"{i}.png"}, "text": f"t {i}"} for i, p in enumerate(pictures)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    opened = open_table(tmp_path / "t.parquet")
    columns = infer_columns(opened)
    assert columns.modalities == {"image": "image", "text": "text"}
    quarantine = Quarantine(limit=0.9)
    processor = make_processor("image", "image")
    dataset = Dataset(opened, columns, {"image": processor}, range(4), quarantine=quarantine)
    dataset.prepare()
    assert len(dataset) == 2 and {row["line"] for row in quarantine.rows} == {3, 4}
    path = tmp_path / "red.png"
    path.write_bytes(pictures[0])
    same = processor.pieces([processor.read("red.png", tmp_path)])[0]
    assert np.array_equal(dataset[0].pieces["image"].values, same.values)


def test_binary_column_is_media_by_content(tmp_path):
    pq.write_table(pa.table({"thing": [png("red"), None], "text": ["a", "b"]}), tmp_path / "t.parquet")
    opened = open_table(tmp_path / "t.parquet")
    assert infer_columns(opened).modalities["thing"] == "image"
    assert opened.row(0)["thing"].read_bytes() == png("red") and opened.row(1)["thing"] is None


def save_like_datasets(folder, data, names=()):
    folder.mkdir(parents=True)
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), data.schema) as out:
        out.write_table(data, max_chunksize=2)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_fingerprint": "x"})
    )
    features = {"label": {"names": list(names), "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))


def test_folder_saved_by_datasets_with_parts_and_named_classes(tmp_path):
    home = tmp_path / "saved"
    save_like_datasets(home / "train", nested(), ["bad", "good"])
    save_like_datasets(home / "validation", nested().slice(0, 1), ["bad", "good"])
    (home / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    opened = open_table(home)
    assert len(opened) == 4 and [r["split"] for r in cells(opened)] == ["train"] * 3 + ["validation"]
    assert list(opened.column("label")) == ["good", "bad", "good", "good"]
    assert isinstance(opened.row(0)["image"], Blob) and opened.row(1)["image"] == "b.png"
    columns = infer_columns(opened, label="label")
    assert columns.classes == ("bad", "good") and columns.split == "split"
    single = open_table(home / "train")
    assert len(single) == 3 and "split" not in single.columns
    assert single.fingerprint != opened.fingerprint


@pytest.mark.parametrize("name", ["../x.arrow", "/etc/passwd", "none.arrow", 7])
def test_saved_folder_that_points_elsewhere_is_refused(tmp_path, name):
    save_like_datasets(tmp_path / "d", nested())
    (tmp_path / "x.arrow").write_bytes((tmp_path / "d" / "data-00000-of-00001.arrow").read_bytes())
    (tmp_path / "d" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(DataError, match="names files that are not here"):
        open_table(tmp_path / "d")


def shard(path, members, **kwargs):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in kwargs.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_shards_by_folder_pattern_and_braces(tmp_path):
    for n in range(2):
        members = []
        for i in range(3):
            key = f"./{n}{i}"
            members += [(f"{key}.png", png("red")), (f"{key}.txt", f"caption {n} {i}".encode())]
            members += [(f"{key}.json", json.dumps({"stars": i, "who": "me"}).encode()), (f"{key}.cls", b"1")]
        shard(tmp_path / f"part-00{n}.tar", members)
    opened = open_table(tmp_path)
    assert set(opened.columns) == {"id", "image", "text", "label", "stars", "who"}
    row = opened.row(4)
    assert (row["id"], row["text"], row["stars"], row["label"]) == ("11", "caption 1 1", 1, "1")
    assert row["image"].read_bytes() == png("red")
    assert infer_columns(opened).modalities["image"] == "image"
    for pattern in ("part-{000..001}.tar", "part-*.tar"):
        assert cells(open_table(f"{tmp_path}/{pattern}")) == cells(opened)
    assert len(open_table(tmp_path / "part-001.tar")) == 3
    with pytest.raises(DataError, match=r"part-002\.tar cannot be found"):
        open_table(f"{tmp_path}/part-{{000..002}}.tar")


def test_cls_members_are_classes_though_they_are_numbers(tmp_path):
    members = [(f"{i}.{e}", d) for i in range(4) for e, d in (("jpg", b"x"), ("cls", b"%d" % (i % 2)))]
    opened = open_table(shard(tmp_path / "a.tar", members))
    assert infer_columns(opened).task == "classes" and infer_columns(opened).classes == ("0", "1")
    assert infer_columns(opened, overrides={"label": "number"}).task == "number"


def test_two_pictures_in_one_sample_are_two_columns(tmp_path):
    shard(tmp_path / "a.tar", [("1.jpg", b"x"), ("1.seg.png", b"y"), ("1.png", b"z"), ("2.jpg", b"x")])
    opened = open_table(tmp_path / "a.tar")
    assert set(opened.columns) == {"id", "jpg", "seg_png", "png"}
    assert opened.row(1)["png"] is None


@pytest.mark.parametrize(
    ("members", "kwargs"),
    [
        ([("../1.png", b"x")], {}),
        ([("/etc/1.png", b"x")], {}),
        ([("a/../../1.png", b"x")], {}),
        ([("1.png", b"")], {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ([("1.png", b"")], {"type": tarfile.LNKTYPE, "linkname": "other"}),
        ([("1.png", b"")], {"type": tarfile.FIFOTYPE}),
        ([("1.png", b"")], {"type": tarfile.CHRTYPE}),
    ],
)
def test_hostile_members_are_refused(tmp_path, members, kwargs):
    with pytest.raises(DataError, match="Nothing was unpacked") as caught:
        open_table(shard(tmp_path / "a.tar", members, **kwargs))
    assert caught.value.rule == "refused archive"


def test_damaged_shards_are_one_clear_error(tmp_path):
    path = shard(tmp_path / "a.tar", [("1.png", png("red") * 50), ("1.json", b"{}")])
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="cut off"):
        open_table(path)
    path.write_bytes(b"\x1f\x8b not a tar" * 100)
    with pytest.raises(DataError, match="not a readable plain tar"):
        open_table(path)
    with pytest.raises(DataError, match="not usable JSON"):
        open_table(shard(path, [("1.json", b'{"a": NaN}')]))
    with pytest.raises(DataError, match="two members"):
        open_table(shard(path, [("1.png", b"x"), ("1.png", b"y")]))


def test_large_tables_stay_in_their_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTET_CACHE", str(tmp_path / "cache"))
    for module in (arrow, table):
        monkeypatch.setattr(module, "SMALL", 0)
    data = pa.table(
        {"id": [f"r{i}" for i in range(5000)], "text": [f'a "quoted"\ntext {i}' for i in range(5000)]}
    )
    pq.write_table(data, tmp_path / "t.parquet")
    pyarrow.feather.write_feather(data, tmp_path / "t.feather")
    (tmp_path / "t.jsonl").write_text("\n\n".join(map(json.dumps, data.to_pylist())))
    lines = [f'{r["id"]},"{r["text"]}"'.replace('"quoted"', '""quoted""') for r in data.to_pylist()]
    (tmp_path / "t.csv").write_text("id,text\n" + "\r\n".join(lines))
    for name in ("t.parquet", "t.feather", "t.jsonl", "t.csv"):
        opened = open_table(tmp_path / name)
        assert not isinstance(opened._rows, table.MemoryRows)
        assert opened.row(4321) == {"id": "r4321", "text": 'a "quoted"\ntext 4321'}
        assert list(opened.column("text")) == data["text"].to_pylist()
        assert opened.column("id")[-1] == "r4999" and opened.column("id")[1:3] == ["r1", "r2"]
    assert opened.line(2) == 6  # the header, and two lines a row
    assert len(list((tmp_path / "cache" / "tables").iterdir())) == 2
    opened = open_table(tmp_path / "t.csv")
    opened.row(0)
    (tmp_path / "t.csv").write_text("id,text\n1,2\n" * 10)
    with pytest.raises(MismatchError, match="changed since"):
        opened.row(1)


def test_addresses_are_refused_unless_allowed(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTET_CACHE", str(tmp_path / "cache"))
    for address in ("s3://bucket/t.csv", "hf:user/name", "https://x/t.csv"):
        with pytest.raises(ConfigError, match=r"data\.remote=true"):
            open_table(address)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ConfigError, match=r"'fsspec', which is not installed.*motet\[remote\]"):
        open_table("s3://bucket/t.csv", remote=True)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r"'datasets', which is not installed.*motet\[hf\]"):
        open_table("hf:user/name", remote=True)


def test_table_at_an_address_comes_with_its_media_only(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    monkeypatch.setenv("MOTET_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    for name, data in {
        "/set/t.csv": b"text,photo\na,p/1.png\nb,../secret.png\n",
        "/set/p/1.png": png("red"),
        "/set/p/other.png": b"x",
        "/secret.png": b"x",
    }.items():
        system.pipe_file(name, data)
    opened = open_table("memory://set/t.csv", remote=True)
    assert (opened.root / "p" / "1.png").read_bytes() == png("red")
    assert not list((tmp_path / "cache").rglob("other.png")) + list((tmp_path / "cache").rglob("secret*"))
    whole = open_table("memory://set", remote=True)
    assert (whole.root / "p" / "other.png").is_file() and len(whole) == 2
    with pytest.raises(DataError, match="Check the address"):
        open_table("memory://none/t.csv", remote=True)


def test_transcripts_come_with_a_table_at_an_address(tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    monkeypatch.setenv("MOTET_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    table = b'{"clip":"v/a.wav"}\n{"clip":"v/b.wav","said":"plain"}\n{"clip":"v/c.wav","said":"c.json"}\n'
    files = ("v/a.wav", "v/a.srt", "v/a.nfo", "v/b.wav", "v/c.wav", "c.json", "v/d.srt")
    for name in files:
        system.pipe_file(f"/talks/{name}", b"x")
    system.pipe_file("/talks/t.jsonl", table)
    opened = open_table("memory://talks/t.jsonl", remote=True)
    here = {str(path.relative_to(opened.root)) for path in opened.root.rglob("*") if path.is_file()}
    assert here == {"t.jsonl", *files} - {"v/a.nfo", "v/d.srt"}


def test_what_changed_at_an_address_is_fetched_again(tmp_path, monkeypatch):
    """Media are known by what their own store says of them, not by the table that names them."""
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    monkeypatch.setenv("MOTET_CACHE", str(tmp_path / "cache"))
    system = fsspec.filesystem("memory")
    system.pipe_file("/news/t.csv", b"photo\np/1.png\np/2.png\np/3.png\n")
    for i, colour in enumerate(("red", "green", "blue"), 1):
        system.pipe_file(f"/news/p/{i}.png", png(colour))
    opened = open_table("memory://news/t.csv", remote=True)
    asked, get = [], system.get_file
    monkeypatch.setattr(system, "get_file", lambda name, *to: (asked.append(name), get(name, *to))[1])
    open_table("memory://news/t.csv", remote=True)
    assert not asked  # all is here
    system.pipe_file("/news/p/1.png", png("pink"))
    system.rm_file("/news/p/3.png")
    again = open_table("memory://news/t.csv", remote=True)
    assert again.root == opened.root and asked == ["/news/p/1.png"]
    assert (again.root / "p" / "1.png").read_bytes() == png("pink")
    assert not (again.root / "p" / "3.png").exists()
    system.pipe_file("/news/t.csv", b"photo\np/2.png\n")
    assert len(open_table("memory://news/t.csv", remote=True)) == 1


def test_the_package_of_an_address_is_named_with_its_extra(monkeypatch):
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

    def missing(address):
        raise ImportError(f"Please install {address.partition(':')[0]} to access it")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    for package, command in (("s3fs", r"motet\[s3\]"), ("gcsfs", r"motet\[gs\]"), ("adlfs", "install adlfs")):
        with pytest.raises(ConfigError, match=f"'{package}', which is not installed.*{command}"):
            open_table(f"{package}://bucket/t.csv", remote=True)


def test_hub_name_goes_through_datasets(monkeypatch):
    part = types.SimpleNamespace(
        data=types.SimpleNamespace(table=nested()),
        features={"label": type("ClassLabel", (), {"names": ["no", "yes"]})()},
        _fingerprint="f",
    )
    fake = types.SimpleNamespace(load_dataset=lambda name, config: {"train": part, "test": part})
    monkeypatch.setitem(sys.modules, "datasets", fake)
    opened = open_table("hf:user/name", remote=True)
    assert len(opened) == 6 and opened.row(5)["split"] == "test" and opened.row(0)["label"] == "yes"
    assert isinstance(opened._rows, ArrowRows)
