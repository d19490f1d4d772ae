"""`motet explain` on a fitted model: one input, one row beside a result, a whole table."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import motet
from motet.cli.app import app
from motet.errors import ConfigError
from motet.predictor import Predictor
from tests.explain.test_report import Checker
from tests.test_predictor import SMALL, write_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def model(table: Path) -> Predictor:
    return motet.fit(
        table,
        label="mood",
        retrieval=True,
        out=table.parent / "run",
        settings=SMALL,
        preset="scratch",
        device="cpu",
    )


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["explain", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_one_row_as_page_numbers_and_pictures(model: Predictor, table: Path, tmp_path: Path) -> None:
    said = run(
        model.folder, table, "--row", "r3", "--out", tmp_path / "r.html", "--json", "--png", tmp_path / "v"
    )
    numbers = json.loads(said)
    page = (tmp_path / "r.html").read_text("utf-8")
    Checker(page)
    assert numbers["said"][0] in page and numbers["title"] == "a red thing number 3"
    assert set(numbers["units"]["modality"]) == {"text", "picture", "sound"}
    assert set(numbers["without"]) == {"", "text", "picture", "sound"}
    said = model.predict({"text": "a red thing number 3", "picture": table.parent / "3.png",
                          "sound": table.parent / "3.wav"})  # fmt: skip
    assert numbers["without"][""] == pytest.approx(max(said["scores"].values()), abs=1e-4)
    assert {"answer-text.png", "answer-picture.svg", "answer-sound.png", "deletion.png"} <= {
        path.name for path in (tmp_path / "v").iterdir()
    }


def test_a_query_beside_what_was_found(model: Predictor, table: Path, tmp_path: Path) -> None:
    index = motet.Index.create(tmp_path / "colours.index", model)
    index.add(table)
    out = tmp_path / "r.html"
    beside = ("--index", index.path, "--against", "r4")
    whole = json.loads(run(model.folder, "a blue thing", *beside, "--out", out, "--json"))["meeting"]
    assert set(whole["result_modality"]) == {"text", "picture", "sound"}
    part = json.loads(
        run(model.folder, "a blue thing", *beside, "--modality", "picture", "--out", out, "--json")
    )["meeting"]
    assert set(part["result_modality"]) == {"picture"}
    vectors = model.encode(["a blue thing", {"picture": table.parent / "4.png"}])
    assert part["cosine"] == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-4)
    page = out.read_text("utf-8")
    Checker(page)
    assert page.count("met the picture") == len(part["query_labels"])
    with pytest.raises(ConfigError, match="--row"):
        model.explain(table, index=index, against="r4")
    with pytest.raises(ConfigError, match="'smell'"):
        model.explain("a thing", index=index, against="r4", modality="smell")


def test_a_whole_table(model: Predictor, table: Path, tmp_path: Path) -> None:
    said = run(
        model.folder, table, "--rows", 4, "--out", tmp_path / "t.html", "--json", "--png", tmp_path / "v"
    )
    numbers = json.loads(said)
    assert len(numbers["rows"]) == 4 < numbers["of"]
    assert numbers["modalities"] == ["text", "picture", "sound"]
    assert {row["truth"] for row in numbers["rows"]} <= {"warm", "cold"}
    assert (tmp_path / "v" / "listens.png").is_file()
    Checker((tmp_path / "t.html").read_text("utf-8"))
    again = model.explain(table, rows=4).to_dict()
    assert [row["id"] for row in again["rows"]] == [row["id"] for row in numbers["rows"]]
