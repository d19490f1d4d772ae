import pytest

from motet.data.table import open_table
from motet.errors import DataError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


def test_class_folders_give_labels(tmp_path):
    touch(tmp_path, "cats/1.jpg", "cats/2.jpg", "dogs/1.jpg", ".hidden/3.jpg")
    table = open_table(tmp_path)
    assert table.columns == ("id", "image", "label")
    assert table.column("label") == ["cats", "cats", "dogs"]
    assert table.column("image") == ["cats/1.jpg", "cats/2.jpg", "dogs/1.jpg"]


def test_split_folders_above_class_folders(tmp_path):
    touch(tmp_path, "train/a/1.wav", "train/b/1.wav", "valid/a/2.wav")
    table = open_table(tmp_path)
    assert table.column("split") == ["train", "train", "val"]
    assert table.column("label") == ["a", "b", "a"]


def test_same_named_files_stand_side_by_side(tmp_path):
    touch(tmp_path, "a.jpg", "a.txt", "a.wav", "b.jpg")
    table = open_table(tmp_path)
    assert table.row(0) == {"id": "a", "image": "a.jpg", "audio": "a.wav", "text": "a.txt"}
    assert table.row(1) == {"id": "b", "image": "b.jpg", "audio": None, "text": None}


def test_a_folder_for_each_kind_gives_no_labels(tmp_path):
    touch(tmp_path, "pictures/a.jpg", "pictures/b.jpg", "sounds/a.wav")
    table = open_table(tmp_path)
    assert table.columns == ("id", "image", "audio")
    assert table.row(0) == {"id": "a", "image": "pictures/a.jpg", "audio": "sounds/a.wav"}
    assert table.row(1)["audio"] is None


def test_two_pictures_of_one_row_are_refused(tmp_path):
    touch(tmp_path, "a.jpg", "a.png", "a.wav")
    with pytest.raises(DataError, match=r"'a\.jpg' and 'a\.png' are both the image"):
        open_table(tmp_path)


def test_folder_without_media_and_folder_with_its_table(tmp_path):
    with pytest.raises(DataError, match="no media below this folder"):
        open_table(tmp_path)
    touch(tmp_path, "pictures/a.jpg")
    (tmp_path / "table.csv").write_text("picture\npictures/a.jpg\n")
    assert open_table(tmp_path).columns == ("picture",)


def test_text_file_that_links_outside_is_refused(tmp_path):
    root = tmp_path / "root"
    touch(root, "a.wav")
    (tmp_path / "secret").write_text("secret")
    (root / "a.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="outside"):
        open_table(root)


def test_fingerprint_sees_a_file_come_and_grow(tmp_path):
    touch(tmp_path, "a.wav")
    first = open_table(tmp_path).fingerprint
    (tmp_path / "a.wav").write_text("longer than before")
    second = open_table(tmp_path).fingerprint
    touch(tmp_path, "b.wav")
    assert len({first, second, open_table(tmp_path).fingerprint}) == 3
