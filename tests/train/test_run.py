from __future__ import annotations

from pathlib import Path

import pytest

from motet.errors import ConfigError, DataError, MismatchError
from motet.train.fit import fit
from motet.train.run import Reporter, RunFolder


def test_a_run_is_neither_overwritten_nor_continued_with_other_settings(tmp_path: Path) -> None:
    identity = {"seed": 0, "config": {"train": {"lr": 0.001}}, "table": "abc"}
    run = RunFolder(tmp_path / "run", identity)
    run.log({"kind": "step", "loss": float("nan")})
    with pytest.raises(ConfigError, match="--resume"):
        RunFolder(tmp_path / "run", identity)
    assert RunFolder(tmp_path / "run", identity, resume=True).resume
    changed = {"seed": 0, "config": {"train": {"lr": 0.01}}, "table": "abc"}
    with pytest.raises(MismatchError, match=r"config\.train\.lr") as caught:
        RunFolder(tmp_path / "run", changed, resume=True)
    assert caught.value.exit_code == 4
    assert run.history() == [{"kind": "step", "loss": None}]


def test_resuming_what_never_began_begins(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path / "new", {"seed": 0}, resume=True).resume


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"not a run \(thesis\.txt"):
        RunFolder(tmp_path, {"seed": 0}, resume=True)


def test_plain_lines_where_stderr_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    for done in range(1, 101):
        reporter.update(done, 100, "train", f"loss {1 / done:.2f}")
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.splitlines() == ["train: 100/100 loss 0.01"]


def test_a_run_that_never_began_leaves_the_folder_to_the_next(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("text,picture,mood\n" + "".join(f"word {i},p{i}.png,{'ab'[i % 2]}\n" for i in range(12)))
    for _ in range(2):  # and not "already holds a run"
        with pytest.raises(DataError, match="rows cannot be used"):
            fit(table, label="mood", out=tmp_path / "run", preset="scratch")
        assert [p.name for p in (tmp_path / "run").iterdir()] == ["quarantine.jsonl"]
        lines = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
        assert 0 < len(lines) <= 12  # of this run alone
