import io
import pickle

import numpy as np
import pytest
import soundfile
from PIL import Image

from motet.data.audio import AudioConfig, load_audio, read_audio
from motet.data.blob import Blob
from motet.data.features import read_features
from motet.data.image import ImageConfig, load_image
from motet.data.video import load_video
from motet.errors import DataError
from tests.data.media_fakes import write_clip


def encoded(write) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


WAVE = (np.sin(np.arange(8000) / 20) / 2).astype(np.float32)


@pytest.mark.parametrize("format", ["WAV", "FLAC", "OGG"])
def test_sound_in_memory_is_decoded_as_the_file_is(tmp_path, format):
    data = encoded(lambda file: soundfile.write(file, WAVE, 8000, format=format))
    path = tmp_path / "a"
    path.write_bytes(data)
    assert np.array_equal(load_audio(Blob("a", data)), load_audio(path))
    with pytest.raises(DataError, match="'a': "):
        load_audio(Blob("a", data[: len(data) // 2]), "a")
    with pytest.raises(DataError, match="max_seconds"):
        read_audio(Blob("a", data), tmp_path, AudioConfig(max_seconds=0.5))


def test_picture_in_memory_keeps_its_limits():
    data = encoded(lambda file: Image.new("RGB", (40, 30), "red").save(file, "PNG"))
    assert load_image(Blob("x", data)).size == (40, 30)
    with pytest.raises(DataError, match=r"image\.max_pixels"):
        load_image(Blob("x", data), config=ImageConfig(max_pixels=1000))
    with pytest.raises(DataError, match="more than the limit"):
        load_image(Blob("x", data), config=ImageConfig(max_bytes=10))
    with pytest.raises(DataError, match="x"):
        load_image(Blob("x", data[:50]))


def test_clip_in_memory_is_decoded_as_the_file_is(tmp_path):
    path = tmp_path / "clip.mp4"
    write_clip(path)
    clip, held = load_video(path), load_video(Blob("clip", path.read_bytes()))
    assert np.array_equal(clip.frames, held.frames) and np.array_equal(clip.times, held.times)
    cut = path.read_bytes()[: path.stat().st_size * 9 // 10]
    with pytest.raises(DataError):
        load_video(Blob("clip", cut))


def test_a_playlist_in_memory_reaches_no_file(tmp_path):
    secret = tmp_path / "secret.mp4"
    write_clip(secret)
    with pytest.raises(DataError):
        load_video(Blob("x.mp4", f"ffconcat version 1.0\nfile {secret}\n".encode()))


@pytest.mark.parametrize("order", ["C", "F"])
def test_array_in_memory(order):
    values = np.asarray(np.arange(6).reshape(2, 3), order=order)
    data = encoded(lambda file: np.save(file, values))
    assert np.array_equal(read_features(Blob("v.npy", data), None), values)


def test_array_that_lies_about_its_shape_allocates_nothing():
    data = encoded(lambda file: np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)}))  # fmt: skip
    with pytest.raises(DataError, match="cannot be read"):
        read_features(Blob("v.npy", data), None)
    objects = encoded(lambda file: np.save(file, np.array([{}]), allow_pickle=True))
    with pytest.raises(DataError, match="Object arrays"):
        read_features(Blob("v.npy", objects), None)


def test_part_of_a_file_and_a_copy_for_another_process(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(b"....\x89PNG rest....")
    blob = Blob("1.img", file=path, offset=4, size=9)
    assert blob.read_bytes() == b"\x89PNG rest" and blob.extension == "png"
    again = pickle.loads(pickle.dumps(blob))  # noqa: S301
    assert again.read_bytes() == b"\x89PNG rest" and str(again) == "1.img"
    held = pickle.loads(pickle.dumps(Blob("a.txt", b"hi")))  # noqa: S301
    assert held.extension == "txt"
