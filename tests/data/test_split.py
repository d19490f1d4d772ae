import random
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.data.columns import Columns, infer_columns
from motet.data.groups import connected, group_rows
from motet.data.split import PARTS, deal_groups, split_rows
from motet.data.table import open_table
from motet.errors import ConfigError, DataError


def build(tmp_path, header, rows, files=(), **kwargs):
    for name, content in files:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "t.csv").write_text(header + "\n" + "".join(f"{row}\n" for row in rows))
    table = open_table(tmp_path / "t.csv")
    return table, infer_columns(table, **kwargs)


def same(groups):
    """The partition that group names make: sets of rows."""
    return {frozenset(i for i, g in enumerate(groups) if g == name) for name in set(groups)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=3, max_size=120), st.integers(0, 5))
def test_deal_never_tears_a_group_nor_leaves_a_part_empty(numbers, seed):
    groups = [f"g{n}" for n in numbers]
    part_of = deal_groups(groups, {g: str(len(g)) for g in groups}, seed=seed)
    assert set(part_of) == set(groups)
    if len(set(groups)) >= 3:
        assert set(part_of.values()) == set(PARTS)
    assert part_of == deal_groups(list(reversed(groups)), {g: str(len(g)) for g in groups}, seed=seed)


def test_deal_follows_fractions_in_every_stratum():
    groups = [f"g{i}" for i in range(400)]
    strata = {g: "rare" if i < 60 else "common" for i, g in enumerate(groups)}
    part_of = deal_groups(groups, strata, seed=1)
    for stratum, total in (("rare", 60), ("common", 340)):
        count = Counter(part_of[g] for g in groups if strata[g] == stratum)
        assert count["train"] == pytest.approx(0.7 * total, abs=2)
        assert count["val"] == pytest.approx(0.15 * total, abs=2)
    assert part_of != deal_groups(groups, strata, seed=2)


def test_a_group_of_most_rows_is_for_training():
    groups = ["big"] * 80 + ["a", "b", "c", "d"]
    for seed in range(10):
        part_of = deal_groups(groups, {}, seed=seed)
        assert part_of["big"] == "train" and set(part_of.values()) == set(PARTS)


def test_media_with_equal_bytes_are_one_group_whatever_their_name(tmp_path):
    table, columns = build(
        tmp_path,
        "photo,text,label",
        ["a.png,one x,u", "b.png,two x,v", "c.png,three x,u", "d.png,four x,v", "none.png,five x,u"],
        [("a.png", b"same"), ("b.png", b"same"), ("c.png", b"diff"), ("d.png", b"longer")],
    )
    assert same(group_rows(table, columns)) == {frozenset(s) for s in ({0, 1}, {2}, {3}, {4})}


def test_group_column_and_duplicates_unite_transitively(tmp_path):
    table, columns = build(
        tmp_path,
        "photo,group,label",
        ["a.png,g1,u", "b.png,g2,v", "c.png,g2,u", "d.png,,u"],
        [("a.png", b"same"), ("b.png", b"same"), ("c.png", b"c"), ("d.png", b"dd")],
    )
    groups = group_rows(table, columns)
    assert groups[:3] == ["g1", "g1", "g1"] and groups[3].startswith("~")


def test_repeated_caption_is_one_group_for_retrieval_only(tmp_path):
    files = [(f"{i}.png", bytes(i + 1)) for i in range(3)]
    rows = ["0.png,A  Dog,u", "1.png,a dog,v", "2.png,a cat,u"]
    table, columns = build(tmp_path, "photo,text,kind", rows, files)
    assert same(group_rows(table, columns)) == {frozenset({0, 1}), frozenset({2})}
    table, columns = build(tmp_path, "photo,text,kind", rows, files, label="kind")
    assert len(set(group_rows(table, columns))) == 3
    assert len(set(group_rows(table, columns, retrieval=True))) == 2


def test_text_alone_is_united_also_with_a_label(tmp_path):
    table, columns = build(tmp_path, "text,label", ["So good,u", "so good,u", "so bad,v"])
    assert same(group_rows(table, columns)) == {frozenset({0, 1}), frozenset({2})}


def test_a_category_is_no_caption(tmp_path):
    rows = [f"{i}.png,{'dog' if i % 2 else 'cat'}" for i in range(60)]
    table, columns = build(tmp_path, "photo,text", rows, [(f"{i}.png", bytes(i + 1)) for i in range(60)])
    assert len(set(group_rows(table, columns))) == 60


def test_split_depends_on_content_and_seed_not_on_place_or_order(tmp_path):
    def parts(folder, rows, seed):
        folder.mkdir()
        table, columns = build(folder, "text,label", rows)
        split = split_rows(table, columns, seed=seed)
        return {part: {str(table.row(i)["text"]) for i in split[part]} for part in PARTS}

    rows = [f"text {i},{'uv'[i % 2]}" for i in range(50)]
    shuffled = random.Random(0).sample(rows, 50)
    first = parts(tmp_path / "a", rows, 0)
    assert first == parts(tmp_path / "b", shuffled, 0) != parts(tmp_path / "c", rows, 1)
    assert sum(map(len, first.values())) == 50 and all(first.values())


def test_split_column_is_honoured_and_validation_taken_from_training(tmp_path):
    rows = [f"text {i},{'test' if i < 5 else 'Train'}" for i in range(40)]
    table, columns = build(tmp_path, "text,split", rows)
    parts = split_rows(table, columns)
    assert parts["test"] == [0, 1, 2, 3, 4]
    assert sorted(parts["train"] + parts["val"]) == list(range(5, 40)) and 3 <= len(parts["val"]) <= 10
    rows = ["text 1,train", "text 2,validation", "text 3,train"]
    table, columns = build(tmp_path, "text,split", rows)
    assert split_rows(table, columns) == {"train": [0, 2], "val": [1], "test": []}


def test_broken_characters_do_not_stop_a_split(tmp_path):
    lines = "".join(f'{{"text": "a \\ud800 {i}", "group": "\\ud800{i}"}}\n' for i in range(9))
    (tmp_path / "t.jsonl").write_text(lines)
    table = open_table(tmp_path / "t.jsonl")
    assert sum(map(len, split_rows(table, infer_columns(table)).values())) == 9


def test_bad_split_cell_and_fractions(tmp_path):
    table, columns = build(tmp_path, "text,split", ["a b,train", "c d,holdout"])
    with pytest.raises(DataError, match=r"line 3: column 'split' holds 'holdout'"):
        split_rows(table, columns)
    with pytest.raises(ConfigError, match="add up to 1"):
        split_rows(table, Columns({"text": "text"}), fractions=(0.7, 0.2, 0.2))


def union_find(links, count):
    """The slow way: the least row of each set."""
    parent = list(range(count))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for link in links:
        first = {}
        for line in np.atleast_2d(link):
            for i, key in enumerate(line.tolist()):
                if key >= 0:
                    a, b = root(first.setdefault(key, i)), root(i)
                    parent[max(a, b)] = min(a, b)
    return [root(i) for i in range(count)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3), st.integers(1, 2), st.integers(1, 30), st.randoms())
def test_connected_rows_are_those_of_union_find(count, several, lines, keys, rnd):
    links = [
        np.array([[rnd.randrange(-1, keys) for _ in range(count)] for _ in range(lines)])
        for _ in range(several)
    ]
    assert connected(links, count).tolist() == union_find(links, count)


def test_a_long_chain_of_links_is_one_set():
    even = np.arange(2000) // 2
    odd = (np.arange(2000) + 1) // 2
    assert not connected([even, odd], 2000).any()


def test_same_picture_in_two_columns_links_rows(tmp_path):
    rows = ["a.png,b.png", "c.png,a2.png", "d.png,e.png"]
    files = [
        (f"{n}.png", c) for n, c in [("a", b"1"), ("a2", b"1"), ("b", b"22"), ("c", b"333"), ("d", b"4")]
    ]
    table, columns = build(tmp_path, "image,photo", rows, [*files, ("e.png", b"55555")])
    assert same(group_rows(table, columns)) == {frozenset({0, 1}), frozenset({2})}


def test_near_rows_are_united(tmp_path):
    table, columns = build(tmp_path, "text,label", [f"text {i},{'uv'[i % 2]}" for i in range(5)])
    assert same(group_rows(table, columns, near=[(0, 3, 4)])) == {frozenset(s) for s in ({0, 3, 4}, {1}, {2})}


def test_a_hundred_thousand_rows_are_split_in_seconds(tmp_path):
    lines = "".join(f"r{i},text number {i},{'uv'[i % 2]}\n" for i in range(100_000))
    (tmp_path / "t.csv").write_text("id,text,label\n" + lines)
    table = open_table(tmp_path / "t.csv")
    start = time.process_time()
    parts = split_rows(table, infer_columns(table, label="label"))
    assert time.process_time() - start < 6
    assert sum(map(len, parts.values())) == 100_000
