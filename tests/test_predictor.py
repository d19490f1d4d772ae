"""A small model, trained on a table of colours, in use."""

import csv
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import motet
from motet.errors import ConfigError, DataError, MismatchError
from motet.predictor import Predictor, is_table

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 60), "blue": (40, 60, 220)}
SMALL = (
    "train.epochs=3",
    "model.width=32",
    "model.depth=2",
    "model.attend=[own, global]",
    "model.embedding=16",
)


def write_sound(path: Path, pitch: float) -> None:
    time = np.arange(4000) / 16000
    samples = (12000 * np.sin(2 * np.pi * pitch * time)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16000, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())


def write_table(folder: Path, rows: int = 36) -> Path:
    """Rows of a picture of a colour, its name in words, a tone, and its temperature as the label."""
    rng = np.random.default_rng(0)
    table = []
    for i in range(rows):
        name, colour = list(COLOURS.items())[i % 3]
        noise = rng.integers(-20, 20, (16, 16, 3))
        Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(folder / f"{i}.png")
        write_sound(folder / f"{i}.wav", 300 + 400 * (i % 3))
        cells = {
            "id": f"r{i}",
            "text": f"a {name} thing number {i}",
            "picture": f"{i}.png",
            "sound": f"{i}.wav",
        }
        table.append(cells | {"mood": "warm" if name == "red" else "cold"})
    with (folder / "colours.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    return folder / "colours.csv"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("colours"))


@pytest.fixture(scope="module")
def model(table: Path) -> Predictor:
    out = table.parent / "run"
    return motet.fit(
        table, label="mood", retrieval=True, out=out, settings=SMALL, preset="scratch", device="cpu"
    )


@pytest.fixture(scope="module")
def texts_only(table: Path) -> Predictor:
    lines = [line.split(",") for line in table.read_text().splitlines()]
    path = table.parent / "texts.csv"
    path.write_text("\n".join(f"{cells[1]},{cells[4]}" for cells in lines))
    out = table.parent / "texts"
    return motet.fit(path, label="mood", out=out, settings=SMALL, preset="scratch", device="cpu")


def test_what_it_knows(model: Predictor) -> None:
    assert model.modalities == ("text", "picture", "sound")
    assert model.supports("audio") and model.supports("picture") and not model.supports("video")
    assert model.width == 16


def test_a_text_a_file_a_picture_and_a_mapping_are_inputs(model: Predictor, table: Path) -> None:
    picture = table.parent / "0.png"
    by_path = model.predict(picture)
    assert by_path["modalities"] == ["picture"] and by_path["status"] == "ok"
    assert model.predict(Image.open(picture)) == by_path
    assert model.predict(np.asarray(Image.open(picture))) == by_path
    assert model.predict({"picture": picture}) == by_path == model.predict({"picture": str(picture)})
    assert model.predict("a red thing")["modalities"] == ["text"]
    assert model.predict(table.parent / "0.wav")["modalities"] == ["sound"]
    both = model.predict({"picture": picture, "text": "a red thing"})
    assert both["modalities"] == ["text", "picture"]
    assert set(both["scores"]) == {"warm", "cold"} and sum(both["scores"].values()) == pytest.approx(1)
    assert both["label"] == max(both["scores"], key=both["scores"].get)


def test_the_content_says_what_a_file_is(model: Predictor, table: Path, tmp_path: Path) -> None:
    odd = tmp_path / "sound.txt"
    odd.write_bytes((table.parent / "0.wav").read_bytes())
    assert model.predict(odd)["modalities"] == ["sound"]
    (tmp_path / "note.txt").write_text("a red thing")
    assert model.predict(tmp_path / "note.txt") == model.predict("a red thing")


def test_a_row_of_a_table_is_predicted_as_alone(model: Predictor, table: Path) -> None:
    rows = list(model.predict_table(table))
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(36)]
    folder = table.parent
    alone = model.predict(
        {"text": "a green thing number 4", "picture": folder / "4.png", "sound": folder / "4.wav"}
    )
    assert rows[4]["modalities"] == alone["modalities"] == ["text", "picture", "sound"]
    assert rows[4]["scores"] == pytest.approx(alone["scores"], abs=1e-5)


def test_every_row_has_a_status_and_keeps_its_place(model: Predictor, table: Path) -> None:
    (table.parent / "cut.png").write_bytes((table.parent / "0.png").read_bytes()[:60])
    odd = table.parent / "odd.csv"
    odd.write_text("id,text,picture\na,red,\nb,,cut.png\nc,,\nd,,gone.png\ne,,0.png\n")
    rows = list(model.predict_table(odd))
    assert [row["id"] for row in rows] == list("abcde")
    assert [row["status"] for row in rows][::2] == ["ok", "missing", "ok"]
    assert "line 3: column 'picture'" in rows[1]["status"] and "gone.png" in rows[3]["status"]
    assert rows[1]["label"] is None and rows[1]["scores"] == {}
    assert rows[4]["modalities"] == ["picture"]


def test_columns_of_other_names_are_found_by_their_kind(model: Predictor, table: Path) -> None:
    other = table.parent / "other.csv"
    other.write_text("caption,photo\na red thing,0.png\na blue thing,2.png\n")
    rows = list(model.predict_table(other))
    assert [row["modalities"] for row in rows] == [["text", "picture"]] * 2


def test_vectors_are_of_unit_length_and_mixed_lists_are_fine(model: Predictor, table: Path) -> None:
    picture = table.parent / "1.png"
    items = ["a green thing", picture, Image.open(picture), {"text": "a green thing", "picture": picture}]
    vectors = model.encode(items)
    assert vectors.shape == (4, 16) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(vectors[1], vectors[2], atol=1e-6)
    total = vectors[0] + vectors[1]
    assert np.allclose(vectors[3], total / np.linalg.norm(total), atol=1e-5)
    assert np.allclose(model.encode("a green thing"), vectors[0], atol=1e-6)
    assert np.allclose(model.similarity(vectors, vectors), vectors @ vectors.T)
    assert (model.encode_query(["x"]) == model.encode_document(["x"])).all()


def test_kinds_name_modalities_and_mixed_lists_come_in_every_form(model: Predictor, table: Path) -> None:
    picture, sound = table.parent / "1.png", table.parent / "1.wav"
    assert np.allclose(model.encode({"image": picture}), model.encode(picture), atol=1e-6)
    assert np.allclose(model.encode({"audio": sound}), model.encode(sound), atol=1e-6)
    items = [
        "a green thing",
        picture,
        {"image": Image.open(picture), "audio": sound},
        {"text": "a green thing", "image": np.asarray(Image.open(picture)), "sound": sound},
    ]
    whole = model.encode(items)
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert [model.heard(item) for item in items] == [
        ("text",),
        ("picture",),
        ("picture", "sound"),
        ("text", "picture", "sound"),
    ]
    eight, bits = model.encode(items, precision="int8"), model.encode(items, precision="binary")
    assert (eight.dtype, eight.shape) == (np.int8, (4, 16)) and (bits.dtype, bits.shape) == (np.uint8, (4, 2))
    assert np.allclose(model.similarity(eight, eight), whole @ whole.T, atol=0.05)
    assert np.allclose(np.diag(model.similarity(bits, bits)), 1, atol=1e-6)
    few = model.encode(items, dims=4, precision="int8")
    assert few.shape == (4, 4) and np.abs(few).max(axis=1).tolist() == [127] * 4


def test_a_sound_may_come_as_samples(model: Predictor, table: Path) -> None:
    with wave.open(str(table.parent / "2.wav")) as file:
        samples = np.frombuffer(file.readframes(4000), "<i2").astype(np.float32) / 32768
    vectors = model.encode([table.parent / "2.wav", samples, (np.repeat(samples, 2), 32000)])
    assert np.allclose(vectors[0], vectors[1], atol=1e-5)
    assert vectors[0] @ vectors[2] > 0.9


def test_the_same_folder_gives_the_same_answers(model: Predictor) -> None:
    again = motet.load(model.folder, device="cpu")
    assert again.fingerprint == model.fingerprint
    assert again.predict("a red thing") == model.predict("a red thing")


def test_evaluation_covers_both_jobs(model: Predictor, table: Path) -> None:
    found = model.evaluate(table, part="all")
    assert found["part"] == "all" and found["n"] == 36
    assert len(found["retrieval"]) == 6 and len(found["tasks"]["mood"]["subsets"]) == 7


def test_the_table_of_the_training_is_judged_by_the_rows_held_out_then(model: Predictor, table: Path) -> None:
    found = model.evaluate(table)
    assert model.judged is not None
    assert (found["part"], found["n"]) == ("test", len(model.judged.rows))
    assert 0 < found["n"] < 36
    assert model.evaluate(table, part="all")["n"] == 36


def test_only_the_test_rows_are_measured_where_there_is_a_split(model: Predictor, table: Path) -> None:
    split = table.parent / "split.csv"
    lines = table.read_text().splitlines()
    parts = ["split", *("Test" if i % 4 == 0 else "train" for i in range(36))]
    split.write_text("\n".join(f"{line},{part}" for line, part in zip(lines, parts, strict=True)))
    assert (model.evaluate(split)["part"], model.evaluate(split)["n"]) == ("test", 9)
    assert model.evaluate(split, part="train")["n"] == 27
    with pytest.raises(DataError, match="no row of the part 'val'"):
        model.evaluate(split, part="val")


def test_an_index_finds_rows_of_a_table(model: Predictor, table: Path, tmp_path: Path) -> None:
    index = motet.Index.create(tmp_path / "c.index", model)
    assert index.add(table).added == 36
    assert index.add(table).unchanged == 36
    hit = index.search(table.parent / "5.png", top=1, modality="picture")[0]
    assert (hit.id, hit.score) == ("r5", pytest.approx(1, abs=1e-5))
    assert hit.fields["picture"] == str(table.parent / "5.png")
    assert (
        len(motet.Index.open(tmp_path / "c.index").search("a red thing", top=3, where="mood = 'warm'")) == 3
    )


def test_an_index_refuses_another_model(model: Predictor, texts_only: Predictor, tmp_path: Path) -> None:
    motet.Index.create(tmp_path / "c.index", model)
    with pytest.raises(MismatchError, match="another model"):
        motet.Index.open(tmp_path / "c.index", texts_only)


def test_wrong_use_is_named(model: Predictor, texts_only: Predictor, table: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        model.predict("photo.png")
    with pytest.raises(DataError, match="no such file"):
        model.predict({"picture": "photo.png"})
    assert model.predict({"text": "  "})["status"] == "missing"
    with pytest.raises(ConfigError, match="none of video is a modality"):
        model.encode({"video": "clip.mp4"})
    with pytest.raises(ConfigError, match="none of smell is a modality"):
        model.predict({"smell": "roses"})
    with pytest.raises(ConfigError, match="int cannot be used"):
        model.predict(3)
    with pytest.raises(ConfigError, match="no modality for a file of kind image; it has text"):
        texts_only.predict(table.parent / "0.png")
    with pytest.raises(ConfigError, match="without a shared space"):
        texts_only.encode(["a red thing"])
    with pytest.raises(ConfigError, match="without a shared space"):
        motet.Index.create(tmp_path / "t.index", texts_only)
    with pytest.raises(ConfigError, match="device 'abacus'"):
        motet.load(model.folder, device="abacus")
    with pytest.raises(ConfigError, match="not a folder that Motet saved"):
        motet.load(tmp_path)
    (tmp_path / "numbers.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises((ConfigError, DataError), match=r"numbers\.csv"):
        list(model.predict_table(tmp_path / "numbers.csv"))


def test_what_counts_as_a_table(tmp_path: Path) -> None:
    assert is_table("x.CSV") and is_table(tmp_path) and is_table(Path("a.parquet"))
    assert not is_table("a text") and not is_table("x.png") and not is_table({"text": "x"})


def test_smaller_vectors_compare_alike(model: Predictor) -> None:
    texts = ["a red thing", "a blue thing", "green"]
    whole = model.encode(texts)
    few = model.encode(texts, dims=8)
    assert few.shape == (3, 8) and np.allclose(np.linalg.norm(few, axis=1), 1, atol=1e-6)
    assert model.encode(texts, precision="int8").dtype == np.int8
    bits = model.encode_query(texts, precision="binary")
    assert bits.shape == (3, 2) and (np.unpackbits(bits, axis=1) == (whole > 0)).all()
    assert np.allclose(np.diag(model.similarity(bits, bits)), 1)


def test_a_saved_copy_is_the_same_model(model: Predictor, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "copy")
    again = Predictor.from_pretrained(tmp_path / "copy")
    assert again.fingerprint == model.fingerprint
    assert (again.encode("a red thing") == model.encode("a red thing")).all()
    with pytest.raises(ConfigError, match="not empty"):
        model.save_pretrained(tmp_path / "copy")
    with pytest.raises(ConfigError, match="not a name on the hub"):
        Predictor.from_pretrained("no such/model/name")
