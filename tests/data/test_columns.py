import pytest

from motet import config
from motet.data.columns import Columns, infer_columns, modality_name
from motet.data.table import open_table
from motet.errors import ConfigError, DataError


def table(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_text(text)
    return open_table(tmp_path / name)


EMOJI = """id,name,picture,speech,sentiment,group,split
1,red apple,p/1.png,s/1.wav,positive,a,train
2,dog,p/2.png,s/2.wav,negative,b,val
3,cat,p/3.png,s/3.wav,,c,test
"""


def test_emoji_table_is_understood_and_described(tmp_path):
    columns = infer_columns(table(tmp_path, EMOJI), label="sentiment")
    assert columns.modalities == {"name": "text", "picture": "image", "speech": "audio"}
    assert (columns.label, columns.task, columns.classes) == (
        "sentiment",
        "classes",
        ("negative", "positive"),
    )
    assert (columns.id, columns.group, columns.split, columns.weight) == ("id", "group", "split", None)
    assert columns.describe() == [
        "text <- name",
        "image <- picture (png)",
        "audio <- speech (wav)",
        "id <- id",
        "group <- group",
        "split <- split",
        "label <- sentiment (2 classes, 1 rows without)",
    ]


def test_words_of_few_kinds_and_numbers_are_no_modality_but_noted(tmp_path):
    columns = infer_columns(table(tmp_path, EMOJI.replace("group", "price").replace(",a,", ",1,")))
    assert "sentiment" not in columns.modalities and columns.label is None
    assert any(line.startswith("ignore <- sentiment (2 different words") for line in columns.describe())


@pytest.mark.parametrize(
    ("header", "cells", "kind"),
    [
        ("x", ["a.JPG", "b/c.png"], "image"),
        ("caption_file", ["a.mp4", "b.webm"], "video"),
        ("x", ["[1, 2]", "[3, 4]"], "features"),
        ("x", ["a.npy", "b.npy"], "features"),
        ("image_caption", ["a dog", "cat"], "text"),
        ("productName", ["dog", "cat"], "text"),
        ("photo", ["0001", "0002"], "image"),
        ("x", ["I liked it.", "It was bad."], "text"),
        ("transcript", ["1", "2"], "text"),
        ("x", ["1", "2.5"], None),
        ("x", ["red", "blue"], None),
        ("image_width", ["72", "80"], None),
    ],
)
def test_kind_by_name_and_content(tmp_path, header, cells, kind):
    rows = "".join(f'a text,"{cell}"\n' for cell in cells)
    columns = infer_columns(table(tmp_path, f"text,{header}\n{rows}"))
    assert columns.modalities.get(header) == kind


def test_numbers_give_regression_and_can_be_classes(tmp_path):
    t = table(tmp_path, "text,stars\na b,1\nc d,5\ne f,\n")
    columns = infer_columns(t, label="stars")
    assert (columns.task, columns.classes) == ("number", ())
    assert [columns.target(cell, "t") for cell in t.column("stars")] == [1.0, 5.0, None]
    columns = infer_columns(t, overrides={"stars": "classes"})
    assert (columns.label, columns.task, columns.classes) == ("stars", "classes", ("1", "5"))
    assert columns.target(5.0, "t") == 1


def test_target_refuses_unknown_class_and_no_number(tmp_path):
    columns = Columns({"text": "text"}, label="l", task="classes", classes=("good", "bad"))
    with pytest.raises(DataError, match=r"t, line 3: the label 'goood'.*Did you mean 'good'"):
        columns.target("goood", "t, line 3")
    with pytest.raises(DataError, match="not a finite number"):
        Columns({"text": "text"}, label="l", task="number").target("inf", "t, line 3")


def test_overrides_change_and_leave_out(tmp_path):
    columns = infer_columns(
        table(tmp_path, EMOJI), overrides={"name": "ignore", "sentiment": "text", "speech": "video"}
    )
    assert columns.modalities == {"picture": "image", "speech": "video", "sentiment": "text"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"label": "sentimnt"}, "no column 'sentimnt'.*id, name, picture.*Did you mean 'sentiment'"),
        ({"overrides": {"pictures": "image"}}, "no column 'pictures'.*Did you mean 'picture'"),
        ({"overrides": {"picture": "imge"}}, "not a kind of column.*Did you mean 'image'"),
        ({"label": "name", "overrides": {"name": "text"}}, "as the label and as text"),
        ({"overrides": {"name": "id"}, "label": "sentiment"}, None),
    ],
)
def test_wrong_names_are_config_errors_with_a_way_out(tmp_path, kwargs, message):
    if message is None:
        assert infer_columns(table(tmp_path, EMOJI), **kwargs).id == "name"
        return
    with pytest.raises(ConfigError, match=message):
        infer_columns(table(tmp_path, EMOJI), **kwargs)


@pytest.mark.parametrize(
    ("text", "label", "error", "message"),
    [
        ("a\n1\n", None, ConfigError, "no column holds text"),
        ("text,y\na b,\n", "y", DataError, "empty in every row"),
        ("text,y\na b,u\nc d,u\n", "y", DataError, "every label in 'y' is 'u'"),
        ("Text,text\na b,u v\n", None, ConfigError, "both be called 'text'"),
        ("text,x\na b,w.pt\n", None, DataError, "pickled files"),
        ("text,y\n" + "".join(f"a b,w{i}\n" for i in range(300)), "y", DataError, "300 different values"),
    ],
)
def test_unusable_columns(tmp_path, text, label, error, message):
    with pytest.raises(error, match=message):
        infer_columns(table(tmp_path, text), label=label)


def test_label_by_name_only_that_cannot_be_learned_is_left_out(tmp_path):
    columns = infer_columns(table(tmp_path, "text,label\na b,same\nc d,same\n"))
    assert (columns.label, columns.task, columns.classes) == (None, None, ())
    assert "every label in 'label' is 'same'" in columns.describe()[-1]
    with pytest.raises(DataError, match="nothing can be learned"):
        infer_columns(table(tmp_path, "text,label\na b,same\nc d,same\n"), label="label")


def test_duplicate_id_in_a_column_made_the_id(tmp_path):
    with pytest.raises(DataError, match=r"line 3: the id 'a'.*line 2"):
        infer_columns(table(tmp_path, "sku,text\na,x\na,y\n"), overrides={"sku": "id"})


def test_round_trip_through_config(tmp_path):
    columns = infer_columns(table(tmp_path, EMOJI), label="sentiment")
    assert config.from_dict(Columns, config.to_dict(columns), where="t") == columns


def test_bind_to_a_table_that_lacks_columns(tmp_path):
    columns = infer_columns(table(tmp_path, EMOJI), label="sentiment")
    bound = columns.bind(table(tmp_path, "name,split\ndog,test\n", "u.csv"))
    assert bound.modalities == {"name": "text"}
    assert (bound.label, bound.id, bound.split, bound.classes) == (None, None, "split", columns.classes)
    with pytest.raises(DataError, match="none of the columns name, picture, speech"):
        columns.bind(table(tmp_path, "x\ny\n", "v.csv"))


def test_modality_names():
    assert [modality_name(n) for n in ("Photo 1", "été", "1st")] == [
        "photo_1",
        "_t_".replace("_t_", "m__t_"),
        "m_1st",
    ]


def test_several_labels_at_once_from_lists_and_from_words_between_bars(tmp_path):
    (tmp_path / "t.csv").write_text("text,tags\na b,x|y\nc d,\ne f, z \ng h,y|y\n")
    table = open_table(tmp_path / "t.csv")
    columns = infer_columns(table, overrides={"tags": "multilabel"})
    assert (columns.label, columns.task, columns.classes) == ("tags", "multilabel", ("x", "y", "z"))
    assert any("label <- tags (any of 3, 1 rows without)" in line for line in columns.describe())
    targets = [columns.target(cell, "t") for cell in table.column("tags")]
    assert targets[1] is None
    assert [t.tolist() for t in targets if t is not None] == [[1, 1, 0], [0, 0, 1], [0, 1, 0]]
    with pytest.raises(DataError, match="'w' is not one of the classes x, y, z"):
        columns.target("x|w", "t")
    lines = [
        '{"text": "a b", "tags": ["x"]}',
        '{"text": "c d", "tags": []}',
        '{"text": "e f", "tags": ["y"]}',
    ]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    table = open_table(tmp_path / "t.jsonl")
    columns = infer_columns(table, label="tags")
    assert columns.task == "multilabel"
    assert columns.target([], "t").tolist() == [0, 0]
    with pytest.raises(DataError, match="holds lists"):
        infer_columns(table, label="tags", overrides={"tags": "classes"})


def test_weights_are_numbers_from_zero_on():
    columns = Columns({"text": "text"}, weight="weight")
    assert [columns.row_weight(cell, "t") for cell in (None, "2.5", 0)] == [1.0, 2.5, 0.0]
    for cell in ("-1", "much", "inf"):
        with pytest.raises(DataError, match="no number from 0 on"):
            columns.row_weight(cell, "t")
