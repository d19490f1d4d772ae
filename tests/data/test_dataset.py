import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load

from motet.data.cache import FeatureCache, content_key
from motet.data.collate import collate
from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.groups import group_rows
from motet.data.processor import make_processor
from motet.data.quarantine import Quarantine
from motet.data.table import open_table
from motet.errors import DataError
from motet.types import Piece
from tests.data.media_fakes import ImageEncoder, tone, write_clip, write_wav

ROWS = 8


@pytest.fixture
def folder(tmp_path):
    lines = ["id,name,picture,speech,mood"]
    for i in range(ROWS):
        Image.new("RGB", (20, 20), (i * 20, 0, 0)).save(tmp_path / f"p{i}.png")
        write_wav(tmp_path / f"s{i}.wav", tone(0.2 + 0.05 * i))
        lines.append(
            f"n{i},a red thing {i},p{i}.png,{f's{i}.wav' if i % 2 else ''},{'good' if i < 4 else 'bad'}"
        )
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def build(folder, rows=None, encoder=None, **options):
    table = open_table(folder / "table.csv")
    columns = infer_columns(table, label="mood")
    rows = range(len(table)) if rows is None else rows
    processors = {
        "name": make_processor("name", "text", None, None, lambda: table.column("name")),
        "picture": make_processor("picture", "image", None, encoder or ImageEncoder()),
        "speech": make_processor(
            "speech", "audio", None, None, lambda: table.column("speech"), root=table.root
        ),
    }
    return Dataset(table, columns, processors, rows, **options)


def test_rows_become_samples(folder):
    data = build(folder)
    data.prepare()
    assert len(data) == ROWS
    sample = data[1]
    assert sample.id == "n1" and set(sample.pieces) == {"name", "picture", "speech"}
    assert set(data[0].pieces) == {"name", "picture"}  # an empty cell is a missing modality
    assert sample.targets == {"mood": 1} and data[7].targets == {"mood": 0}
    assert sample.pieces["picture"].values.dtype == np.float32
    batch = collate([data[i] for i in range(4)], [p.spec for p in data.processors.values()], data.targets)
    assert batch.layout.present()[:, 2].tolist() == [False, True, False, True]


def test_second_run_computes_nothing_and_is_bit_equal(folder, tmp_path):
    first_encoder, second_encoder = ImageEncoder(), ImageEncoder()
    cache = FeatureCache(tmp_path / "cache")
    first, second = (build(folder, encoder=e, cache=cache) for e in (first_encoder, second_encoder))
    first.prepare()
    second.prepare()
    assert first_encoder.seen == ROWS and second_encoder.seen == 0
    bare = build(folder)  # neither prepared nor cached
    small = build(folder, cache=cache, memory_bytes=0)
    small.prepare()
    for i in range(ROWS):
        for other in (second[i], bare[i], small[i]):
            for name, piece in first[i].pieces.items():
                twin = other.pieces[name]
                assert (twin.values == piece.values).all() and twin.values.dtype == piece.values.dtype
                assert (twin.time == piece.time).all() and twin.labels == piece.labels
    assert first.content == second.content == small.content


def test_cache_follows_content_not_name(folder, tmp_path):
    cache = FeatureCache(tmp_path / "cache")
    build(folder, cache=cache).prepare()
    Image.new("RGB", (20, 20), (0, 250, 0)).save(folder / "p3.png")
    encoder = ImageEncoder()
    changed = build(folder, encoder=encoder, cache=cache)
    changed.prepare()
    assert encoder.seen == 1 and changed[3].pieces["picture"].values[0, 1] > 1


def test_memory_budget_holds(folder):
    data = build(folder, memory_bytes=2000)
    data.prepare()
    assert 0 < data.store.used <= 2000
    assert data[ROWS - 1].pieces["picture"].values.shape == (6, 4)


def test_broken_rows_are_named_and_left_out(folder, capsys):
    (folder / "p2.png").write_bytes((folder / "p2.png").read_bytes()[:40])
    (folder / "s5.wav").write_bytes(b"")
    quarantine = Quarantine(folder / "run" / "quarantine.jsonl", limit=0.5)
    data = build(folder, quarantine=quarantine)
    data.prepare()
    assert [data[i].id for i in range(len(data))] == ["n0", "n1", "n3", "n4", "n6", "n7"]
    entries = [json.loads(line) for line in (folder / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert [(e["line"], e["column"], e["file"]) for e in entries] == [
        (4, "picture", "p2.png"),
        (7, "speech", "s5.wav"),
    ]
    assert entries[1]["rule"] == "empty file" and all(e["table"].endswith("table.csv") for e in entries)
    assert "line 4" in capsys.readouterr().err


def test_without_quarantine_the_error_names_table_line_column_and_file(folder):
    (folder / "p2.png").write_bytes(b"no picture")
    for action in (lambda d: d.prepare(), lambda d: d[2]):
        with pytest.raises(DataError, match=r"table\.csv, line 4, column 'picture': 'p2\.png': .*JPEG"):
            action(build(folder))


def test_too_many_broken_rows_stop(folder):
    (folder / "p2.png").unlink()
    with pytest.raises(DataError, match="1 of 8 rows"):
        build(folder, quarantine=Quarantine(None)).prepare()


def test_limit_counts_this_table_only(folder):
    quarantine = Quarantine(None, limit=0.1)
    for line in range(5):
        quarantine.add("another.csv", line, "x", None, "rule", "broken")
    build(folder, quarantine=quarantine).prepare()


def test_rows_with_nothing_and_wrong_labels_are_left_out(folder):
    text = (folder / "table.csv").read_text() + "n8,,,,good\n"
    (folder / "table.csv").write_text(text)
    quarantine = Quarantine(None, limit=0.6)
    data = build(folder, quarantine=quarantine)
    data.columns = type(data.columns)(**{**data.columns.__dict__, "classes": ("good",)})
    data.prepare()
    assert len(data) == 4 and {e["rule"] for e in quarantine.rows} == {"empty row", "label"}
    with pytest.raises(DataError, match="no usable row"):
        build(folder, rows=[8], quarantine=Quarantine(None, limit=1.0)).prepare()


def test_progress_is_told_and_counts_rows(folder):
    seen = []
    build(folder).prepare(lambda done, total, what: seen.append((done, total, what)))
    assert seen == [(8, 8, "name"), (8, 8, "picture"), (8, 8, "speech")]


def test_fingerprint_is_of_table_and_rows(folder):
    a, b, c = build(folder), build(folder), build(folder, rows=range(4))
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_clip_gives_frames_and_its_own_sound(tmp_path):
    write_clip(tmp_path / "a.mp4", sound=tone(1.0))
    write_clip(tmp_path / "b.mp4")
    write_clip(tmp_path / "c.mp4", sound=tone(1.0), video=False)
    (tmp_path / "t.csv").write_text("id,clip\n0,a.mp4\n1,b.mp4\n2,c.mp4\n")
    table = open_table(tmp_path / "t.csv")
    processors = {
        "clip": make_processor("clip", "video"),
        "clip_sound": make_processor(
            "clip_sound", "audio", None, None, lambda: table.column("clip"), root=tmp_path
        ),
    }
    for cache in (None, FeatureCache(tmp_path / "cache"), FeatureCache(tmp_path / "cache")):
        data = Dataset(table, infer_columns(table), processors, range(3), cache=cache)
        data.prepare()
        assert [sorted(data[i].pieces) for i in range(3)] == [
            ["clip", "clip_sound"],
            ["clip"],
            ["clip_sound"],
        ]


def test_cache_survives_damage_and_stores_halves_only_where_exact(tmp_path, capsys):
    cache = FeatureCache(tmp_path)
    exact = Piece(np.array([[0.5, 2.0]], np.float32), np.zeros(1, np.float32), labels=("é",))
    odd = Piece(np.array([[1 / 3, 1e6]], np.float32), np.zeros(1, np.float32), row=np.ones(1, np.float32))
    for key, piece in (("aa", exact), ("bb", odd)):
        cache.put(key, piece)
        found = cache.get(key)
        assert (found.values == piece.values).all() and found.values.dtype == np.float32
        assert found.labels == piece.labels
    path = tmp_path / "pieces" / "aa" / "aa.piece"
    assert load(path.read_bytes()[32:])["values"].dtype == np.float16
    data = path.read_bytes()
    for cut in range(0, len(data), 37):
        path.write_bytes(data[:cut])
        assert cache.get("aa") is None
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert cache.get("aa") is None
    path.write_bytes(data[:-1])
    assert cache.get("aa") is None and cache.get("zz") is None
    assert FeatureCache(None).get("aa") is None
    (tmp_path / "file").write_text("")
    full = FeatureCache(tmp_path / "file")
    full.put("aa", exact)
    full.put("bb", exact)
    assert full.get("aa") is None and capsys.readouterr().err.count("MOTET_CACHE") == 1  # said once


def test_keys_tell_processors_and_contents_apart(folder):
    data = build(folder)
    text, picture = data.processors["name"], data.processors["picture"]
    assert content_key("p1.png", folder, text) != content_key("p1.png", folder, picture)
    assert content_key("p1.png", folder, picture) != content_key("p2.png", folder, picture)
    assert content_key("", folder, picture) is content_key(None, folder, picture) is None


def test_groups_labels_and_weights_reach_the_batch(tmp_path):
    rows = ["A dog,x|y,2", "a  dog,,", "a cat,y,0.5", "a bird,x,", "a cow,x,-1"]
    lines = "".join(f"{row},{i % 3}.png\n" for i, row in enumerate(rows))
    (tmp_path / "t.csv").write_text("text,tags,weight,photo\n" + lines)
    for i in range(3):
        Image.new("RGB", (20, 20), (90 * i, 0, 0)).save(tmp_path / f"{i}.png")
    table = open_table(tmp_path / "t.csv")
    columns = infer_columns(table, overrides={"tags": "multilabel"})
    processors = {"photo": make_processor("photo", "image", None, ImageEncoder())}
    quarantine = Quarantine(limit=0.5)
    groups = group_rows(table, columns, retrieval=True)
    data = Dataset(table, columns, processors, range(5), quarantine=quarantine, groups=groups)
    data.prepare()
    assert [row["rule"] for row in quarantine.rows] == ["weight"] and len(data) == 4
    batch = collate([data[i] for i in range(4)], [processors["photo"].spec], data.targets)
    # rows 0 and 1 share a caption, rows 0 and 3 a picture
    assert (batch.group == batch.group[0]).tolist() == [True, True, False, True]
    assert batch.weight.tolist() == [2.0, 1.0, 0.5, 1.0]
    assert batch.targets["tags"].shape == (4, 2) and batch.targets["tags"].isnan().tolist()[1] == [True, True]
    assert batch.targets["tags"][[0, 2, 3]].tolist() == [[1, 1], [0, 1], [1, 0]]
    alone = collate([data[1]], [processors["photo"].spec], data.targets)
    assert alone.targets["tags"].shape == (1, 2) and alone.weight is None
    assert alone.to("cpu").weight is None and batch.to("cpu").weight.tolist() == [2.0, 1.0, 0.5, 1.0]
