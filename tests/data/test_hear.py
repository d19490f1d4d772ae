"""Speech heard by a Whisper model: a tiny one with random weights, made here."""

import json

import numpy as np
import pytest

pytest.importorskip("transformers", reason="the extra hf is not installed")

from motet.data import hear
from motet.data.cache import FeatureCache, content_key
from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.hear import RATE, listener, transcribed, windows
from motet.data.processor import ProcessorConfig, make_processor
from motet.data.spoken import Heard, placed
from motet.data.table import open_table
from motet.data.text import TextConfig
from motet.errors import ConfigError, DataError
from tests.data.media_fakes import tone, write_clip, write_wav
from tests.data.whisper_fake import whisper_folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(whisper_folder(tmp_path_factory.mktemp("whisper") / "tiny"))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOTET_CACHE", str(tmp_path / "cache"))


def noise(seconds, seed=0):
    return (np.random.default_rng(seed).normal(size=int(seconds * RATE)) * 0.1).astype(np.float32)


def test_windows_are_cut_at_the_quietest_place_and_hold_all():
    wave = noise(70)
    for at in (27.3, 54.0):
        wave[int(at * RATE) : int((at + 0.3) * RATE)] = 0
    found = list(windows(wave))
    assert [a for a, _ in found[1:]] == [b for _, b in found[:-1]] and found[-1][1] == len(wave)
    assert found[0][0] == 0 and 27.3 <= found[0][1] / RATE <= 27.6 and 54.0 <= found[1][1] / RATE <= 54.3
    assert list(windows(noise(30))) == [(0, 30 * RATE)] and list(windows(noise(0))) == [(0, 0)]


def test_words_have_times_in_their_window_and_are_heard_once(model, tmp_path, monkeypatch):
    write_wav(tmp_path / "a.wav", noise(31))
    told = transcribed(Heard("a.wav", model), tmp_path)
    words = told.text.split()
    assert told.estimated and len(words) == len(told.times) > 3
    assert (np.diff(told.times) >= 0).all() and told.times[0] >= 0 and told.times[-1] <= 31
    assert (told.times > 25).any()  # the second window, on the clock of the whole
    monkeypatch.setattr(hear, "listener", None)  # not asked again: it is in the cache
    again = transcribed(Heard("a.wav", model), tmp_path)
    assert again.text == told.text and (again.times == told.times).all()


def test_silence_is_not_heard_and_broken_sounds_are_named(model, tmp_path):
    write_wav(tmp_path / "s.wav", np.zeros(RATE, np.float32))
    assert transcribed(Heard("s.wav", model), tmp_path) is None
    assert transcribed(Heard("v.mp4", model), write_clip(tmp_path / "v.mp4").parent) is None
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"b\.wav"):
        transcribed(Heard("b.wav", model), tmp_path)


def test_words_are_heard_only_where_there_are_none(model, tmp_path):
    write_wav(tmp_path / "a.wav", noise(2))
    assert placed(None, "a.wav", tmp_path, transcribe=model) == Heard("a.wav", model)
    assert placed(None, "a.wav", tmp_path) is None
    assert placed(None, None, tmp_path, transcribe=model) is None
    assert placed("said", "a.wav", tmp_path, transcribe=model).text == "said"
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    assert str(placed(None, "a.wav", tmp_path, transcribe=model)) == "a.srt"


def test_tokens_of_a_heard_text_are_marked_and_keyed_by_sound_and_model(model, tmp_path):
    write_wav(tmp_path / "a.wav", noise(2))
    write_wav(tmp_path / "b.wav", tone(2.0))
    (tmp_path / "t.csv").write_text("sound,said\na.wav,\nb.wav,some words of its own\n")
    table = open_table(tmp_path / "t.csv")
    columns = infer_columns(table, overrides={"said": "text"})
    config = ProcessorConfig(text=TextConfig(spoken_in="sound", transcribe=model))
    cells = [Heard("a.wav", model), "some words of its own"]
    text = make_processor("said", "text", config, None, lambda: cells, root=tmp_path)
    dataset = Dataset(table, columns, {"said": text}, range(2), cache=FeatureCache(tmp_path / "cache"))
    dataset.prepare()
    heard, given = (dataset[i].pieces["said"] for i in range(2))
    assert heard.estimated and len(heard) and "".join(given.labels) == "somewordsofitsown"
    assert len(list((tmp_path / "cache" / "heard").rglob("*.json"))) == 1
    other = whisper_folder(tmp_path / "other", seed=1)
    assert content_key(cells[0], tmp_path, text) != content_key(Heard("a.wav", str(other)), tmp_path, text)


def test_what_is_no_whisper_folder_is_one_clear_error(tmp_path):
    for config in (None, {"model_type": "bert"}):
        folder = tmp_path / str(bool(config))
        folder.mkdir()
        if config:
            (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ConfigError, match=r"expected the folder of a Whisper model"):
            listener(str(folder))


def test_fit_hears_the_words_of_sounds_that_have_none(model, tmp_path):
    from motet.train.processors import make_processors
    from motet.train.settings import read_settings

    lines = ["sound,label"]
    for i in range(4):
        write_wav(tmp_path / f"{i}.wav", noise(1, seed=i))
        lines.append(f"{i}.wav,{'ab'[i % 2]}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    table = open_table(tmp_path / "t.csv")
    columns, said = infer_columns(table, label="label"), []
    plain = read_settings([], "scratch")
    assert set(make_processors(table, columns, range(4), plain, preset="scratch", say=said.append)) == {
        "sound"
    }
    config = read_settings([f"text.transcribe={model}"], "scratch")
    made = make_processors(table, columns, range(4), config, preset="scratch", say=said.append)
    assert set(made) == {"sound", "sound_words"} and "heard by" in said[-1]
    data = Dataset(table, columns, made, range(4))
    data.prepare()
    assert all(data[i].pieces["sound_words"].estimated for i in range(4))
    with pytest.raises(ConfigError, match="expected the folder of a Whisper model"):
        wrong = read_settings([f"text.transcribe={tmp_path}"], "scratch")
        make_processors(table, columns, range(4), wrong, preset="scratch", say=said.append)
