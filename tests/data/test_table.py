import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.data.csvfile import read_csv
from motet.data.table import open_table, resolve_media
from motet.errors import DataError


def write(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_with_bom_quoted_newline_and_long_cell(tmp_path):
    long = "x" * 200_000
    path = write(tmp_path, "t.csv", b"\xef\xbb\xbf" + f'text,n\n"a ""b""\nc",1\n{long},\n'.encode())
    table = open_table(path)
    assert table.columns == ("text", "n")
    assert table.row(0) == {"text": 'a "b"\nc', "n": "1"}
    assert table.row(1) == {"text": long, "n": None}
    assert [table.line(i) for i in range(2)] == [2, 4]
    assert table.root == tmp_path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("body", "line"),
    [
        (["a,b", '1,"fine"', '2,"open', "3,x", "4,y"], 3),  # runs to the end of the file
        (["a,b", '1,"open', "2,x", '3,"closed"', "4,y"], 2),  # closed by a later row's quote
        (["a,b", '"two', 'lines","open', "3,x"], 3),  # opens on the second line of its row
    ],
)
def test_unclosed_quote_names_the_line_where_it_opened(tmp_path, body, line, newline):
    path = write(tmp_path, "t.csv", newline.join(body) + newline)
    with pytest.raises(DataError, match=rf"t\.csv, line {line}: the quote that opens"):
        open_table(path)


@pytest.mark.parametrize(("row", "cells"), [("1", 1), ("1,2,3", 3)])
def test_row_with_wrong_number_of_cells_names_its_line(tmp_path, row, cells):
    path = write(tmp_path, "t.csv", f'a,b\n"x\ny",2\n\n{row}\n')
    with pytest.raises(DataError, match=f"line 5: {cells} cells where the header has 2"):
        open_table(path)


def plain(row):
    return tuple(cell if cell.strip() else None for cell in row)


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r["), max_size=8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(cell, cell), min_size=1, max_size=6))
def test_csv_gives_back_every_cell_and_each_rows_line(rows):
    found_lines, text = [], "a,b\n"
    for row in rows:
        found_lines.append(text.count("\n") + 1)
        text += ",".join('"' + value.replace('"', '""') + '"' for value in row) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), "t.csv", text)
        stored = read_csv(path)
        assert [tuple(stored.row(i).values()) for i in range(len(stored))] == [plain(row) for row in rows]
        assert list(stored.iterate(["b", "a"])) == [plain(row)[::-1] for row in rows]
        assert list(stored.column("a")) == [plain(row)[0] for row in rows]
        assert [stored.line(i) for i in range(len(stored))] == found_lines


def test_tsv_and_semicolons(tmp_path):
    assert open_table(write(tmp_path, "t.tsv", "a\tb\n1,5\t2\n")).row(0) == {"a": "1,5", "b": "2"}
    assert open_table(write(tmp_path, "t.csv", "a;b\n1,5;2\n")).row(0) == {"a": "1,5", "b": "2"}


def test_jsonl_and_parquet_give_the_same_cells(tmp_path):
    rows = [
        {"text": "a", "v": [1.0, 2.0], "n": 1, "yes": True},
        {"text": None, "v": None, "n": 2, "yes": False},
    ]
    jsonl = open_table(write(tmp_path, "t.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n"))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    parquet = open_table(tmp_path / "t.parquet")
    assert [jsonl.row(i) for i in range(2)] == [parquet.row(i) for i in range(2)]
    assert jsonl.row(0)["yes"] == "true"


def test_lists_in_csv_become_features_only_where_the_whole_column_is_lists(tmp_path):
    table = open_table(write(tmp_path, "t.csv", 'v,w\n"[1, 2.5]",[1]\n,[music]\n'))
    assert table.column("v") == [[1, 2.5], None]
    assert table.column("w") == ["[1]", "[music]"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "empty"),
        ("t.csv", "a,b\n", "no rows"),
        ("t.csv", "a,a\n1,2\n", "'a' stands twice"),
        ("t.csv", b"a\nok\n\xff\xfe\n", "line 3: not UTF-8"),
        ("t.csv", "id,a\nx,1\ny,2\nx,3\n", "line 4: the id 'x'.*line 2"),
        ("t.jsonl", '{"a": 1}\n{"a": 1, "a": 2}\n', "line 2: the key 'a' stands twice"),
        ("t.jsonl", '{"a": NaN}\n', "line 1: NaN"),
        ("t.jsonl", '{"a": 1\n', "line 1: not valid JSON"),
        ("t.jsonl", "[1]\n", "line 1: expected an object"),
        ("t.parquet", "not parquet", "not a readable Parquet"),
        ("t.xlsx", "x", r"\.xlsx is not a table"),
    ],
)
def test_broken_table_is_one_clear_error(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        open_table(write(tmp_path, name, content))


def test_missing_table_and_special_file(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        open_table(tmp_path / "none.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="not a regular file"):
        open_table(tmp_path / "pipe.csv")


def test_fingerprint_follows_content_not_name(tmp_path):
    a, b, c = (
        write(tmp_path, n, t) for n, t in (("a.csv", "x\n1\n"), ("b.csv", "x\n1\n"), ("c.csv", "x\n2\n"))
    )
    assert open_table(a).fingerprint == open_table(b).fingerprint != open_table(c).fingerprint


@pytest.mark.parametrize(
    "cell",
    [
        "../../etc/passwd",
        "../secret.png",
        "/etc/passwd",
        "inside/../../secret.png",
        "link.png",
        "linked/secret.png",
        "pipe.png",
        "inside",
        "none.png",
        "http://127.0.0.1/a.png",
        "http:\\\\x@y/a.png",
        "//host/a.png",
        "file:a.png",
        "concat:a.png|b.png",
        "subfile,,start,0,end,1,,:a.png",
        "C:\\a.png",
        "a\0.png",
        "",
        "x" * 5000,
    ],
)
def test_media_outside_root_or_no_regular_file_is_refused(tmp_path, cell):
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    write(tmp_path, "secret.png", "x")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "pipe.png")
    with pytest.raises(DataError, match=r"^t\.csv, line 2: "):
        resolve_media(cell, root, "t.csv, line 2")


def test_media_inside_root_is_found_also_through_links(tmp_path):
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    write(root / "a", "b.png", "x")
    (root / "link.png").symlink_to(root / "a" / "b.png")
    (tmp_path / "alias").symlink_to(root)
    real = (root / "a" / "b.png").resolve()
    assert resolve_media("a/b.png", root, "t") == real
    assert resolve_media("a/../link.png", root, "t") == real
    assert resolve_media("a/b.png", tmp_path / "alias", "t") == real
