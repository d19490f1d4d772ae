"""The commands as a shell sees them: what they import, print and return."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from motet import __version__
from motet.cli import main
from motet.cli.output import emit

HEAVY = ("torch", "numpy", "pydantic", "PIL", "pyarrow", "rich.console")


def run(*arguments: str, cwd: Path, **options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options}
    return subprocess.run(
        [sys.executable, "-m", "motet", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_help_lists_the_commands_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['motet', '--help']\n"
        "from motet.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], code or 0, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr.strip() == "[] 0"
    listed = done.stdout.split("Commands:")[1].split("\n")
    assert [line.split()[0] for line in listed if line.strip()] == [
        *("demo", "check", "convert", "fit", "runs", "evaluate"),
        *("predict", "index", "search", "explain", "serve", "export", "builtin"),
    ]


def test_importing_motet_imports_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, motet; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_can_be_had() -> None:
    import motet

    for name in motet.__all__:
        assert getattr(motet, name).__name__ == name
        assert name in dir(motet)
    with pytest.raises(AttributeError, match="no attribute 'train_me'"):
        _ = motet.train_me


def test_the_version(tmp_path: Path) -> None:
    done = run("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"motet {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["sing"], 2, "No such command"),
        (["serve"], 2, "Missing argument"),
        (["serve", "nowhere"], 2, "nowhere: does not exist"),
        (["fit"], 2, "Missing argument"),
        (["search", "x.index", "words", "--top", "0"], 2, "--top"),
        (["search", "x.index", "words"], 2, "x.index: there is no such folder"),
        (["predict", "nowhere", "words"], 2, "nowhere: does not exist"),
        (["predict", ".", "words"], 2, "has no manifest.json"),
        (["check", "nowhere.csv"], 3, "no such file"),
        (["check", "empty.csv"], 3, "empty.csv"),
        (["check", "some.csv", "--set", "train.epochs=3"], 2, "takes columns.NAME=KIND"),
        (["fit", "nowhere.csv"], 3, "no such file"),
        (["fit", "some.csv", "--label", "feeling"], 2, "no column 'feeling'. Its columns: text, mood"),
        (["fit", "some.csv", "--label", "mood", "--preset", "slow"], 2, "--preset slow"),
        (["fit", "some.csv", "--label", "mood", "--set", "train.epoch=3"], 2, "epoch: unknown key"),
    ],
)
def test_wrong_use_is_one_clear_line_and_its_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    (tmp_path / "empty.csv").write_text("text,mood\n")
    (tmp_path / "some.csv").write_text("text,mood\nso good,happy\nso bad,sad\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["motet", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == code, err
    assert words in err and "Traceback" not in err
    assert out == ""


def test_a_demo_does_not_write_into_a_strangers_folder(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("x")
    done = run("demo", "--fast", "--out", "letters", cwd=tmp_path)
    assert done.returncode == 2 and "not a demo's folder" in done.stderr
    assert [p.name for p in (tmp_path / "letters").iterdir()] == ["dear.txt"]


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    lines = "\n".join(f"a text of some words number {i},happy" for i in range(50))
    (tmp_path / "some.csv").write_text(f"text,mood\n{lines}\nanother text,sad\n")
    command = f"{sys.executable} -m motet check some.csv | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.strip() in ("0", "1") and "Traceback" not in done.stderr


def test_json_is_one_line_and_always_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit({"a": float("nan"), "b": [1.5, None, True], "c": Path("x"), "d": {"e": "é\n"}})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": None, "b": [1.5, None, True], "c": "x", "d": {"e": "é\n"}}
