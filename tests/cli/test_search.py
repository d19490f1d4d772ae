"""`motet index` and `motet search` over a stand-in for a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from motet.cli.app import app
from motet.errors import ConfigError
from motet.predictor import Predictor
from motet.predictor.inputs import Entry
from tests.index.test_index import GOODS, WordModel

Run = Callable[..., Result]


class FileModel(WordModel):
    """Reads its rows from a JSONL file."""

    def entries(self, rows: Any, *, root: Any = None) -> list[Entry]:
        if isinstance(rows, Path):
            rows = [json.loads(line) for line in rows.read_text().splitlines()]
        return super().entries(rows, root=root)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in a folder that has two models, `one` and `two`, and a table."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    (tmp_path / "goods.jsonl").write_text("\n".join(map(json.dumps, GOODS)))

    def load(folder: Path, **_: Any) -> FileModel:
        return FileModel(Path(folder), Path(folder).name * 20)

    monkeypatch.setattr(Predictor, "load", staticmethod(load))
    return lambda *words: CliRunner().invoke(app, list(words))


def found(result: Result) -> list[str]:
    assert result.exception is None, result.exception
    return [json.loads(line)["id"] for line in result.stdout.splitlines()]


def test_rows_are_indexed_found_paged_and_summed(run: Run) -> None:
    built = run("index", "one", "goods.jsonl", "--out", "shop.index", "--json")
    assert json.loads(built.stdout) | {"index": ""} == {
        "index": "", "rows": 4, "store": "exact", "added": 4, "replaced": 0, "unchanged": 0,
        "empty": 0, "broken": 0,
    }  # fmt: skip
    search = ("search", "shop.index", "--json")
    assert found(run(*search, "blue dress", "--top", "1")) == ["d2"]
    assert found(run(*search, "blue", "--like", "d1", "--top", "1")) == ["d2"]
    assert set(found(run(*search, "straw hat", "for dancing", "--top", "2"))) == {"h1", "s1"}
    whole = found(run(*search, "dress", "--top", "4"))
    page = run(*search, "dress", "--top", "2", "--offset", "2")
    assert found(page) == whole[2:] and json.loads(page.stdout.splitlines()[0])["rank"] == 3
    assert len(found(run(*search, "dress", "--distinct", "colour"))) == 3
    assert found(run(*search, "dress", "--where", "price > 50")) == ["d2"]
    assert "straw hat" in run("search", "shop.index", "straw hat").stdout


def test_a_page_is_written(run: Run, tmp_path: Path) -> None:
    run("index", "one", "goods.jsonl", "--out", "shop.index")
    result = run("search", "shop.index", "red shoes", "--html", "found.html")
    assert "red shoes" in (tmp_path / "found.html").read_text("utf-8") and result.exception is None


def test_an_index_goes_over_to_another_model(run: Run) -> None:
    run("index", "one", "goods.jsonl", "--out", "shop.index")
    refused = run("index", "two", "goods.jsonl", "--out", "shop.index")
    assert "--reembed" in str(refused.exception)
    again = run("index", "two", "--out", "shop.index", "--reembed", "--json")
    assert json.loads(again.stdout)["rows"] == 4
    assert found(run("search", "shop.index", "blue dress", "--top", "1", "--json")) == ["d2"]
    assert (
        json.loads(run("index", "two", "goods.jsonl", "--out", "shop.index", "--json").stdout)["unchanged"]
        == 4
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["index", "one", "--out", "shop.index"], "give a TABLE"),
        (
            ["index", "one", "goods.jsonl", "--out", "new.index", "--store", "elastic"],
            "There are: exact, lancedb",
        ),
        (["index", "one", "goods.jsonl", "--out", "shop.index", "--store", "lancedb"], "is kept in exact"),
        (["search", "shop.index"], "give a query"),
        (["search", "shop.index", "--like", "nobody"], "no row has the id 'nobody'"),
    ],
)
def test_wrong_use_is_named(run: Run, words: list[str], said: str) -> None:
    run("index", "one", "goods.jsonl", "--out", "shop.index")
    result = run(*words)
    assert isinstance(result.exception, ConfigError) and said in str(result.exception)


def test_lancedb_is_chosen_by_name(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("lancedb", reason="lancedb is not installed (extra index)")
    built = run("index", "one", "goods.jsonl", "--out", "shop.index", "--store", "lancedb", "--json")
    assert json.loads(built.stdout)["store"] == "lancedb"
    assert found(run("search", "shop.index", "blue dress", "--top", "1", "--json")) == ["d2"]
