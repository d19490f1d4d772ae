"""A word whose feeling is told by the utterance before it, and nowhere else."""

import json
from collections.abc import Sequence

import numpy as np
import pytest

from motet.cli.predict import predict as command
from motet.data.columns import infer_columns
from motet.data.context import context_specs, in_context, is_conversation, neighbours
from motet.data.groups import group_rows
from motet.data.table import open_table
from motet.errors import ConfigError
from motet.predictor import Predictor
from motet.train.fit import fit
from motet.train.run import Reporter
from motet.types import ModalitySpec, Piece

SETTINGS = (
    *("train.epochs=30", "model.width=32", "model.depth=2", "train.batch_size=32", "data.before=1"),
    *("train.lr=5e-3", "model.head_dropout=0.1", "text.vocab=300"),
)


def write_talks(path, talks=60, turns=5, seed=0):
    """Every utterance is one of two words; its label is the word said before it. Rows in random order."""
    draw = np.random.default_rng(seed)
    rows = []
    for talk in range(talks):
        said = draw.integers(2, size=turns)
        for turn in range(1, turns):
            words = ("sun", "rain")
            row = {"id": f"{talk}-{turn}", "context": f"talk {talk}", "order": turn}
            rows.append(row | {"text": words[said[turn]], "label": words[said[turn - 1]]})
        rows.append({"id": f"{talk}-0", "context": f"talk {talk}", "order": 0, "text": words[said[0]]})
    draw.shuffle(rows)
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_talks(tmp_path_factory.mktemp("talks") / "talks.jsonl")


@pytest.fixture(scope="module")
def model(table):
    return train(table, table.parent / "run", SETTINGS)


def train(table, out, settings: Sequence[str]):
    return fit(
        table, label="label", out=out, settings=settings, preset="scratch", progress=Reporter(quiet=True)
    )


def test_what_was_said_before_is_learnt_with_context_only(table, model, tmp_path):
    metrics = json.loads((model / "metrics.json").read_text())["tasks"]["label"]
    assert metrics["full"]["accuracy"] > 0.95
    assert [row["modality"] for row in metrics["helps"]] == ["text", "text_before"]
    assert metrics["helps"][1]["with"] - metrics["helps"][1]["without"] > 0.2

    blind = train(table, tmp_path / "blind", (*SETTINGS[:-1], "data.before=0"))
    without = json.loads((blind / "metrics.json").read_text())["tasks"]["label"]
    assert without["full"]["accuracy"] < 0.75
    assert Predictor.load(blind).modalities == ("text",)


def test_prediction_sees_what_evaluation_saw(table, model, tmp_path, capsys):
    fresh = write_talks(tmp_path / "fresh.jsonl", talks=20, seed=1)
    truth = {row["id"]: row.get("label") for row in map(json.loads, fresh.read_text().splitlines())}
    predictor = Predictor.load(model)
    said = {row["id"]: row for row in predictor.predict_table(fresh)}
    right = [said[id]["label"] == word for id, word in truth.items() if word]
    assert np.mean(right) > 0.95
    measured = predictor.evaluate(fresh)["tasks"]["label"]["full"]["accuracy"]
    assert measured == pytest.approx(np.mean(right))
    assert said["0-1"]["modalities"] == ["text", "text_before"] and said["0-0"]["modalities"] == ["text"]
    assert predictor.predict("sun")["modalities"] == ["text"]  # no conversation around it: missing
    command(model, str(fresh), json=True)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["status"] == "ok"
    report = predictor.explain(fresh, row="0-1").to_dict()
    assert "text_before" in json.dumps(report)


def test_neighbours_by_their_order_whatever_the_rows(tmp_path):
    rows = [("b", 2), ("a", 1), ("b", 1), (None, 7), ("b", 10), ("a", 0)]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps({"text": "x", "talk": t, "n": n}) for t, n in rows))
    near = neighbours(open_table(path), "talk", "n", 2, 1)
    assert near == [((2,), (4,)), ((5,), ()), ((), (0,)), ((), ()), ((2, 0), ()), ((), (1,))]
    assert neighbours(open_table(path), "talk", None, 1, 0)[4] == ((2,), ())


def piece(*times, value=0.0):
    return Piece(
        np.full((len(times), 2), value, np.float32), np.array(times, np.float32), labels=("w",) * len(times)
    )


def test_neighbours_stand_before_and_behind_on_one_clock():
    own = {"text": piece(0, 1), "sound": piece(0, 2)}  # two seconds long
    made = in_context(
        own, [{"text": piece(0, 3, value=1)}, {"text": piece(0, 1, value=2)}], [{"sound": piece(0, 1)}]
    )
    assert set(made) == {"text", "sound", "text_before", "sound_after"}
    assert made["text"] is own["text"]
    assert made["text_before"].time.tolist() == [-5.0, -2.0, -1.5, -0.5]  # half a second between utterances
    assert made["text_before"].values[:, 0].tolist() == [1, 1, 2, 2]
    assert made["text_before"].labels == ("w",) * 4
    assert made["sound_after"].time.tolist() == [2.5, 3.5]


def test_columns_are_found_and_a_conversation_stays_in_one_part(table, tmp_path):
    opened = open_table(table)
    columns = infer_columns(opened, label="label")
    assert (columns.context, columns.order) == ("context", "order")
    groups = group_rows(opened, columns)
    talks = {}
    for group, talk in zip(groups, opened.column("context"), strict=True):
        talks.setdefault(talk, set()).add(group)
    assert len(talks) == 60 and all(len(found) == 1 for found in talks.values())
    assert not is_conversation(["a long text that someone wrote down", "a long text that someone wrote down"])
    assert not is_conversation(["1", "2", "3"])

    path = tmp_path / "questions.jsonl"  # a column of this name that is something else
    path.write_text(
        "\n".join(json.dumps({"context": f"a text of {i} words to read", "label": i % 2}) for i in range(30))
    )
    read = infer_columns(open_table(path))
    assert read.context is None and read.modalities == {"context": "text"}


def test_a_name_that_is_taken_is_an_error():
    specs = [ModalitySpec(name, "text", "ids", 5) for name in ("text", "text_before")]
    with pytest.raises(ConfigError, match="text_before"):
        context_specs(specs, 1, 0)
    assert [s.name for s in context_specs(specs[:1], 1, 1)] == ["text", "text_before", "text_after"]
    with pytest.raises(ConfigError, match="at least 0"):
        context_specs(specs, -1, 0)
