"""One clip: frames, sound and words of the same second share a time, from the file to the batch."""

import csv

import numpy as np
import pytest

from motet.data.cache import FeatureCache
from motet.data.collate import collate
from motet.data.columns import infer_columns
from motet.data.dataset import Dataset
from motet.data.processor import load_processor
from motet.data.table import open_table
from motet.errors import ConfigError
from motet.predictor.cells import keys_of, read_entries
from motet.predictor.inputs import entry_of
from motet.predictor.tables import TableEntries
from motet.train.processors import make_processors
from motet.train.settings import read_settings
from motet.types import floats_of
from tests.data.media_fakes import tone, write_clip, write_wav

FLASH, BEEP, WORD = 1.0, 2.0, 2.5
SETTINGS = ("video.fps=10", "video.max_frames=64", "video.size=32", "video.patch=16")
SRT = "1\n00:00:00,500 --> 00:00:00,900\nhello\n\n2\n00:00:02,500 --> 00:00:02,900\nbang\n"


def clip_with_events(path):
    """Dark but for a flash of 0.2 s, silent but for a beep of 0.3 s."""
    sound = np.zeros(4 * 16_000, np.float32)
    sound[int(BEEP * 16_000) : int((BEEP + 0.3) * 16_000)] = tone(0.3, hertz=1000)
    dark, bright = (10, 10, 10), (250, 250, 250)
    times = [i / 20 for i in range(80)]
    colours = [bright if FLASH <= t < FLASH + 0.2 else dark for t in times]
    return write_clip(path, colours=colours, times=times, sound=sound)


def write_table(folder, columns, *rows):
    with (folder / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])


def dataset(folder, *settings):
    table = open_table(folder / "table.csv")
    columns = infer_columns(table)
    config = read_settings(["model.width=64", *SETTINGS, *settings], "scratch")
    lines = []
    made = make_processors(table, columns, range(len(table)), config, preset="scratch", say=lines.append)
    again = {name: load_processor(p.to_dict()) for name, p in made.items()}  # as prediction has them
    data = Dataset(table, columns, again, range(len(table)))
    data.prepare()
    return data, lines


def events(data, i=0, words=None):
    """When the flash, the beep and the word are, by the times of the tokens of a batch."""
    batch = collate([data[i]], [p.spec for p in data.processors.values()], {}, labels=True)
    time = {m: batch.layout.time[batch.layout.slice_of(m)].numpy() for m in batch.layout.modalities}
    bright = floats_of(batch.values["video"]).mean(1).numpy()
    loud = batch.values["video_sound"].reshape(len(time["video_sound"]), -1).mean(1).numpy()
    said = None
    if words:  # spelled in parts by so small a tokenizer
        parts = batch.labels[words]
        said = time[words][next(i for i in range(len(parts)) if "".join(parts[i:]).startswith("bang"))]
    return (
        time["video"][bright > 0.5].min(),
        time["video_sound"][loud > (loud.max() + np.median(loud)) / 2].min(),
        said,
    )


def test_a_clip_its_sound_and_the_words_beside_it_share_a_clock(tmp_path):
    clip_with_events(tmp_path / "a.mp4")
    (tmp_path / "a.srt").write_text(SRT)
    write_table(tmp_path, ["video"], ["a.mp4"])
    data, lines = dataset(tmp_path)
    assert list(data.processors) == ["video", "video_sound", "video_words"]
    assert "video_words starts from scratch, on the clock of video" in lines
    flash, beep, word = events(data, words="video_words")
    assert abs(flash - FLASH) <= 0.1 and abs(beep - BEEP) <= 0.08 and word == np.float32(WORD)
    assert not data[0].pieces["video_words"].estimated


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.vtt", "WEBVTT\n\n00:00.500 --> 00:02.900\nhello <00:02.500><c>bang</c>\n"),
        ("t.json", '{"segments": [{"words": [{"word": " bang", "start": 2.5, "end": 2.9}]}]}'),
        ("t.ctm", "a 1 0.5 0.4 hello\na 1 2.5 0.4 bang 0.9\n"),
    ],
)
def test_a_transcript_column_names_a_file_with_times(tmp_path, name, text):
    clip_with_events(tmp_path / "a.mp4")
    (tmp_path / name).write_text(text)
    (tmp_path / "a.srt").write_text(SRT.replace("bang", "other"))  # the column goes first
    write_table(tmp_path, ["video", "transcript"], ["a.mp4", name])
    data, _ = dataset(tmp_path)
    assert list(data.processors) == ["video", "video_sound", "transcript"]
    assert events(data, words="transcript")[2] == np.float32(WORD)


def test_an_empty_cell_of_a_transcript_is_filled_by_the_file_beside(tmp_path):
    clip_with_events(tmp_path / "a.mp4")
    clip_with_events(tmp_path / "b.mp4")
    (tmp_path / "a.srt").write_text(SRT)
    write_table(
        tmp_path, ["video", "transcript"], ["a.mp4", ""], ["b.mp4", "some other words"], ["b.mp4", ""]
    )
    data, _ = dataset(tmp_path)
    assert events(data, words="transcript")[2] == np.float32(WORD)
    assert "transcript" not in data[2].pieces


def test_a_plain_transcript_is_spread_over_what_is_heard_and_says_so(tmp_path):
    sound = np.zeros(6 * 16_000, np.float32)
    rng = np.random.default_rng(0)
    for start, end in ((1.0, 2.0), (4.0, 5.0)):
        sound[int(start * 16_000) : int(end * 16_000)] = 0.3 * tone(end - start)
    sound += 1e-4 * rng.normal(size=len(sound)).astype(np.float32)
    write_wav(tmp_path / "a.wav", sound)
    write_table(tmp_path, ["speech", "transcript"], ["a.wav", "one two three four five six"])
    data, _ = dataset(tmp_path)
    piece = data[0].pieces["transcript"]
    assert piece.estimated
    starts = {label: t for label, t in zip(piece.labels, piece.time, strict=True)}
    assert abs(starts.get("one", piece.time[0]) - 1.0) < 0.05
    assert (np.diff(piece.time) >= 0).all() and piece.time.max() < 5
    inside = ((piece.time > 0.95) & (piece.time < 2.05)) | ((piece.time > 3.95) & (piece.time < 5.05))
    assert inside.all() and (piece.time < 2.05).any() and (piece.time > 3.95).any()


def test_a_title_is_not_taken_for_a_transcript(tmp_path):
    write_wav(tmp_path / "a.wav", tone(3.0))
    write_table(tmp_path, ["speech", "title"], ["a.wav", "one two three"])
    data, _ = dataset(tmp_path)
    piece = data[0].pieces["title"]
    assert not piece.estimated and piece.time.max() == pytest.approx(0.6)
    spoken, _ = dataset(tmp_path, "title.spoken_in=speech")
    assert spoken[0].pieces["title"].estimated and spoken[0].pieces["title"].time.max() > 1.5
    with pytest.raises(ConfigError, match="no modality of sound"):
        dataset(tmp_path, "title.spoken_in=nothing")


def test_silent_clips_have_no_sound_modality(tmp_path):
    write_clip(tmp_path / "a.mp4")
    write_table(tmp_path, ["video"], ["a.mp4"])
    assert list(dataset(tmp_path)[0].processors) == ["video"]
    clip_with_events(tmp_path / "b.mp4")
    write_table(tmp_path, ["video"], ["a.mp4"], ["b.mp4"])
    data, _ = dataset(tmp_path)
    assert [set(data[i].pieces) for i in range(2)] == [{"video"}, {"video", "video_sound"}]
    assert list(dataset(tmp_path, "video.sound=false")[0].processors) == ["video"]


def test_prediction_sees_what_training_saw(tmp_path, monkeypatch):
    """A clip by its path, a row of a table, a mapping: the same Pieces as in training, words too."""
    clip_with_events(tmp_path / "a.mp4")
    (tmp_path / "a.srt").write_text(SRT)
    write_table(tmp_path, ["video"], ["a.mp4"])
    data, _ = dataset(tmp_path)
    made, cache = data.processors, FeatureCache(None)
    table = TableEntries(open_table(tmp_path / "table.csv"), made, data.columns)
    clip = tmp_path / "a.mp4"
    given = [entry_of(clip, made), entry_of({"video": str(clip)}, made), table[0]]
    for sample in read_entries(given, made, cache):
        assert set(sample.pieces) == {"video", "video_sound", "video_words"}
        for name, piece in data[0].pieces.items():
            twin = sample.pieces[name]
            assert (twin.values == piece.values).all() and (twin.time == piece.time).all()
            assert twin.labels == piece.labels and twin.estimated == piece.estimated
    keys = [keys_of(entry, made) for entry in given]
    assert keys[0] == keys[1] == keys[2] and set(keys[0]) == set(made)
    said = entry_of({"video": clip, "video_words": "hello bang"}, made)
    (sample,) = read_entries([said], made, cache)
    piece = sample.pieces["video_words"]
    assert piece.estimated and piece.time.min() > 1.9  # over the beep, all that is heard
    (words,) = read_entries([entry_of(tmp_path / "a.srt", made)], made, cache)
    assert (words.pieces["video_words"].time == data[0].pieces["video_words"].time).all()
    monkeypatch.chdir(tmp_path)  # a text is a text, whatever file has its name
    (text,) = read_entries([entry_of({"video_words": "a.srt"}, made)], made, cache)
    assert text.pieces["video_words"].time.max() == 0
