import contextlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.data import transcript, words
from motet.data.spoken import Spoken, placed, voiced
from motet.data.transcript import beside, read_transcript
from motet.errors import DataError
from tests.data.media_fakes import tone


def read(folder, name, text):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(data)
    return [(w.text, round(w.start, 3), round(w.end, 3)) for w in read_transcript(folder / name)]


TEXTGRID = '''File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 3
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 3
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 3
            text = "x"
    item [2]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 3
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1.5
            text = ""
        intervals [2]:
            xmin = 1.5
            xmax = 2
            text = "say ""no"""
        intervals [3]:
            xmin = 2
            xmax = 3
            text = "end"
'''
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
3
<exists>
1
"IntervalTier"
"words"
0
3
1
1.5
2
"hi"
"""
GOOD = {
    "a.srt": ("\ufeff1\r\n00:00:01,500 --> 00:00:02,5\r\n<i>Hello</i> you\r\n\r\n2\n"
              "01:00:03.000 --> 01:00:04.000\nend",
              [("Hello", 1.5, 2.125), ("you", 2.125, 2.5), ("end", 3603.0, 3604.0)]),
    "b.vtt": ("WEBVTT - x\nKind: captions\n\nNOTE a - b\n\nSTYLE\n::cue {}\n\nid 1\n"
              "00:01.000 --> 00:02.000 align:start\n"
              "<v Bob>a &amp; b\n\n00:02.000 --> 00:04.000\none <00:00:03.500>two\n",
              [("a", 1.0, 1.333), ("&", 1.333, 1.667), ("b", 1.667, 2.0),
               ("one", 2.0, 3.5), ("two", 3.5, 4.0)]),
    "c.json": ('[{"word": "b", "start": 2, "end": 3}, {"text": "a", "timestamp": [0.5, 1]}]',
               [("a", 0.5, 1.0), ("b", 2.0, 3.0)]),
    "d.json": ('{"text": "x y", "segments": [{"text": "x y", "start": 0, "end": 2}]}',
               [("x", 0.0, 1.0), ("y", 1.0, 2.0)]),
    "e.TextGrid": (TEXTGRID, [("say", 1.5, 1.714), ('"no"', 1.714, 2.0), ("end", 2.0, 3.0)]),
    "f.TextGrid": (SHORT, [("hi", 1.5, 2.0)]),
    "g.TextGrid": (SHORT.encode("utf-16"), [("hi", 1.5, 2.0)]),
    "h.ctm": (";; note\nrec 1 0.50 0.25 one\nrec 1 0.75 0.25 <eps>\nrec 1 1.00 0.25 two 0.9\n",
              [("one", 0.5, 0.75), ("two", 1.0, 1.25)]),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_each_format_places_its_words(tmp_path, name):
    text, expected = GOOD[name]
    assert read(tmp_path, name, text) == expected


BAD = {
    "backwards.srt": ("1\n00:00:02,000 --> 00:00:01,000\nx\n", "line 2: the cue ends"),
    "no_times.srt": ("1\n00:00:01,000 --> 00:00:02,000\nx\n\n2\nwhat is this\n", "line 6: expected times"),
    "minutes.srt": ("1\n00:99:01,000 --> 00:99:02,000\nx\n", "line 2"),
    "empty.srt": ("", "0 bytes"),
    "silent.srt": ("1\n00:00:01,000 --> 00:00:02,000\n\n", "no word"),
    "latin.srt": (b"1\n00:00:01,000 --> 00:00:02,000\ncaf\xe9\n", "line 3 is not UTF-8"),
    "nul.srt": ("1\n00:00:01,000 --> 00:00:02,000\nx\0\n", "line 3 holds NUL"),
    "header.vtt": ("00:01.000 --> 00:02.000\nx\n", "line 1: a WebVTT"),
    "inner.vtt": ("WEBVTT\n\n00:01.000 --> 00:02.000\na <00:00:05.000>b\n", "line 3: the times within"),
    "cut.json": ('[{"word": "a",\n "start":', "line 2: not JSON"),
    "nan.json": ('[{"word": "a", "start": NaN, "end": 1}]', "NaN is no number"),
    "big.json": ('[{"word": "a", "start": 1e999, "end": 1e999}]', "seconds"),
    "long.json": ('[{"word": "a", "start": 1%s, "end": 2}]' % ("0" * 400), "seconds"),
    "longest.json": ('[{"word": "a", "start": 1%s, "end": 2}]' % ("0" * 9999), "not usable JSON"),
    "twice.json": ('[{"word": "a", "start": 1, "start": 2, "end": 2}]', "stands twice"),
    "negative.json": ('[{"word": "a", "start": -1, "end": 2}]', "seconds, from 0 on"),
    "reversed.json": ('[{"word": "a", "start": 3, "end": 2}]', r"the file\[0\]: 3 to 2 s"),
    "bool.json": ('[{"word": "a", "start": true, "end": 2}]', "seconds"),
    "deep.json": ("[" * 100_000, "not usable JSON"),
    "nested.json": ('[{"words": ' * 20 + "[]" + "}]" * 20, "no 'word'|words within"),
    "other.json": ('{"title": "x"}', "neither 'words' nor"),
    "scalar.json": ("3", "no list"),
    "pair.json": ('[{"text": "a", "timestamp": [1]}]', "pair"),
    "cut.TextGrid": (TEXTGRID[:500], "cut off"),
    "other.TextGrid": ("hello", "cut off|begins with"),
    "count.TextGrid": (SHORT.replace("<exists>\n1\n", "<exists>\n99999999\n"), "line 7: 1e\\+08 entries"),
    "inf.TextGrid": (SHORT.replace("<exists>\n1\n", "<exists>\n1%s\n" % ("0" * 400)), "entries"),
    "point.TextGrid": (SHORT.replace("IntervalTier", "TextTier"), "line"),
    "short.ctm": ("a 1 0.5 x\n", "line 1"),
    "two.ctm": ("a 1 0.5 0.1 x\nb 1 0.7 0.1 y\n", "line 2: a second recording"),
    "nan.ctm": ("a 1 nan 0.1 x\n", "line 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_named_with_its_line(tmp_path, name):
    text, message = BAD[name]
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, name, text)
    assert name in str(error.value) and str(tmp_path) not in str(error.value)


def test_size_and_words_are_bounded(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="MiB"):
        read(tmp_path, "a.srt", b"x" * (transcript.MAX_BYTES + 1))
    monkeypatch.setattr(transcript, "MAX_WORDS", 5)
    with pytest.raises(DataError, match="more than 5 words"):
        read(tmp_path, "a.srt", "1\n00:00:01,000 --> 00:00:02,000\n" + "x " * 6)


@pytest.mark.parametrize("name", ["a.srt", "a.vtt", "a.json", "a.TextGrid", "a.ctm"])
@settings(max_examples=40, deadline=1000)
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, name, data):
    folder = tmp_path_factory.mktemp("t")
    starts = {"a.vtt": b"WEBVTT\n\n00:01.000 --> 00:02.000\n", "a.TextGrid": SHORT[:60].encode()}
    start = starts.get(name, b"")
    try:
        assert read(folder, name, start + data)
    except DataError as error:
        assert name in str(error)


@pytest.mark.parametrize("ending", ["srt", "vtt", "json", "TextGrid", "ctm"])
def test_hostile_repetition_takes_little_time(tmp_path, ending):
    head = "WEBVTT\n\n" if ending == "vtt" else ""
    for unit in ('"', "<", "1", "-->", "00:00:01,000 --> ", "{\\", "[", "1 ", '""', "<00:00:01.000>", "&"):
        start = time.monotonic()
        with contextlib.suppress(DataError):
            read(tmp_path, f"a.{ending}", head + unit * (300_000 // len(unit)))
        assert time.monotonic() - start < 4, unit


def test_words_share_a_cue_by_their_length():
    found = list(words.cut("a bbb", 2.0, 4.0))
    assert [(w.start, w.end) for w in found] == [(2.0, 2.5), (2.5, 4.0)]


def test_what_lies_beside_a_clip_is_found(tmp_path):
    assert beside("a.mp4", tmp_path) is None
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.vtt").write_text("x")
    assert beside("sub/a.mp4", tmp_path) == "sub/a.vtt"
    (tmp_path / "sub" / "a.srt").write_text("x")
    assert beside("sub/a.mp4", tmp_path) == "sub/a.srt"
    assert placed("", "sub/a.mp4", tmp_path).name == "a.srt"
    assert placed("said", "sub/a.mp4", tmp_path) == Spoken("said", "sub/a.mp4")
    assert placed("said", None, tmp_path) == "said" and placed(None, None, tmp_path) is None
    assert placed("report.json", None, tmp_path) == "report.json"  # a text, where there is no such file


def test_the_voiced_part():
    silence = np.zeros(16_000, np.float32)
    noise = 1e-3 * np.random.default_rng(0).normal(size=64_000).astype(np.float32)
    wave = np.concatenate([silence, tone(0.5), silence[:1600], tone(0.5), silence, silence[: 16_000 - 1600]])
    for floor in (0, noise):
        times = voiced(wave + floor)
        assert abs(times[0] - 1.0) < 0.02 and abs(times[-1] - 2.1) < 0.02
        assert np.allclose(np.diff(times), 0.01)  # the short pause is filled
    assert len(voiced(silence)) == 100 and len(voiced(tone(1.0))) == 100
    assert len(voiced(np.ones(1, np.float32))) == 1
