"""Hostile texts, tables and configs. Where each row of the list of bad inputs is tested:

Texts and tables
- 10 MB text, one 10 MB word, control characters, NUL, bad UTF-8: here
- CSV with BOM, 200 KB cell, unclosed quote: tests/data/test_table.py, and here against the clock
- duplicate ids: here
- paths out of the root, absolute, links, FIFO, devices: test_media.py and tests/data/test_table.py
- addresses: here and test_media.py
- pickles: here (never opened); .npy with objects: test_media.py
- safetensors with broken headers, a name twice: test_models.py
- configs (unknown and duplicate keys, NaN, 1e999, depth, YAML tags and aliases): here
- tokenizers with regular expressions: tests/data/test_text.py
- archives with links, `..` and absolute members: here

Media
- cut at 50 points, 0 bytes, wrong extension, bombs, rare formats, half a WAV, NaN, samples, rates,
  channels, silent FLAC, cut MP4, lone streams, playlists: test_media.py
- 16-bit grey, transparency, CMYK, palettes, EXIF, animations: tests/data/test_image.py
- variable frame rates, rotation, one clock: tests/data/test_video.py; no duration: here
- what hangs or crashes a decoder: tests/data/test_isolate.py, of pictures tests/data/test_picture.py;
  progressive JPEGs of many scans: here
"""

from __future__ import annotations

import io
import os
import struct
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from motet import config as configs
from motet.data.columns import infer_columns
from motet.data.image import load_image
from motet.data.paths import resolve_media
from motet.data.processor import make_processor
from motet.data.table import open_table
from motet.data.video import VideoConfig, load_video
from motet.errors import ConfigError, DataError, MotetError
from tests.data.media_fakes import write_clip
from tests.hostile.media_corpus import picture_bytes
from tests.hostile.test_media import contained

MB = 10**6


@pytest.fixture(scope="module")
def processor():
    return make_processor("text", "text", None, None, lambda: ["some words to learn from"] * 4)


LONG = {
    "words": "some words " * (10 * MB // 11),
    "one word": "a" * 10 * MB,
    "blanks": " " * 10 * MB + "end",
    "combining": "a" + "\u0301" * 5 * MB,
    "emoji": "\U0001f468\u200d" * 2 * MB,
    "quotes": '"' * 10 * MB,
}


@pytest.mark.parametrize("name", LONG)
def test_long_texts_are_cut_in_no_time(processor, name):
    begin = time.process_time()
    try:
        raw = processor.read(LONG[name], Path())
        assert raw is None or 1 <= len(processor.pieces([raw])[0]) <= 128
    except DataError as error:
        assert error.rule == "no text"
    assert time.process_time() - begin < 3


@pytest.mark.parametrize("text", ["a\0b", "\x1b[31mred\x07", "\ud800 lone", "a\u202eb", "\ufffe\uffff x"])
def test_control_characters_and_lone_surrogates_are_read(processor, text):
    (piece,) = processor.pieces([processor.read(text, Path())])
    assert len(piece) and not any(c in label for label in piece.labels for c in "\0\x1b\x07\ud800")


def test_bad_utf8_in_a_table_is_named(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"text,label\nfine,a\ncaf\xe9,b\n")
    with pytest.raises(DataError, match=r"t\.csv.*line 3"):
        table = open_table(tmp_path / "t.csv")
        table.column("text")


TABLES = {
    "quote.csv": b'text,label\n"' + b"never closed, " * 200_000,
    "quotes.csv": b'text,label\n' + b'"' * 3_000_001,
    "columns.csv": b"a," * 200_000 + b"b\n1\n",
    "wide.csv": b"text,label\n" + b"x" * 200_000 + b",a\nshort,b\n",
    "nul.csv": b"text,label\na\0b,c\n",
    "deep.jsonl": b'{"text": ' + b"[" * 200_000 + b"\n",
    "twice.jsonl": b'{"text": "a", "text": "b"}\n',
    "nan.jsonl": b'{"text": "a", "label": NaN}\n',
    "digits.jsonl": b'{"text": "a", "label": ' + b"9" * 100_000 + b"}\n",
    "empty.csv": b"",
    "bytes.parquet": bytes(range(256)) * 50,
    "cut.parquet": b"PAR1" + bytes(5000),
    "words.jsonl": b"not json\n",
}  # fmt: skip

READ = ("wide.csv", "nul.csv")


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read_or_one_error_in_time_and_memory(tmp_path, name):
    def read(path):
        try:
            table = open_table(path)
            return [table.row(i) for i in range(len(table))]
        except DataError as error:
            raise DataError(path.name, rule="refused") from error

    (tmp_path / name).write_bytes(TABLES[name])
    answer = contained(read, tmp_path / name)
    assert answer == ("ok" if name in READ else "refused")


def test_duplicate_ids_name_both_rows(tmp_path):
    (tmp_path / "t.csv").write_text("id,text,label\nx,one,a\ny,two,b\nx,three,a\n")
    with pytest.raises(DataError, match=r"line 4: the id 'x' .* line 2"):
        infer_columns(open_table(tmp_path / "t.csv"), label="label")


ADDRESSES = [
    "http://2130706433/a.png",
    "http://[::1]/a",
    "https://a.b\\@127.0.0.1/x",
    "ftp://x/y",
    "data:image/png;base64,x",
    "//127.0.0.1/share/a.png",
    "\\\\host\\share\\a.png",
    "s3://bucket/a",
    "pipe:0",
    "tcp://127.0.0.1:9",
    "C:\\a.png",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_refused_before_anything_is_opened(tmp_path, address):
    with pytest.raises(DataError) as error:
        resolve_media(address, tmp_path, "row 1")
    assert error.value.rule == "refused path"


@pytest.mark.parametrize("ending", ["pkl", "pickle", "pt", "pth", "joblib"])
def test_pickles_are_refused_unread(tmp_path, ending):
    os.mkfifo(tmp_path / f"a.{ending}")  # opening it would wait for ever
    (tmp_path / "t.csv").write_text(f"features,label\na.{ending},x\na.{ending},y\n")
    with pytest.raises(DataError, match="pickle"):
        infer_columns(open_table(tmp_path / "t.csv"), label="label")
    with pytest.raises(MotetError):
        open_table(tmp_path / f"a.{ending}")


def member(name, data=b"x", **changes):
    info = tarfile.TarInfo(name)
    info.size = 0 if changes else len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    return info, data


TARS = {
    "up": member("../evil.txt"),
    "absolute": member("/tmp/evil.txt"),
    "symlink": member("a.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hardlink": member("a.txt", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": member("a.txt", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "fifo": member("a.txt", type=tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("name", TARS)
def test_hostile_archives_reach_nothing(tmp_path, name):
    info, data = TARS[name]
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for key in ("0001", "0002"):
            good = tarfile.TarInfo(f"{key}.png")
            picture = picture_bytes("PNG")
            good.size = len(picture)
            tar.addfile(good, io.BytesIO(picture))
        tar.addfile(info, io.BytesIO(data))
    before = {p for p in tmp_path.parent.rglob("*")}
    try:
        table = open_table(tmp_path / "x.tar")
        assert "root:" not in str([table.row(i) for i in range(len(table))])
    except DataError as error:
        assert "x.tar" in str(error)
    assert {p for p in tmp_path.parent.rglob("*")} == before and not Path("/tmp/evil.txt").exists()


CONFIGS = {
    "unknown.json": '{"train": {"epochs": 3}, "oops": 1}',
    "twice.json": '{"a": 1, "a": 2}',
    "nan.json": '{"a": NaN}',
    "infinite.json": '{"a": 1e999}',
    "deep.json": "[" * 100_000,
    "nested.json": '{"a": ' * 40 + "1" + "}" * 40,
    "digits.json": '{"a": ' + "9" * 10_000 + "}",
    "list.json": "[1]",
    "tag.yaml": "a: !!python/object/apply:os.system ['touch HACKED']",
    "name.yaml": "a: !!python/name:os.system",
    "alias.yaml": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "twice.yaml": "a: 1\na: 2",
    "key.yaml": "? [a]\n: 1",
    "nan.yaml": "a: .nan",
    "inf.yaml": "a: -.inf",
    "big.yaml": "a: 1e999",
    "date.yaml": "a: 2001-13-45",
    "int.yaml": "a: !!int x",
    "digits.yaml": "a: " + "9" * 10_000,
    "binary.yaml": "a: !!binary '%%%'",
    "deep.yaml": "a: " + "[" * 3_000,
    "tabs.yaml": "a:\n\t- b",
    "control.yaml": "a: \x07",
    "long.yaml": "\n".join(f"k{i}: 1" for i in range(100_000)),
    "keys.json": "{" + ", ".join(f'"k{i}": 1' for i in range(150_000)) + ', "k0": 2}',
    "latin.json": b'{"a": "caf\xe9"}',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_configs_are_one_error(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    text = CONFIGS[name]
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    begin = time.process_time()
    with pytest.raises(ConfigError, match=name) as error:
        configs.from_dict(VideoConfig, configs.read(tmp_path / name), where=name)
    assert error.value.exit_code == 2 and len(str(error.value)) < 2000
    assert time.process_time() - begin < 4 and not Path("HACKED").exists()


@pytest.mark.parametrize(
    "setting",
    ["a=2001-13-45", "a=.nan", "a=1e999", "a=!!python/name:os.system", "a=[&x 1, *x]", "a=" + "9" * 5000],
)
def test_hostile_settings_are_one_error(setting):
    with pytest.raises(ConfigError):
        configs.override({}, [setting])


def test_a_progressive_jpeg_of_many_scans_is_refused(tmp_path):
    out = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    (tmp_path / "fine.jpg").write_bytes(data)
    assert load_image(tmp_path / "fine.jpg").size == (2000, 2000)
    scan = data.rindex(b"\xff\xda")
    (tmp_path / "x.jpg").write_bytes(data[:-2] + data[scan:-2] * 3000 + data[-2:])
    assert contained(load_image, tmp_path / "x.jpg") == "too large"


def test_a_large_jpeg_is_decoded_small_where_that_is_enough(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    photo = Image.fromarray(noise).resize((1600, 1200), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "a.jpg", quality=95)
    whole, small = load_image(tmp_path / "a.jpg"), load_image(tmp_path / "a.jpg", least=200)
    assert whole.size == (1600, 1200) and small.size == (400, 300)
    difference = np.asarray(whole.resize((400, 300), Image.Resampling.BICUBIC), int) - np.asarray(small)
    assert np.abs(difference).mean() < 1.5
    assert load_image(tmp_path / "a.jpg", least=1201).size == (1600, 1200)


def test_a_clip_without_a_duration_is_read_by_its_frames(tmp_path):
    data = bytearray(write_clip(tmp_path / "a.mkv").read_bytes())
    at = data.find(b"\x44\x89")  # the element Duration, made void
    assert at > 0
    data[at : at + 2] = b"\xec" + bytes([0x80 | (data[at + 2] & 0x7F) + 1])
    (tmp_path / "a.mkv").write_bytes(data)
    clip = load_video(tmp_path / "a.mkv", config=VideoConfig(fps=1))
    assert clip.times.tolist() == [0, 1, 2]
    assert struct.pack(">H", 0x4489) not in data[: at + 4]
