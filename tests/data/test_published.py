"""Small files in the layouts of the published sets, made here, become tables that can be trained on."""

import json
import os
import pickle

import numpy as np
import pytest
import soundfile

from motet.cli.convert import convert as command
from motet.data.columns import infer_columns
from motet.data.features import read_features
from motet.data.published import convert
from motet.data.split import split_rows
from motet.data.table import open_table
from motet.errors import ConfigError, DataError


def rows_of(made):
    return [json.loads(line) for line in made.table.read_text("utf-8").splitlines()]


def mmsa(rows=4, *, lengths=False, seed=0):
    """Ids of two videos a part; features padded with zeros at the end, as in the unaligned files."""
    draw = np.random.default_rng(seed)
    parts = {}
    for part in ("train", "valid", "test"):
        audio = draw.normal(size=(rows, 7, 5)).astype(np.float64)
        vision = draw.normal(size=(rows, 9, 3)).astype(np.float32)
        audio[:, 5:] = 0
        vision[:, :2] = 0  # the aligned files pad in front
        audio[0, 1, 2] = -np.inf
        audio[1] = 0
        score = np.linspace(-3, 3, rows)
        parts[part] = {
            "raw_text": [f"it was {part} number {i}" for i in range(rows)],
            "audio": audio,
            "vision": vision,
            "text": draw.normal(size=(rows, 6, 4)).astype(np.float32),
            "text_bert": np.zeros((rows, 3, 6)),
            "id": np.array([f"{part}{i // 2}$_${i}" for i in range(rows)]),
            "annotations": [["Negative", "Neutral", "Positive"][1 + int(np.sign(s))] for s in score],
            "classification_labels": (1 + np.sign(score)).astype(np.float64),
            "regression_labels": score,
        }
        if lengths:
            parts[part] |= {"audio_lengths": [3] * rows, "vision_lengths": [9] * rows}
    return parts


@pytest.fixture
def mosi(tmp_path):
    path = tmp_path / "aligned_50.pkl"
    path.write_bytes(pickle.dumps(mmsa()))
    return path


def test_mosi(tmp_path, mosi):
    made = convert("mosi", mosi, tmp_path / "out")
    rows = rows_of(made)
    assert made.rows == {"train": 4, "val": 4, "test": 4}
    assert [rows[0][k] for k in ("id", "group", "split", "text")] == [
        *("train0$_$0", "train0", "train", "it was train number 0")
    ]
    assert rows[0]["score"] == -3 and rows[0]["sentiment"] == "negative"
    assert "3 feature values" not in " ".join(made.notes) and len(made.notes) == 3
    original = mmsa()["train"]
    audio = read_features(rows[2]["audio"], tmp_path / "out")
    np.testing.assert_allclose(audio, original["audio"][2, :5], rtol=1e-6)  # the padding is gone
    vision = read_features(rows[2]["vision"], tmp_path / "out")
    np.testing.assert_array_equal(vision, original["vision"][2, 2:])
    assert rows[1]["audio"] is None  # nothing was measured: the modality is missing
    assert read_features(rows[0]["audio"], tmp_path / "out")[1, 2] == 0

    table = open_table(tmp_path / "out")
    columns = infer_columns(table, label="score")
    assert columns.modalities == {"text": "text", "audio": "features", "vision": "features"}
    assert columns.task == "number"
    parts = split_rows(table, columns)
    assert {name: len(found) for name, found in parts.items()} == {"train": 4, "val": 4, "test": 4}


def test_lengths_and_features_of_texts(tmp_path):
    path = tmp_path / "unaligned.pkl"
    path.write_bytes(pickle.dumps(mmsa(lengths=True)))
    rows = rows_of(convert("sims", path, tmp_path / "out", text="both"))
    assert len(read_features(rows[2]["audio"], tmp_path / "out")) == 3
    assert read_features(rows[2]["text_features"], tmp_path / "out").shape == (6, 4)
    rows = rows_of(convert("mosei", path, tmp_path / "other", text="features"))
    assert "text" not in rows[0] and rows[0]["text_features"]


def test_npz_gives_the_same(tmp_path, mosi):
    flat = {f"{part}/{key}": np.array(v) for part, arrays in mmsa().items() for key, v in arrays.items()}
    np.savez(tmp_path / "data.npz", **flat)
    assert rows_of(convert("mosi", tmp_path / "data.npz", tmp_path / "a")) == rows_of(
        convert("mosi", mosi, tmp_path / "b")
    )


def test_a_hostile_pickle_leaves_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch was_here",)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(mmsa() | {"more": Evil()}))
    with pytest.raises(DataError, match=r"(posix|nt)\.system"):
        convert("mosi", path, tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"evil.pkl"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda part: part.pop("id"), "'id' must be"),
        (lambda part: part.update(audio=np.zeros((2, 3))), "'audio' must be an array"),
        (lambda part: part.update(audio=[1, 2, 3, 4]), "'audio' must be an array"),
        (lambda part: part.update(audio=np.array([["a"]] * 4)), "must hold numbers"),
        (lambda part: part.update(raw_text=["one"]), "a list or array of 4"),
        (lambda part: part.update(raw_text=[["a"]] * 4), "more than texts"),
        (lambda part: part.update(regression_labels=[0.0, 1.0, float("nan"), 2.0]), "NaN"),
        (lambda part: part.update(id=["a", "b", "a", "c"]), "twice"),
        (lambda part: part.clear(), "'id'"),
    ],
)
def test_what_is_not_of_the_layout_is_named(tmp_path, change, message):
    parts = mmsa()
    change(parts["valid"])
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(parts))
    with pytest.raises(DataError, match=message):
        convert("mosi", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_meld(tmp_path):
    head = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season\n"
    source = tmp_path / "MELD"
    for part in ("train", "dev"):
        (source / f"{part}_splits").mkdir(parents=True)
        (source / f"{part}_splits" / "dia0_utt0.mp4").write_bytes(part.encode())
        text = head + '1,"It\x92s me, hi",Joey,joy,positive,0,0,8\n2,No.,Ross,anger,negative,0,1,8\n'
        (source / f"{part}_sent_emo.csv").write_bytes(text.encode("latin-1"))
    made = convert("meld", source, tmp_path / "out")
    rows = {row["id"]: row for row in rows_of(made)}
    first = rows["train_dia0_utt0"]
    assert first["text"] == "It’s me, hi" and first["emotion"] == "joy" and first["sentiment"] == "positive"
    assert (tmp_path / "out" / first["clip"]).read_bytes() == b"train"
    assert (tmp_path / "out" / rows["val_dia0_utt0"]["clip"]).read_bytes() == b"dev"
    assert rows["val_dia0_utt1"]["clip"] is None and rows["val_dia0_utt1"]["split"] == "val"
    assert any("2 utterances have no clip" in note for note in made.notes)

    (source / "dev_sent_emo.csv").write_text(head.replace("Emotion", "Mood") + "1,a,b,c,d,0,0,1\n")
    with pytest.raises(DataError, match="Emotion"):
        convert("meld", source / "dev_sent_emo.csv", tmp_path / "again")


def test_iemocap(tmp_path):
    turn = "Ses01F_impro01_F00"
    session = tmp_path / "IEMOCAP" / "Session1"
    for folder in ("dialog/EmoEvaluation", "dialog/transcriptions", "sentences/wav/Ses01F_impro01"):
        (session / folder).mkdir(parents=True)
    (session / "dialog/EmoEvaluation/Ses01F_impro01.txt").write_text(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        f"[6.2901 - 8.2357]\t{turn}0\tneu\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
        f"[9.0 - 10.1]\t{turn}1\txxx\t[1.5000, 3.5000, 2.0000]\n"
    )
    (session / "dialog/transcriptions/Ses01F_impro01.txt").write_text(
        f"{turn}0 [006.2901-008.2357]: Excuse me.\n{turn}1 [009.0000-010.1000]: Do you?\n"
    )
    soundfile.write(session / f"sentences/wav/Ses01F_impro01/{turn}0.wav", np.zeros(1600), 16000)
    made = convert("iemocap", tmp_path / "IEMOCAP", tmp_path / "out")
    first, second = rows_of(made)
    assert first["emotion"] == "neutral" and first["text"] == "Excuse me." and first["group"] == "Session1"
    assert (tmp_path / "out" / first["audio"]).is_file()
    assert second["emotion"] is None and second["valence"] == 1.5 and second["audio"] is None


def test_wrong_use(tmp_path, mosi):
    with pytest.raises(ConfigError, match="Did you mean 'mosei'"):
        convert("moseii", mosi, tmp_path / "out")
    with pytest.raises(DataError, match="no such file"):
        convert("mosi", tmp_path / "absent.pkl", tmp_path / "out")
    convert("mosi", mosi, tmp_path / "out")
    with pytest.raises(ConfigError, match="not empty"):
        convert("mosi", mosi, tmp_path / "out")
    with pytest.raises(DataError, match="Session1"):
        convert("iemocap", tmp_path / "out", tmp_path / "other")


def test_the_command_says_where_the_table_is(tmp_path, mosi, capsys):
    command("mosi", mosi, tmp_path / "out")
    said = capsys.readouterr()
    assert said.out.strip() == str(tmp_path / "out" / "table.jsonl")
    assert "train: 4 rows" in said.err and "NaN or infinite" in said.err
