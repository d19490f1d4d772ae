import csv
import importlib.util
import json
import wave
from collections import Counter, defaultdict

import numpy as np
import pytest

from motet.data.builtin.emoji import FEELINGS, PACKAGES, build_emoji, find_emoji, read_feelings
from motet.data.columns import infer_columns
from motet.data.split import group_rows, split_rows
from motet.data.table import open_table, resolve_media
from motet.errors import ConfigError

missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
needs_packages = pytest.mark.skipif(
    bool(missing), reason=f"not installed: {', '.join(missing)} (motet[demo])"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("emoji") / "data"
    build_emoji(out, seed=0, limit=400)
    return out


def rows_of(out):
    with (out / "emoji.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@needs_packages
def test_feelings_match_the_published_counts():
    assert Counter(read_feelings().values()) == {"positive": 282, "neutral": 134, "negative": 50}


@needs_packages
def test_variants_are_one_concept_and_others_are_not():
    items = find_emoji()
    group = {item.name: item.group for item in items}
    assert len(group) == len(items) > 1500
    for variants in (
        ("man running", "woman running", "person running", "woman running facing right"),
        ("man red hair", "person bald", "woman", "man beard"),
        ("nine-thirty", "three o’clock"),
        ("mermaid", "merman"),
        ("kiss man man", "kiss"),
        ("farmer", "woman farmer"),
        ("family", "family man boy"),
    ):
        assert len({group[name] for name in variants}) == 1, variants
    assert group["woman running"] == "person running"
    apart = (
        "female sign",
        "right arrow",
        "person walking",
        "kiss mark",
        "red apple",
        "green apple",
        "black flag",
    )
    assert len({group[name] for name in apart}) == len(apart)
    left_out = ("France", "England", "keycap 1", "keycap 10", "waving hand medium skin tone")
    assert not set(left_out) & set(group)


@needs_packages
def test_table_is_read_and_split_like_a_users_own(built):
    table = open_table(built / "emoji.csv")
    columns = infer_columns(table, label="sentiment")
    assert columns.modalities == {"name": "text", "picture": "image", "speech": "audio"}
    assert columns.classes == FEELINGS and (columns.group, columns.split) == ("group", "split")
    parts = split_rows(table, columns)
    assert sum(map(len, parts.values())) == len(table) == 400
    groups = group_rows(table, columns)
    for part, others in (("train", ("val", "test")), ("val", ("test",))):
        seen = {groups[i] for i in parts[part]}
        assert not seen & {groups[i] for other in others for i in parts[other]}
    for rows in parts.values():
        assert {table.row(i)["sentiment"] for i in rows} >= set(FEELINGS)
    for i in range(len(table)):
        for name in ("picture", "speech"):
            assert resolve_media(table.row(i)[name], table.root, "t").stat().st_size > 100


@needs_packages
def test_speech_is_16_khz_mono_and_says_something(built):
    seconds = defaultdict(float)
    for row in rows_of(built)[:40]:
        with wave.open(str(built / row["speech"])) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            sound = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        seconds[row["name"]] = len(sound) / 16_000
        assert 0.2 < len(sound) / 16_000 < 4 and np.abs(sound).max() > 3000
    assert max(seconds.values()) > 1.5 * min(seconds.values())


@needs_packages
def test_rated_emoji_come_first_and_whole_concepts_are_kept(built):
    rows = rows_of(built)
    everything = find_emoji()
    assert sum(bool(row["sentiment"]) for row in rows) > 0.7 * len(rows)
    whole = Counter(item.group for item in everything)
    assert all(whole[group] == n for group, n in Counter(row["group"] for row in rows).items())


@needs_packages
def test_finished_folder_is_used_again_and_a_damaged_one_rebuilt(tmp_path):
    out = tmp_path / "data"
    told = []
    table = build_emoji(out, limit=100, progress=lambda *step: told.append(step))
    assert told[-1][0] == told[-1][1] == len(rows_of(out)) and "synthesised" in told[-1][2]
    first = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    stamp = table.stat().st_mtime_ns
    build_emoji(out, limit=100)
    assert table.stat().st_mtime_ns == stamp
    next((out / "speech").iterdir()).unlink()
    build_emoji(out, limit=100)
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()} == first
    build_emoji(out, limit=100, seed=1)
    assert json.loads((out / "emoji.json").read_text())["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["data"]  # no temporary folder is left


@needs_packages
def test_failure_midway_leaves_nothing_half_done(tmp_path):
    def stop(done, total, what):
        if done == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_emoji(tmp_path / "data", limit=100, progress=stop)
    assert list(tmp_path.iterdir()) == []


@needs_packages
def test_folder_with_other_files_and_too_few_emoji_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds other files"):
        build_emoji(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    with pytest.raises(ConfigError, match="too few emoji"):
        build_emoji(tmp_path / "new", limit=1)


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'motet\[demo\]'"):
        build_emoji(tmp_path / "data")
