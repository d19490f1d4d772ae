import json
import wave

import numpy as np
import pytest
from PIL import Image

from motet.data.check import check_table
from motet.errors import ConfigError


def picture(path, value=None, seed=0, size=16):
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels if value is None else np.full_like(pixels, value)).save(path)


def sound(path, seconds=0.5, volume=0.3, seed=0):
    samples = np.random.default_rng(seed).normal(0, volume * 32767 / 3, int(16_000 * seconds))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(np.clip(samples, -32767, 32767).astype("<i2").tobytes())


@pytest.fixture
def good(tmp_path):
    """120 sound rows: (folder, rows as lists of cells)."""
    rows = []
    for i in range(120):
        picture(tmp_path / f"{i}.png", seed=i)
        sound(tmp_path / f"{i}.wav", seconds=0.3 + i / 1000, seed=i)
        rows.append([f"{i}", f"a text {i}", f"{i}.png", f"{i}.wav", "uv"[i % 2], ("train", "test")[i > 90]])
    return tmp_path, rows


def check(folder, rows, header="id,text,picture,sound,label,split", **kwargs):
    (folder / "t.csv").write_text(header + "\n" + "".join(",".join(row) + "\n" for row in rows))
    return check_table(folder / "t.csv", **kwargs)


def found(report):
    return {(f.level, f.rule, f.column): f.lines for f in report.findings}


def test_a_good_table_has_no_findings(good):
    report = check(*good)
    assert report.findings == () and report.usable and report.broken == 0
    assert report.labels == {"u": 60, "v": 60} and report.parts == {"train": 91, "val": 0, "test": 29}
    assert report.words == {"text": (3.0, 3)}
    assert report.lines()[-1].startswith("usable: 0 of 120 rows broken")


def test_each_trouble_is_found_on_its_line(good):
    folder, rows = good
    picture(folder / "3.png", value=0)
    picture(folder / "4.png", value=90)
    sound(folder / "5.wav", volume=0)
    sound(folder / "6.wav", seconds=0.05)
    (folder / "7.png").write_bytes((folder / "8.png").read_bytes())
    Image.open(folder / "9.png").save(folder / "9.png", format="JPEG")
    rows[95][1] = rows[94][1].upper()
    (folder / "96.png").write_bytes((folder / "10.png").read_bytes())  # training row 10, test row 96
    whole = (folder / "11.wav").read_bytes()
    (folder / "11.wav").write_bytes(whole[: len(whole) // 2])
    rows[12][1] = rows[12][2] = rows[12][3] = ""
    rows[13][2] = "none.png"
    rows[14][2] = "../secret.png"
    rows[15][2] = "http://127.0.0.1/a.png"
    report = check(folder, rows)
    assert found(report) == {
        ("error", "missing file", "picture"): (15,),
        ("error", "refused path", "picture"): (16, 17),
        ("error", "truncated", "sound"): (13,),
        ("error", "empty row", ""): (14,),
        ("warning", "black", "picture"): (5,),
        ("warning", "one colour", "picture"): (6,),
        ("warning", "silent", "sound"): (7,),
        ("warning", "too short", "sound"): (8,),
        ("warning", "repeated", "picture"): (9, 10, 12, 98),
        ("warning", "wrong ending", "picture"): (11,),
        ("warning", "leakage", "split"): (12, 98),
        ("note", "repeated", "text"): (96, 97),
    }
    assert report.broken == 5 and not report.usable
    assert json.loads(json.dumps(report.to_dict()))["usable"] is False
    text = "\n".join(report.lines())
    assert "line 12 in train and line 98 in test" in text and "NOT usable: 5 of 120" in text


def test_labels_out_of_balance_and_few(good):
    folder, rows = good
    for i, row in enumerate(rows):
        row[4] = "rare" if i < 2 else "common"
    messages = {f.rule: f.message for f in check(folder, rows).findings}
    assert messages == {
        "few labels": "the class 'rare' has 2 rows",
        "unbalanced": "98% of the labels are 'common'",
    }


def test_features_of_other_lengths_are_errors(tmp_path):
    rows = [[f'"[1, {i}]"'] for i in range(9)] + [['"[1, 2, 3]"']]
    report = check(tmp_path, rows, header="vector")
    assert found(report) == {("error", "shape", "vector"): (11,)}


def test_overrides_reach_the_columns(good):
    folder, rows = good
    report = check(folder, rows, columns={"sound": "ignore"})
    assert set(report.filled) == {"text", "picture"}
    with pytest.raises(ConfigError, match="no column 'sund'"):
        check(folder, rows, columns={"sund": "audio"})


def test_near_duplicates_and_what_leaks_by_them(good):
    folder, rows = good
    for i in (20, 100):  # a training and a test row
        Image.linear_gradient("L").resize((40 + i, 40 + i)).convert("RGB").save(folder / f"{i}.png")
    sounds = np.random.default_rng(7).normal(0, 1, 16_000) * np.repeat([0.02, 0.2], 8000)
    for i, loud in ((30, 1.0), (31, 0.5)):
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((sounds * loud * 20_000).astype("<i2").tobytes())
    report = check(folder, rows)
    assert found(report) == {
        ("note", "near-duplicate", "picture"): (22, 102),
        ("note", "near-duplicate", "sound"): (32, 33),
        ("warning", "near leakage", "split"): (22, 102),
    }
    assert [f.rows for f in report.findings if f.rule == "near leakage"] == [(20, 100)]


def test_several_labels_are_counted(good):
    folder, rows = good
    for i, row in enumerate(rows):
        row[4] = "u|v" if i == 0 else "u"
    report = check(folder, rows, columns={"label": "multilabel"})
    assert report.labels == {"u": 120, "v": 1}
    assert ("warning", "few labels", "label") in found(report)


def test_transcripts_are_read_in_their_column_and_beside_sounds(tmp_path):
    cue = "1\n00:00:00,100 --> 00:00:00,200\nhello\n"
    for i in range(5):
        sound(tmp_path / f"{i}.wav", seed=i)
        (tmp_path / f"{i}.srt").write_text(cue if i < 3 else "1\nno times\nhello\n")
    (tmp_path / "said.json").write_text('[{"word": "hi", "start": 2, "end": 1}]')
    rows = [
        ["", "0.wav"],
        ["1.srt", "1.wav"],
        ["said.json", "2.wav"],
        ["plain words", "3.wav"],
        ["", "4.wav"],
    ]
    report = check(tmp_path, rows, "transcript,voice")
    assert found(report) == {
        ("error", "transcript", "transcript"): (4,),
        ("error", "transcript", "voice"): (6,),  # 3.srt is as broken, but row 5 has words of its own
    }
    assert "4.srt" in report.findings[1].message and "line 2" in report.findings[1].message
