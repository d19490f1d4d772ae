import json

import pytest

from motet.data.quarantine import SHOWN, Quarantine
from motet.errors import DataError


def test_row_is_written_said_and_counted_once(tmp_path, capsys):
    path = tmp_path / "run" / "quarantine.jsonl"
    quarantine = Quarantine(path, limit=0.5)
    for _ in range(2):
        quarantine.add("t.csv", 7, "photo", "a.jpg", "truncated", "the picture is cut")
    quarantine.add("t.csv", 7, "sound", "a.wav", "missing", "no file")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert entries == quarantine.rows and len(entries) == 2
    assert entries[0] == {
        "table": "t.csv", "line": 7, "column": "photo", "file": "a.jpg", "rule": "truncated",
        "message": "the picture is cut",
    }  # fmt: skip
    assert quarantine.count == 1
    assert "t.csv, line 7, column 'photo': the picture is cut" in capsys.readouterr().err
    quarantine.check(2)
    with pytest.raises(DataError, match=r"1 of 1 rows.*line 7"):
        quarantine.check(1)


def test_new_quarantine_begins_its_file_anew(tmp_path):
    path = tmp_path / "q.jsonl"
    for _ in range(2):
        Quarantine(path).add("t", 1, "c", None, "r", "m")
    assert len(path.read_text().splitlines()) == 1


def test_stderr_is_not_flooded(capsys):
    quarantine = Quarantine(None)
    for line in range(SHOWN + 30):
        quarantine.add("t", line, "c", None, "r", "m")
    assert len(capsys.readouterr().err.splitlines()) == SHOWN + 1
    assert len(quarantine.rows) == SHOWN + 30
