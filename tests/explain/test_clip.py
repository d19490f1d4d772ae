"""The page of a clip: frames, curve, spectrogram and sound, small enough to send."""

import base64
import io
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from motet.data.audio import AudioProcessor
from motet.data.collate import collate
from motet.data.frames import VideoConfig
from motet.data.sound import AudioConfig
from motet.data.video import VideoProcessor
from motet.explain import item as explaining
from motet.explain.item import Explained, Media
from motet.explain.media import frames, sound_uri, spectrogram, wave_of
from motet.explain.pictures import pictures
from motet.explain.report import explain_html
from motet.model import Motet, MotetConfig, TaskSpec
from motet.nn.block import BlockConfig
from motet.nn.mot import MoTConfig
from motet.types import ModalitySpec, Piece, Sample
from tests.data.media_fakes import tone
from tests.explain.browser import browser, needs_browser

SECONDS, FPS, WORDS = 30, 4, 60


def write_scene(path: Path) -> Path:
    """A clip of SECONDS with pictures that move and have texture, and a sound that changes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (12, 16 + SECONDS, 3)).repeat(20, 0).repeat(20, 1)
    sound = np.concatenate([tone(1, hertz=200 + 40 * i) for i in range(SECONDS)])
    sound += 0.05 * rng.standard_normal(len(sound)).astype(np.float32)
    with av.open(str(path), "w") as out:
        shown = out.add_stream("mpeg4", rate=FPS)
        voice = out.add_stream("aac", rate=16_000, layout="mono")
        shown.width, shown.height, shown.pix_fmt, shown.bit_rate = 320, 240, "yuv420p", 4_000_000
        shown.codec_context.time_base = Fraction(1, FPS)
        for i in range(SECONDS * FPS):
            part = coarse[:, i * 5 : i * 5 + 320] + rng.normal(0, 12, (240, 320, 1))
            frame = av.VideoFrame.from_ndarray(np.clip(part, 0, 255).astype(np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            out.mux(shown.encode(frame))
        out.mux(shown.encode(None))
        for start in range(0, len(sound), 1024):
            heard = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], "fltp", "mono")
            heard.sample_rate, heard.pts = 16_000, start
            out.mux(voice.encode(heard))
        out.mux(voice.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scene(tmp_path_factory.mktemp("clip") / "scene.mp4")


@pytest.fixture(scope="module")
def item(clip: Path) -> Explained:
    """The clip as a small model sees it, without the deletion test, which needs no picture."""
    video = VideoProcessor("video", VideoConfig(fps=FPS, max_frames=SECONDS * FPS, size=32, patch=16))
    audio = AudioProcessor("video_sound", AudioConfig(), [0.0] * 80, [1.0] * 80)
    times = np.linspace(0, 0.95 * SECONDS, WORDS).astype(np.float32)
    said = Piece(np.arange(WORDS), times, labels=tuple(f"word{i}" for i in range(WORDS)))
    pieces = {"text": said}
    for processor in (video, audio):
        (pieces[processor.name],) = processor.pieces([processor.read(clip.name, clip.parent)])
    specs = (ModalitySpec("text", "text", "ids", WORDS), video.spec, audio.spec)
    torch.manual_seed(0)
    stack = MoTConfig(block=BlockConfig(width=16, heads=2), depth=1, attend=("global",))
    model = Motet(MotetConfig(modalities=specs, mot=stack, tasks=(TaskSpec("mood", "classes", ("a", "b")),)))
    shown = {"text": Media(text=" ".join(said.labels or ())), "video": Media(file=clip)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(explaining, "deletion_tests", lambda *_, **__: [])
        patched.setattr(explaining, "integrated_gradients", lambda *_, **__: None)
        batch = collate([Sample("0", pieces)], specs, {}, labels=True)
        return explaining.explain_sample(model.eval(), batch, shown | {"video_sound": Media(file=clip)})


def test_the_page_of_half_a_minute_is_small(item: Explained) -> None:
    html = explain_html(item)
    assert item.units.start[item.units.of("video")].max() > SECONDS - 1
    assert html.count('<div class="frame"') == SECONDS * FPS
    assert item.units.labels[item.units.of("video")[53]] == "13.25 s, row 1, column 1 to row 2, column 2"
    assert "data:audio/mpeg" in html and 'alt="Spectrogram' in html
    assert 200_000 < len(html.encode()) < 5_000_000


def test_its_strip_and_spectrogram_are_pictures_too(item: Explained) -> None:
    found = pictures(item)
    assert found["answer-video"].count("<image") == SECONDS * FPS
    assert found["answer-video_sound"].count('class="hot"') == len(item.units.of("video_sound"))


def test_frames_are_those_of_their_times(clip: Path) -> None:
    few = frames(clip, [0.0, 10.0, 20.0])
    assert len(few) == 3 and len(set(few)) == 3 and all(uri.startswith("data:image/webp") for uri in few)


def test_the_sound_that_plays_is_the_sound_that_was_heard(clip: Path) -> None:
    wave = wave_of(clip, 2.5)
    assert wave is not None and len(wave) == 40_000
    uri = sound_uri(wave)
    data = base64.b64decode(uri.split(",")[1])
    assert len(data) < 0.4 * len(wave)  # of 2 bytes a sample
    with av.open(io.BytesIO(data)) as opened:
        again = np.concatenate([f.to_ndarray().ravel() for f in opened.decode(audio=0)])
        assert opened.streams.audio[0].rate == 16_000
    power = np.abs(np.fft.rfft(again[20_000:30_000])) ** 2
    assert abs(float(power.argmax()) * 16_000 / 10_000 - 240) < 4  # the second second's tone


def test_a_spectrogram_has_low_notes_at_the_bottom() -> None:
    low, high = (spectrogram(tone(1, hertz=h))[:, :, 0].mean(1).argmax() for h in (150, 4000))
    assert low > 70 and high < 35


@needs_browser
def test_the_clip_opens_with_its_frames_and_its_sound_plays(item: Explained, tmp_path: Path) -> None:
    path = tmp_path / "clip.html"
    path.write_text(explain_html(item), "utf-8")
    with browser(tmp_path / "profile") as tab:
        tab.open(path, width=390)
        assert tab.run("document.documentElement.scrollWidth") == 390
        assert tab.run("[...document.querySelectorAll('.frame img')].every(e => e.decode())")
        heard = "new Promise(r => { const a = document.querySelector('audio'); a.load();"
        heard += " a.onloadedmetadata = () => r(a.duration); a.onerror = () => r(-1) })"
        assert tab.run(heard) == pytest.approx(SECONDS, abs=0.5)
        before = tab.run("document.querySelector('.curve path').getAttribute('d')")
        second = int(item.units.of("video_sound")[40])
        tab.move(f'[data-u="{second}"]', click=True)
        assert tab.run("document.querySelector('.curve path').getAttribute('d')") != before
        assert tab.run("document.querySelector('audio').currentTime") == pytest.approx(
            float(item.units.start[second]), abs=0.1
        )
        assert re.search("listens to", tab.run("document.querySelector('[role=status]').textContent"))
        assert not tab.problems
