import html.parser
import re

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from motet.cli.app import app
from motet.explain.check_page import waveform
from tests.data.media_fakes import tone, write_wav


class Parsed(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.addresses, self.tags = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href")]


def write_table(folder, broken=True):
    lines = ["text,photo,sound,mood"]
    for i in range(6):
        Image.effect_noise((30, 30), 40 + i).save(folder / f"{i}.png")
        write_wav(folder / f"{i}.wav", tone(0.2, hertz=300 + 90 * i))
        lines.append(f"<script>alert({i})</script>,{i}.png,{i}.wav,{'uv'[i % 2]}")
    write_wav(folder / "2.wav", np.zeros(4000, np.float32))
    if broken:
        (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:99])
    (folder / "t.csv").write_text("\n".join(lines))
    return folder / "t.csv"


def test_page_holds_everything_and_runs_nothing_from_the_table(tmp_path):
    table = write_table(tmp_path)
    done = CliRunner().invoke(
        app, ["check", str(table), "--label", "mood", "--html", str(tmp_path / "p.html")]
    )
    assert done.exit_code == 3 and "NOT usable" in done.stdout
    text = (tmp_path / "p.html").read_text()
    parsed = Parsed(text)
    assert all(address.startswith(("data:", "#")) for address in parsed.addresses)
    assert parsed.tags.count("script") == 1 and "<script>alert" not in text
    assert "Not usable" in text and "truncated" in text and "silent" in text
    assert any(address.startswith("data:image/webp") for address in parsed.addresses) or "svg" in parsed.tags


def test_page_of_a_good_table_says_so(tmp_path):
    table = write_table(tmp_path, broken=False)
    write_wav(tmp_path / "2.wav", tone(0.3, hertz=3000))
    done = CliRunner().invoke(app, ["check", str(table), "--html", str(tmp_path / "p.html")])
    assert done.exit_code == 0 and "Usable" in (tmp_path / "p.html").read_text()


def test_silence_is_a_line_and_full_scale_fills_the_height():
    heights = [float(h) for h in re.findall(r"v([\d.]+)h", waveform(np.zeros(1600, np.float32)))]
    assert max(heights) == 0
    heights = [float(h) for h in re.findall(r"v([\d.]+)h", waveform(np.ones(1600, np.float32)))]
    assert min(heights) == 52
