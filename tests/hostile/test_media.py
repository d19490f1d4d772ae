"""Hostile media: a clear DataError, in bounded time and memory, or the right content."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from motet.data.audio import AudioConfig, load_audio
from motet.data.container import open_container
from motet.data.features import read_features
from motet.data.image import load_image
from motet.data.processor import make_processor
from motet.data.video import load_video
from motet.errors import DataError
from tests.hostile import media_corpus

SECONDS, MEGABYTES = 5.0, 300


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> dict[str, Path]:
    return media_corpus.build(tmp_path_factory.mktemp("corpus"))


def contained(read: Callable[[Path], object], path: Path) -> str:
    """The rule that `read` refuses the file by, "ok" or "missing"; in a child of bounded time and memory."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        answer = "crashed"
        try:
            answer = "missing" if read(path) is None else "ok"
        except DataError as error:
            assert path.name in str(error) and str(path.parent) not in str(error), error
            answer = error.rule
        finally:
            mine = resource.getrusage(resource.RUSAGE_SELF)
            took = [mine.ru_maxrss * 1024 - before, mine.ru_utime + mine.ru_stime]
            theirs.sendall(json.dumps([answer, *took]).encode())
            os._exit(0)
    theirs.close()
    ours.settimeout(12 * SECONDS)
    try:
        answer, used, seconds = json.loads(ours.recv(4096))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        ours.close()
    assert seconds < SECONDS  # of work: a busy machine takes longer
    assert used / 1e6 < MEGABYTES
    return answer


@pytest.mark.parametrize("format", media_corpus.PICTURES)
def test_cut_pictures_are_refused_at_every_point(tmp_path, format):
    whole = media_corpus.picture_bytes(format)
    (tmp_path / "x").write_bytes(whole)
    assert load_image(tmp_path / "x").size == (64, 48)
    for cut in [*media_corpus.cuts(whole), whole[:-1]]:
        (tmp_path / "x").write_bytes(cut)
        with pytest.raises(DataError, match="'x'"):
            load_image(tmp_path / "x")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format", media_corpus.PICTURES)
def test_flipped_pictures_decode_or_are_refused(tmp_path, format):
    whole = media_corpus.picture_bytes(format)
    rng = np.random.default_rng(0)
    for _ in range(150):
        data = bytearray(whole)
        for at in rng.integers(0, min(len(data), 400), 4):
            data[at] = rng.integers(0, 256)
        (tmp_path / "x").write_bytes(data)
        with contextlib.suppress(DataError):
            assert load_image(tmp_path / "x").mode == "RGB"


PICTURES = {
    "bomb.png": "too large",
    "header_100k.png": "too large",
    "lying_header.png": "truncated",
    "empty.png": "empty file",
    "text.png": "not a picture",
    "wrong_extension.png": "ok",
    "fits.png": "not a picture",
    "psd.png": "not a picture",
    "eps.png": "not a picture",
    "svg.png": "not a picture",
    "ppm.png": "not a picture",
    "nan.tiff": "NaN",
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(corpus, name):
    assert contained(load_image, corpus[name]) == PICTURES[name]


SOUNDS = {
    "half.wav": "truncated",
    "empty.wav": "empty file",
    "no_samples.wav": "no samples",
    "one_sample.wav": "ok",
    "nan.wav": "NaN",
    "inf.wav": "NaN",
    "minus_inf.wav": "NaN",
    "rate_1.wav": "sample rate",
    "rate_huge.wav": "sample rate",
    "rate_0.wav": "damaged",
    "no_channels.wav": "damaged",
    "streamed.wav": "ok",
    "garbage.wav": "truncated",
    "wide.wav": "ok",
    "bomb.flac": "too long",
    "whole.ogg": "ok",
    "whole.flac": "ok",
    "text.wav": "damaged",
    "empty.mp4": "empty file",
    "garbage.mp4": "damaged",
    "cut_90.mp4": "truncated",
    "video_only.mp4": "missing",
    "sound_only.mp4": "ok",
    "picture.mp4": "damaged",
}


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds(corpus, name):
    assert contained(load_audio, corpus[name]) == SOUNDS[name]


def test_eight_channels_at_192_khz_are_downmixed_and_resampled(corpus):
    wave = load_audio(corpus["wide.wav"])
    assert abs(len(wave) - 8000) <= 2 and np.abs(wave[1000:-1000]).max() == pytest.approx(0.5, abs=0.02)


def test_bytes_are_counted_beside_seconds(corpus):
    with pytest.raises(DataError, match="MiB of decoded sound"):
        load_audio(corpus["bomb.flac"], config=AudioConfig(max_seconds=10_000, max_bytes=100 * 2**20))


@pytest.mark.parametrize("name", ["whole.wav", "whole.flac", "whole.ogg"])
def test_cut_sounds_are_refused_at_every_point(corpus, tmp_path, name):
    whole = (corpus["half.wav"].parent / name).read_bytes()
    for cut in media_corpus.cuts(whole):
        (tmp_path / "x").write_bytes(cut)
        with pytest.raises(DataError, match="'x'"):
            load_audio(tmp_path / "x")


CLIPS = {
    "whole.mp4": "ok",
    "whole.mkv": "ok",
    "whole.avi": "ok",
    "cut_90.mp4": "truncated",
    "header_only.mp4": "truncated",
    "empty.mp4": "empty file",
    "garbage.mp4": "damaged",
    "sound_only.mp4": "missing",
    "video_only.mp4": "ok",
    "picture.mp4": "damaged",
    "ffconcat.mp4": "damaged",
    "ffconcat_unsafe.mp4": "damaged",
    "hls.mp4": "damaged",
    "hls_http.mp4": "damaged",
    "hls_file.mp4": "damaged",
    "dash.mp4": "damaged",
    "sdp.mp4": "damaged",
    "concat_line.mp4": "damaged",
}


@pytest.mark.parametrize("name", CLIPS)
def test_clips(corpus, name):
    assert contained(load_video, corpus[name]) == CLIPS[name]


def test_flipped_clip_decodes_or_is_refused(corpus):
    assert contained(load_video, corpus["flipped.mp4"]) in ("ok", "damaged", "no frames")
    assert contained(load_audio, corpus["flipped.mp4"]) in ("ok", "damaged", "NaN")


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi", "mov"])
def test_cut_clips_are_refused_at_every_point(corpus, tmp_path, ending):
    whole = corpus[f"whole.{ending}"].read_bytes()
    assert len(load_video(corpus[f"whole.{ending}"]).frames) >= 2
    for cut in media_corpus.cuts(whole)[::3]:
        (tmp_path / "x").write_bytes(cut)
        with pytest.raises(DataError, match="'x'"):
            load_video(tmp_path / "x")


def test_playlists_reach_no_server(tmp_path):
    """The playlist names a live address: nobody may call."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.5)
        called = []

        def wait() -> None:
            with contextlib.suppress(TimeoutError):
                called.append(server.accept())

        thread = threading.Thread(target=wait)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        (tmp_path / "x.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{url}\n")
        for read in (load_video, load_audio):
            with pytest.raises(DataError):
                read(tmp_path / "x.mp4")
        thread.join()
        assert not called


def test_wall_time_is_bounded(corpus):
    with pytest.raises(DataError, match="wall time"):
        load_audio(corpus["whole.flac"], config=AudioConfig(wall_seconds=0.0))
    with pytest.raises(DataError), open_container(corpus["garbage.mp4"], "g", seconds=0.1):
        pass


OUTSIDE = ["../x.png", "/etc/passwd", "link.png", "pipe.png", "/dev/zero", "sub", "gone.png", "a\0b.png"]
ADDRESSES = [
    "http://127.0.0.1/a.png",
    "concat:a.png|b.png",
    "subfile:,,start,0,end,9,:a",
    "file:///etc/passwd",
]


@pytest.mark.parametrize("cell", OUTSIDE + ADDRESSES)
@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_paths_outside_the_root_are_never_opened(tmp_path, cell, kind):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "x.png").write_bytes(media_corpus.picture_bytes("PNG"))
    (root / "link.png").symlink_to(tmp_path / "x.png")
    os.mkfifo(root / "pipe.png")
    processor = make_processor("m", kind)
    with pytest.raises(DataError):
        processor.read(cell, root)


def test_npy_with_objects_and_lying_headers_is_refused(tmp_path):
    class Boom:
        def __reduce__(self):
            return os.abort, ()

    np.save(tmp_path / "objects.npy", np.array([Boom()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "archive", a=np.zeros(3))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    np.save(tmp_path / "text.npy", np.array(["a"]))
    np.save(tmp_path / "complex.npy", np.array([1j]))
    np.save(tmp_path / "whole.npy", np.zeros((1000, 3)))
    whole = (tmp_path / "whole.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-8])
    (tmp_path / "huge.npy").write_bytes(whole.replace(b"(1000, 3)", b"(9999999999, 3)"))
    (tmp_path / "none.npy").write_bytes(b"")
    for name in ("objects", "archive", "text", "complex", "cut", "huge", "none"):
        with pytest.raises(DataError, match=name):
            read_features(f"{name}.npy", tmp_path)
    assert read_features("whole.npy", tmp_path).shape == (1000, 3)
