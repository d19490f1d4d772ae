import os
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from motet.data.audio import AudioConfig, AudioProcessor, fit_audio, load_audio
from motet.data.mel import log_mel, mel_filters
from motet.data.processor import ProcessorConfig, load_processor, make_processor
from motet.errors import DataError
from tests.data.media_fakes import tone, write_clip, write_wav


def test_a_spectrogram_wakes_no_other_thread():
    """OpenBLAS would, and its threads then spin beside whatever else the machine does."""
    code = """
import time, numpy
from motet.data.mel import log_mel, mel_filters, _multiply
wave = numpy.random.default_rng(0).normal(size=32_000).astype(numpy.float32)
log_mel(wave)
every, own = time.process_time(), time.thread_time()
for _ in range(300):  # threads that were woken before spin for some milliseconds
    log_mel(wave)
assert time.process_time() - every < 1.5 * (time.thread_time() - own)
power = numpy.random.default_rng(1).random((333, 201), numpy.float32)
for mels in (1, 80, 128, 200):
    whole = power.astype(float) @ mel_filters(mels)
    found = numpy.empty((333, mels), numpy.float32)
    _multiply(power, mel_filters(mels), found)
    numpy.testing.assert_allclose(found, whole, rtol=1e-5)
"""
    free = {key: value for key, value in os.environ.items() if not key.endswith("NUM_THREADS")}
    subprocess.run([sys.executable, "-c", code], env=free, check=True)


def test_log_mel_equals_transformers():
    transformers = pytest.importorskip("transformers")
    reference = transformers.WhisperFeatureExtractor(feature_size=80)
    rng = np.random.default_rng(0)
    for wave in (
        rng.normal(size=16_000 * 3).astype(np.float32) * 0.1,
        tone(1.28),
        np.zeros(4000, np.float32),
    ):
        theirs = reference(wave, sampling_rate=16_000, padding="do_not_pad", return_tensors="np")
        ours = log_mel(wave)
        assert np.abs(ours - theirs["input_features"][0].T).max() < 1e-4


def test_mel_filters_peak_at_their_band():
    filters = mel_filters(80)
    assert filters.shape == (201, 80) and (filters >= 0).all()
    peak = log_mel(tone(1.0, hertz=1000.0)).mean(0).argmax()
    centre = (filters[:, peak] * np.linspace(0, 8000, 201)).sum() / filters[:, peak].sum()
    assert abs(centre - 1000) < 50


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_stereo_of_any_rate_becomes_16k_mono(tmp_path, name):
    left = tone(1.0, rate=44_100)
    soundfile.write(tmp_path / name, np.stack([left, np.zeros_like(left)], 1), 44_100)
    wave = load_audio(tmp_path / name)
    assert wave.dtype == np.float32 and abs(len(wave) - 16_000) <= 2
    middle = slice(4000, 12_000)
    best = max(np.corrcoef(wave[middle], tone(1.0)[4000 + s : 12_000 + s])[0, 1] for s in range(-20, 20))
    assert best > 0.99
    assert np.abs(wave[middle]).max() == pytest.approx(0.25, abs=0.02)


def test_resampling_by_blocks_equals_resampling_at_once(tmp_path):
    import soxr

    long = np.random.default_rng(1).normal(size=200_000).astype(np.float32) * 0.05
    soundfile.write(tmp_path / "a.wav", long, 44_100, subtype="FLOAT")
    whole = soxr.resample(long, 44_100, 16_000)
    wave = load_audio(tmp_path / "a.wav")
    assert len(wave) == len(whole) and np.abs(wave - whole).max() < 1e-5


@pytest.mark.parametrize("name", ["a.m4a", "a.mkv"])
def test_other_containers_go_through_pyav(tmp_path, name):
    wave = load_audio(write_clip(tmp_path / name, video=False, sound=tone(1.0)))
    assert abs(len(wave) - 16_000) < 3000 and np.abs(wave).max() == pytest.approx(0.5, abs=0.1)


def test_sound_of_a_clip_without_sound_is_missing(tmp_path):
    assert load_audio(write_clip(tmp_path / "silent.mp4")) is None


def test_extension_does_not_matter(tmp_path):
    write_wav(tmp_path / "a.mp3", tone(0.1))
    assert len(load_audio(tmp_path / "a.mp3")) == 1600


def test_windows_tell_their_time(tmp_path):
    write_wav(tmp_path / "a.wav", tone(0.25))
    processor = make_processor("sound", "audio", None, None, lambda: ["a.wav"], root=tmp_path)
    (piece,) = processor.pieces([processor.read("a.wav", tmp_path)])
    assert piece.values.shape == (4, 640) == (4, processor.spec.size)  # 250 ms in windows of 80 ms
    assert piece.time == pytest.approx([0.04, 0.12, 0.20, 0.28])
    assert piece.labels[1] == "0.08-0.16 s"


def test_event_lies_in_its_window(tmp_path):
    wave = np.zeros(16_000, np.float32)
    wave[8000:8400] = tone(1.0)[:400]  # at 0.5 s
    processor = AudioProcessor("sound", AudioConfig(), [0.0] * 80, [1.0] * 80)
    (piece,) = processor.pieces([wave])
    loudest = piece.time[piece.values.mean(1).argmax()]
    assert abs(loudest - 0.51) <= 0.08


def test_training_statistics_normalise():
    rng = np.random.default_rng(0)
    waves = [rng.normal(size=32_000).astype(np.float32) * 0.1 for _ in range(3)]
    fitted = fit_audio(waves, AudioConfig())
    processor = AudioProcessor("sound", AudioConfig(), **fitted)
    values = np.concatenate([p.values for p in processor.pieces(waves)]).reshape(-1, 80)
    assert np.abs(values.mean(0)).max() < 1e-2 and np.abs(values.std(0) - 1).max() < 1e-2


def test_silence_and_one_sample_are_fine():
    processor = AudioProcessor("sound", AudioConfig(), **fit_audio([], AudioConfig()))
    for wave in (np.zeros(1, np.float32), np.zeros(16_000, np.float32)):
        (piece,) = processor.pieces([wave])
        assert len(piece) >= 1 and np.isfinite(piece.values).all()


def test_loaded_processor_is_bit_equal(tmp_path):
    import json

    write_wav(tmp_path / "a.wav", tone(0.7))
    made = make_processor("sound", "audio", ProcessorConfig(), None, lambda: ["a.wav"], root=tmp_path)
    again = load_processor(json.loads(json.dumps(made.to_dict())))
    raw = made.read("a.wav", tmp_path)
    assert again.fingerprint == made.fingerprint
    assert (again.pieces([raw])[0].values == made.pieces([raw])[0].values).all()


def test_seconds_are_capped_and_cut(tmp_path):
    write_wav(tmp_path / "a.wav", tone(2.0))
    with pytest.raises(DataError, match="max_seconds"):
        load_audio(tmp_path / "a.wav", config=AudioConfig(max_seconds=1))
    config = AudioConfig(heard_seconds=0.5)
    processor = AudioProcessor("s", config, **fit_audio([], config))
    assert len(processor.read("a.wav", tmp_path)) == 8000
