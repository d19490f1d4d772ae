"""Clips of a colour, a pitch and a word: predicted whole and over time, with anything missing."""

import json
import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

import motet
from motet.cli.predict import predict as command
from motet.errors import ConfigError, DataError
from tests.data.media_fakes import tone, write_wav

MOODS = {"positive": ((230, 200, 40), 880.0, "lovely"), "negative": ((40, 50, 120), 220.0, "awful")}
SETTINGS = (
    *("train.epochs=6", "model.width=32", "model.embedding=16", "train.batch_size=16"),
    *("video.size=32", "video.patch=16", "video.fps=1"),
)


def write_clip(path: Path, parts: list[tuple[str, float]], *, sound: bool | None = True) -> Path:
    """Moods one after the other, each with its seconds. sound None: a silent track; False: no track."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("mpeg4", rate=10)
        pictures.width = pictures.height = 32
        pictures.pix_fmt = "yuv420p"
        track = container.add_stream("aac", rate=16_000, layout="mono") if sound is not False else None
        wave = np.concatenate([tone(s, hertz=MOODS[mood][1]) for mood, s in parts]) * (sound is True)
        for mood, seconds in parts:
            for _ in range(round(seconds * 10)):
                picture = Image.new("RGB", (32, 32), MOODS[mood][0])
                container.mux(pictures.encode(av.VideoFrame.from_image(picture)))
        container.mux(pictures.encode(None))
        if track is not None:
            for start in range(0, len(wave), 1024):
                frame = av.AudioFrame.from_ndarray(
                    wave[None, start : start + 1024].astype(np.float32), "fltp", "mono"
                )
                frame.sample_rate, frame.pts, frame.time_base = 16_000, start, Fraction(1, 16_000)
                container.mux(track.encode(frame))
            container.mux(track.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def analyzer(folder):
    lines = ["clip,text,sentiment"]
    for i in range(24):
        mood = list(MOODS)[i % 2]
        write_clip(folder / f"{i}.mp4", [(mood, 1.0)])
        lines.append(f"{i}.mp4,it was {MOODS[mood][2]} number {i},{mood}")
    table = folder / "clips.csv"
    table.write_text("\n".join(lines))
    motet.fit(table, label="sentiment", out=folder / "run", settings=SETTINGS, preset="scratch", device="cpu")
    return motet.SentimentAnalyzer.from_pretrained(folder / "run", device="cpu")


def test_a_whole_clip(analyzer, folder):
    said = analyzer.predict(video=folder / "0.mp4", text="it was lovely")
    assert set(said) == {"label", "probabilities", "score", "modalities", "status"}
    assert set(said["modalities"]) == {"clip", "clip_sound", "text"}
    assert sum(said["probabilities"].values()) == pytest.approx(1)
    assert said["label"] == max(said["probabilities"], key=said["probabilities"].get)
    assert said["score"] == pytest.approx(
        said["probabilities"]["positive"] - said["probabilities"]["negative"]
    )
    assert said["status"] == "ok"
    by_predictor = analyzer.predictor.predict({"clip": folder / "0.mp4", "text": "it was lovely"})
    assert by_predictor["scores"] == pytest.approx(said["probabilities"], abs=1e-5)


def test_a_clip_under_another_name_is_seen_and_heard(analyzer, folder):
    table = folder / "calls.csv"
    table.write_text("recording,text\n0.mp4,it was lovely")
    (row,) = analyzer.predictor.predict_table(table)
    by_kind = analyzer.predictor.predict({"video": folder / "0.mp4", "text": "it was lovely"})
    by_name = analyzer.predictor.predict({"clip": folder / "0.mp4", "text": "it was lovely"})
    assert set(row["modalities"]) == set(by_kind["modalities"]) == {"clip", "clip_sound", "text"}
    assert row["scores"] == by_kind["scores"] == pytest.approx(by_name["scores"])


def test_what_is_missing_silent_or_empty_is_an_answer(analyzer, folder, tmp_path):
    mute = write_clip(tmp_path / "mute.mp4", [("positive", 1.0)], sound=False)
    said = analyzer.predict(video=mute, text="  ")
    assert said["status"] == "ok" and said["modalities"] == ["clip"]
    silent = write_clip(tmp_path / "silent.mp4", [("positive", 1.0)], sound=None)
    assert set(analyzer.predict(video=silent)["modalities"]) == {"clip", "clip_sound"}
    assert analyzer.predict(text="lovely")["modalities"] == ["text"]
    sound = write_wav(tmp_path / "a.wav", tone(1.0))
    assert analyzer.predict(audio=sound)["modalities"] == ["clip_sound"]
    assert analyzer.predict(audio=np.zeros(8000, np.float32))["status"] == "ok"
    nothing = analyzer.predict(text="")
    assert nothing["status"] == "missing" and nothing["label"] is None and nothing["probabilities"] == {}
    assert analyzer.predict() == nothing


def test_wrong_use_and_broken_files_are_named(analyzer, folder, tmp_path):
    with pytest.raises(DataError, match="no such file"):
        analyzer.predict(video=tmp_path / "absent.mp4")
    (tmp_path / "cut.mp4").write_bytes((folder / "0.mp4").read_bytes()[:500])
    with pytest.raises(DataError, match=r"cut\.mp4"):
        analyzer.predict(video=tmp_path / "cut.mp4")
    with pytest.raises(ConfigError, match="image: this model has no modality"):
        analyzer.predict(image=tmp_path / "cut.mp4")
    with pytest.raises(ConfigError, match="window=0"):
        analyzer.timeline(video=folder / "0.mp4", window=0)
    with pytest.raises(ConfigError, match="windows"):
        analyzer.timeline(video=folder / "0.mp4", window=0.1, step=1e-6)


def test_a_long_clip_gives_a_curve(analyzer, tmp_path):
    clip = write_clip(tmp_path / "long.mp4", [("positive", 4.0), ("negative", 4.0)])
    found = analyzer.timeline(video=clip, window=2, step=1)
    assert found.seconds == pytest.approx(8, abs=1.1)
    assert [p["start"] for p in found.points][:7] == [0, 1, 2, 3, 4, 5, 6]
    assert all(p["end"] - p["start"] <= 2 for p in found.points)
    assert all(set(p["modalities"]) == {"clip", "clip_sound"} for p in found.points[:6])
    # A window says what the same piece of the clip says alone.
    first = analyzer.predict(video=write_clip(tmp_path / "alone.mp4", [("positive", 2.0)]))
    assert found.points[1]["label"] == first["label"]
    scores = [p["score"] for p in found.points]
    assert np.mean(scores[:3]) > np.mean(scores[5:7])

    root = ET.fromstring(found.svg())
    assert root.tag.endswith("svg") and "score" in found.svg()
    saved = json.loads(found.save(tmp_path / "t.json").read_text())
    assert saved == json.loads(json.dumps(found.to_dict()))
    with Image.open(found.save(tmp_path / "t.png")) as picture:
        blue = (np.asarray(picture.convert("RGB")) == (0x1B, 0x4A, 0x92)).all(-1)
        places = np.argwhere(blue)  # (row, column): the curve falls from left to right
        assert places[places[:, 1] < 250, 0].mean() < places[places[:, 1] > 700, 0].mean()
    with pytest.raises(ConfigError, match=r"\.svg"):
        found.save(tmp_path / "t.bmp")


def test_words_stand_in_the_windows_of_their_times(analyzer, tmp_path):
    words = tmp_path / "said.srt"
    words.write_text("1\n00:00:00,000 --> 00:00:01,000\nlovely\n\n2\n00:00:05,000 --> 00:00:06,000\nawful\n")
    found = analyzer.timeline(text=words, window=2, step=2)
    assert not found.estimated
    assert [p["status"] for p in found.points] == ["ok", "missing", "ok"]
    assert found.points[0]["probabilities"] == pytest.approx(
        analyzer.predict(text="lovely")["probabilities"], abs=0.2
    )
    plain = analyzer.timeline(text="lovely " * 40, window=3, step=3)
    assert plain.estimated and len(plain.points) == 4
    silent = analyzer.timeline(text="")
    assert [p["status"] for p in silent.points] == ["missing"]
    with pytest.raises(DataError, match="nothing can be drawn"):
        silent.svg()


def test_the_command_writes_rows_and_a_picture(analyzer, folder, tmp_path, capsys):
    clip = write_clip(tmp_path / "long.mp4", [("negative", 3.0)])
    command(folder / "run", str(clip), timeline=True, window=2, step=1, save=tmp_path / "t.svg")
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("0-2 s\t") and len(rows) >= 2
    assert (tmp_path / "t.svg").read_text().startswith("<svg")
    command(folder / "run", str(clip), timeline=True, json=True)
    assert json.loads(capsys.readouterr().out)["points"][0]["start"] == 0
    with pytest.raises(DataError, match="no such file"):
        command(folder / "run", "absent.mp4", timeline=True)


def test_the_command_answers_what_is_empty_or_silent(analyzer, folder, tmp_path, capsys):
    command(folder / "run", "", json=True)
    assert json.loads(capsys.readouterr().out)["status"] == "missing"
    command(folder / "run", "  ")
    assert capsys.readouterr().out == "missing\n"
    for sound in (False, None):
        clip = write_clip(tmp_path / f"{sound}.mp4", [("positive", 1.0)], sound=sound)
        command(folder / "run", str(clip), json=True)
        said = json.loads(capsys.readouterr().out)
        assert said["status"] == "ok" and said["label"] and "clip" in said["modalities"]
        assert said["score"] == pytest.approx(said["scores"]["positive"] - said["scores"]["negative"])
    clip.with_suffix(".txt").write_text("it was lovely")  # beside the clip, as in a folder
    command(folder / "run", str(clip), json=True)
    assert "text" in json.loads(capsys.readouterr().out)["modalities"]


SMALL = (
    "train.epochs=40",
    "model.width=32",
    "train.batch_size=16",
    "train.lr=5e-3",
    "model.head_dropout=0.1",
)


def test_a_label_and_a_score_of_features_at_once_and_their_curve(tmp_path, capsys):
    draw = np.random.default_rng(0)
    lines = ["id,face,mood,stars"]
    for i in range(80):
        stars = int(draw.integers(1, 6))
        values = draw.normal(size=(4, 3)) * 0.1 + (stars - 3)
        mood = "positive" if stars > 3 else "negative" if stars < 3 else "neutral"
        lines.append(f'{i},"{json.dumps(values.tolist())}",{mood},{stars}')
    table = tmp_path / "faces.csv"
    table.write_text("\n".join(lines))
    motet.fit(table, label="mood,stars", out=tmp_path / "run", settings=SMALL, preset="scratch", device="cpu")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["tasks"]
    assert metrics["mood"]["full"]["accuracy"] > 0.8 and metrics["stars"]["full"]["pearson"] > 0.9

    analyzer = motet.SentimentAnalyzer.from_pretrained(tmp_path / "run", device="cpu")
    said = analyzer.predict(features={"face": np.full((4, 3), 2.0, np.float32)})
    assert said["label"] == "positive" and said["score"] == pytest.approx(5, abs=1)
    assert said["tasks"]["mood"]["probabilities"] == said["probabilities"]
    assert said["tasks"]["stars"] == {"label": None, "probabilities": {}, "score": said["score"]}
    command(tmp_path / "run", str(table))
    first = capsys.readouterr().out.splitlines()[0].split("\t")
    assert first[1] in ("positive", "neutral", "negative") and first[-1].startswith("stars ")

    falling = np.repeat(np.linspace(2, -2, 100, dtype=np.float32)[:, None], 3, axis=1)  # ten seconds
    np.save(tmp_path / "long.npy", falling)
    found = analyzer.timeline(features={"face": str(tmp_path / "long.npy")}, window=2, step=2)
    assert [p["start"] for p in found.points] == [0, 2, 4, 6, 8] and found.seconds == pytest.approx(10)
    scores = [p["score"] for p in found.points]
    assert scores == sorted(scores, reverse=True) and scores[0] - scores[-1] > 2
    assert [p["label"] for p in (found.points[0], found.points[-1])] == ["positive", "negative"]
    with pytest.raises(ConfigError, match="voice: this model has no modality"):
        analyzer.predict(features={"voice": [[1.0]]})


def test_the_folder_says_how_well_calibrated_it_is(analyzer, folder):
    metrics = json.loads((folder / "run" / "metrics.json").read_text())
    assert "calibration" in metrics  # empty: so few validation rows say nothing
    assert metrics["calibration"] == {} or metrics["calibration"]["sentiment"]["temperature"] > 0
