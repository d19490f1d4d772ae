"""Which pictures are decoded where, and that each has an end."""

import io
import os
import signal
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from motet.data import isolate, picture
from motet.data.blob import Blob
from motet.data.isolate import Child, load_image
from motet.data.picture import INLINE, MAX_PARTS, ImageConfig
from motet.errors import DataError


@pytest.fixture
def child(monkeypatch):
    fresh = Child()
    monkeypatch.setattr(isolate, "child", fresh)
    yield fresh
    fresh.close()


def encoded(format, size=(60, 40), **options):
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(out, format, **options)
    return out.getvalue()


def flat(format, side, **options):
    out = io.BytesIO()
    Image.new("RGB", (side, side), "teal").save(out, format, **options)
    return out.getvalue()


def test_plain_pictures_need_no_child(child):
    for format in ("JPEG", "PNG", "WEBP", "BMP"):
        assert load_image(Blob("x", encoded(format))).size == (60, 40)
    assert load_image(Blob("x", encoded("JPEG", progressive=True))).size == (60, 40)
    assert child._process is None


def test_others_are_decoded_in_the_child_to_the_same_pixels(child, tmp_path):
    large = int(INLINE**0.5) + 8
    files = [encoded("TIFF"), encoded("GIF"), flat("PNG", large), flat("JPEG", 1800, progressive=True)]
    for i, data in enumerate(files):
        before = child._process and child._process.pid
        (tmp_path / str(i)).write_bytes(data)
        for media in (Blob("x", data), tmp_path / str(i)):
            there, here = load_image(media), picture.load_image(media)
            assert there.mode == "RGB" and np.array_equal(np.asarray(there), np.asarray(here))
        assert child._process is not None and before in (None, child._process.pid)
    small = load_image(Blob("x", files[-1]), least=300)
    assert small.size == (450, 450)  # decoded small in the child, too
    child.close()
    child.mode = "never"
    assert load_image(Blob("x", files[0])).size == (60, 40) and child._process is None


def test_what_hangs_is_given_up_and_the_next_one_read(child):
    load_image(Blob("x", encoded("TIFF")))
    os.kill(child._process.pid, signal.SIGSTOP)
    start = time.monotonic()
    with pytest.raises(DataError, match=r"'slow\.tif'.*wall time") as error:
        load_image(Blob("slow.tif", encoded("TIFF")), config=ImageConfig(wall_seconds=0.2))
    assert error.value.rule == "too slow" and time.monotonic() - start < 5
    assert load_image(Blob("x", encoded("TIFF"))).size == (60, 40)


def test_damage_is_said_by_the_child_as_here(child):
    for data in (encoded("TIFF")[:300], encoded("GIF")[:300], encoded("GIF")[:-1]):
        with pytest.raises(DataError) as there:
            load_image(Blob("x.tif", data))
        with pytest.raises(DataError) as here:
            picture.load_image(Blob("x.tif", data))
        assert str(there.value) == str(here.value) and there.value.rule == here.value.rule


def chunks(count):
    def chunk(tag, body):
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    rows = zlib.compress(b"\0\0\0\0" * 1)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    many = chunk(b"tEXt", b"a\0b") * count
    return b"\x89PNG\r\n\x1a\n" + head + many + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def segments(count):
    data = flat("JPEG", 16)
    return data[:2] + b"\xff\xfe\x00\x02" * count + data[2:]


def fill(count):
    data = flat("JPEG", 16)
    return data[:2] + b"\xff" * count + data[2:]


@pytest.mark.parametrize("make", [chunks, segments, fill])
def test_a_picture_of_very_many_parts_is_refused_at_once(child, make):
    assert load_image(Blob("x", make(50))).size in ((1, 1), (16, 16))
    start = time.process_time()
    with pytest.raises(DataError, match="parts") as error:
        load_image(Blob("x", make(MAX_PARTS + 1)))
    assert error.value.rule == "too large" and time.process_time() - start < 1


def test_scans_are_counted_where_there_can_be_many(child):
    data = flat("JPEG", 64, progressive=True)
    scan = data.rindex(b"\xff\xda")
    for scans, rule in ((20, None), (200, "too large")):
        many = data[:-2] + data[scan:-2] * scans + data[-2:]
        if rule is None:
            assert load_image(Blob("x", many)).size == (64, 64)
        else:
            with pytest.raises(DataError, match="scans"):
                load_image(Blob("x", many))


def test_a_picture_with_another_appended_is_a_jpeg_with_all_its_limits(child):
    second = Image.new("RGB", (640, 480), "red")
    whole = encoded("MPO", (640, 480), save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(whole)).format == "MPO"
    assert load_image(Blob("x", whole)).size == (640, 480)
    assert load_image(Blob("x", whole), least=100).size == (160, 120)
    first = np.asarray(load_image(Blob("x", whole)))
    assert first.std() > 50  # noise, not the red one
    scan, end = whole.index(b"\xff\xda"), whole.index(b"\xff\xd9")
    with pytest.raises(DataError, match="cut off"):
        load_image(Blob("x", whole[:end]))
    many = whole[:end] + whole[scan : scan + 14] * 200 + whole[end:]
    many = many.replace(b"\xff\xc0", b"\xff\xc2", 1)  # said to be progressive
    with pytest.raises(DataError, match="scans"):
        load_image(Blob("x", many))
