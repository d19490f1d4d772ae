import io
import json
import sys
import types

import pytest
from PIL import Image
from typer.testing import CliRunner

from motet.cli.app import app
from motet.data.builtin.tuxpaint import HOME, INSTALL, build_tuxpaint, find_stamps
from motet.data.columns import infer_columns
from motet.data.table import open_table
from motet.errors import ConfigError
from tests.data.media_fakes import tone, write_wav

installed = pytest.mark.skipif(not HOME.is_dir(), reason=f"the stamps are not installed: {INSTALL}")


@pytest.fixture
def home(tmp_path):
    """Six stamps, one of them an SVG, two of one caption."""
    folder = tmp_path / "stamps" / "animals" / "small"
    folder.mkdir(parents=True)
    for i, caption in enumerate(["A cat.", "a  CAT.", "A dog.", "A cow.", "A bird.", "A fish."]):
        (folder / f"{i}.txt").write_text(f"{caption}\nes.utf8=Un animal {i}\nnot a line\nfr.utf8=\n")
        if i == 5:
            (folder / "5.svg").write_text("<svg/>")
        else:
            Image.new("RGBA", (30, 30), (40 * i, 0, 0, 255)).save(folder / f"{i}.png")
        write_wav(folder / f"{i}_desc_es.ogg", tone(0.1, hertz=200 + 50 * (i if i < 5 else 3)))
    write_wav(folder / "2.wav", tone(0.2))
    (folder / "7.txt").write_text("A caption alone.\n")
    (folder / "8.txt").write_text("")
    return tmp_path / "stamps"


@pytest.fixture(autouse=True)
def no_svg(monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)


def test_svg_stamps_are_drawn_where_resvg_is_installed(home, tmp_path, monkeypatch):
    def draw(text, *, width, skip_system_fonts):
        assert "<svg" in text and skip_system_fonts
        out = io.BytesIO()
        Image.new("RGB", (width, 10), "teal").save(out, "PNG")
        return out.getvalue()

    build_tuxpaint(tmp_path / "out", language="es", home=home)
    monkeypatch.setitem(sys.modules, "resvg_py", types.SimpleNamespace(svg_to_bytes=draw))
    table = open_table(build_tuxpaint(tmp_path / "out", language="es", home=home))  # made again
    assert table.row(5)["picture"] == "media/animals/small/5.png"
    assert Image.open(table.root / table.row(5)["picture"]).size == (400, 10)
    assert json.loads((tmp_path / "out" / "tuxpaint.json").read_text())["skipped"] == []

    def broken(text, *, width, skip_system_fonts):
        raise ValueError("unknown token")

    monkeypatch.setitem(sys.modules, "resvg_py", types.SimpleNamespace(svg_to_bytes=broken))
    table = open_table(build_tuxpaint(tmp_path / "other", language="es", home=home))
    assert table.row(5)["picture"] is None
    assert json.loads((tmp_path / "other" / "tuxpaint.json").read_text())["skipped"] == ["animals/small/5"]


def test_resvg_itself_draws(tmp_path):
    sys.modules.pop("resvg_py")
    resvg = pytest.importorskip("resvg_py", reason="the extra svg is not installed")
    square = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><rect width="2" height="1"/></svg>'
    drawn = Image.open(io.BytesIO(resvg.svg_to_bytes(square, width=400, skip_system_fonts=True)))
    assert drawn.size == (400, 200)


def test_stamps_become_a_table(home, tmp_path):
    path = build_tuxpaint(tmp_path / "out", language="es", home=home)
    table = open_table(path)
    assert len(table) == 6
    row = table.row(2)
    assert (row["id"], row["caption"], row["caption_own"]) == ("animals/small/2", "A dog.", "Un animal 2")
    assert row["category"] == "animals" and (table.root / row["sound"]).is_file()
    assert table.row(5)["picture"] is None and table.row(5)["speech"]
    groups = list(table.column("group"))
    assert groups[0] == groups[1]  # one caption
    assert groups[3] == groups[5] and len(set(groups)) == 4  # one recording
    parts = dict(zip(groups, table.column("split"), strict=True))
    assert list(table.column("split")) == [parts[group] for group in groups]
    assert json.loads((tmp_path / "out" / "tuxpaint.json").read_text())["skipped"] == ["animals/small/5"]
    before = path.stat().st_mtime_ns
    assert build_tuxpaint(tmp_path / "out", language="es", home=home).stat().st_mtime_ns == before
    (tmp_path / "out" / row["picture"]).unlink()
    build_tuxpaint(tmp_path / "out", language="es", home=home)
    assert (tmp_path / "out" / row["picture"]).is_file()


def test_what_cannot_be_built_is_one_clear_error(home, tmp_path):
    with pytest.raises(ConfigError, match=INSTALL):
        find_stamps("es", tmp_path / "none")
    with pytest.raises(ConfigError, match="no stamp below"):
        find_stamps("fr", home)
    with pytest.raises(ConfigError, match="expected a code"):
        find_stamps("../es", home)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(ConfigError, match="other files"):
        build_tuxpaint(tmp_path / "mine", language="es", home=home)


@installed
def test_installed_stamps_are_spoken_by_people_in_many_languages(tmp_path):
    spoken = {lang: sum(s.speech is not None for s in find_stamps(lang)) for lang in ("es", "fr", "en")}
    assert spoken["es"] > 800 and spoken["fr"] > 800 and spoken["en"] > 20
    stamps = find_stamps("es")
    assert len({s.caption for s in stamps}) > 700 and {"animals", "food"} <= {s.category for s in stamps}


@installed
def test_command_writes_a_table_whose_columns_are_understood(tmp_path):
    out = tmp_path / "stamps"
    done = CliRunner().invoke(app, ["builtin", "tuxpaint", "--out", str(out), "--language", "es", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    columns = infer_columns(open_table(said["table"]))
    assert columns.modalities == {
        "picture": "image",
        "caption": "text",
        "caption_own": "text",
        "speech": "audio",
        "sound": "audio",
    }
    assert columns.group == "group" and columns.split == "split"
