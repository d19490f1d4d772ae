import json

import numpy as np
import pytest

from motet.data.processor import ProcessorConfig, load_processor, make_processor
from motet.data.text import TextConfig, TextProcessor, clean
from motet.errors import ConfigError, DataError
from tests.data.media_fakes import TextEncoder

TEXTS = ["A red dress", "the red car", "a blue car, fast", "Straße ÉTÉ 自動車", "the the the dress"] * 3


@pytest.fixture
def scratch():
    return make_processor("title", "text", None, None, lambda: TEXTS)


def one(processor, text, tmp_path):
    (piece,) = processor.pieces([processor.read(text, tmp_path)])
    return piece


def test_trained_tokenizer_is_deterministic_and_ids_are_below_size(scratch):
    other = make_processor("title", "text", None, None, lambda: TEXTS)
    assert other.fingerprint == scratch.fingerprint
    assert scratch.spec.input == "ids" and 257 <= scratch.spec.size <= 8000
    assert make_processor("title", "text", None, None, lambda: TEXTS[:3]).fingerprint != scratch.fingerprint


def test_words_are_labels_and_clock(scratch, tmp_path):
    piece = one(scratch, "  The RED dress  ", tmp_path)
    assert piece.labels == ("The", "RED", "dress")
    assert piece.time == pytest.approx([0, 0.3, 0.6])
    assert piece.values.dtype == np.int64 and piece.values.max() < scratch.spec.size
    assert (piece.values == one(scratch, "the red dress", tmp_path).values).all()


def test_unknown_words_become_several_tokens_of_one_time(scratch, tmp_path):
    piece = one(scratch, "the zyx🦊", tmp_path)
    assert len(piece) > 3 and set(piece.time[1:].tolist()) == {np.float32(0.3)}


def test_loaded_processor_is_bit_equal(scratch, tmp_path):
    again = load_processor(json.loads(json.dumps(scratch.to_dict())))
    assert again.fingerprint == scratch.fingerprint and again.spec == scratch.spec
    a, b = one(scratch, TEXTS[3], tmp_path), one(again, TEXTS[3], tmp_path)
    assert (a.values == b.values).all() and (a.time == b.time).all() and a.labels == b.labels


def test_empty_cells_are_missing_and_numbers_are_words(scratch, tmp_path):
    assert (
        scratch.read("", tmp_path) is scratch.read(None, tmp_path) is scratch.read("  \n", tmp_path) is None
    )
    assert one(scratch, 42, tmp_path).labels == ("4", "2")


def test_long_texts_are_cut_by_rule(tmp_path):
    config = ProcessorConfig(text=TextConfig(max_tokens=10, max_chars=100))
    processor = make_processor("title", "text", config, None, lambda: TEXTS)
    assert len(one(processor, "red " * 1_000_000, tmp_path)) == 10
    assert len(processor.read("x" * 10_000_000, tmp_path)) == 100


def test_control_characters_go_and_nothing_left_is_an_error(scratch, tmp_path):
    assert clean("a\0b\x07 c\n", 100) == "a b  c"
    assert one(scratch, "red\0 \ud800car", tmp_path).labels[0] == "red"
    with pytest.raises(DataError, match="control"):
        scratch.read("\0\x01", tmp_path)


def test_encoder_vectors_without_special_tokens(tmp_path):
    encoder = TextEncoder(["red", "dress", "##es", "a"])
    processor = TextProcessor("title", TextConfig(), None, encoder)
    pieces = processor.pieces([processor.read(t, tmp_path) for t in ("a red dresses", "Red")])
    assert [call.tolist() for call in encoder.calls[0]] == [[1, 7, 4, 5, 6, 2], [1, 4, 2]]  # no padding
    assert pieces[0].values[:, 0].tolist() == [7, 4, 5, 6] and pieces[0].values[:, 1].tolist() == [1, 2, 3, 4]
    assert pieces[0].labels == ("a", "red", "dress", "es")
    assert pieces[0].time == pytest.approx([0, 0.3, 0.6, 0.6])
    assert pieces[1].labels == ("Red",) and processor.spec.input == "vectors"
    assert encoder.tokenizer.padding is not None  # the encoder's own is left as it was


def test_encoder_input_is_cut_between_its_special_tokens(tmp_path):
    encoder = TextEncoder(["red"])
    processor = TextProcessor("title", TextConfig(max_tokens=5), None, encoder)
    assert len(one(processor, "red " * 50, tmp_path)) == 3
    assert encoder.calls[0][0].tolist() == [1, 4, 4, 4, 2]


def test_text_without_a_token_is_an_error(tmp_path):
    processor = TextProcessor("title", TextConfig(), None, TextEncoder(["red"]))
    with pytest.raises(DataError, match="no token"):
        processor.read("\u200b\u200d", tmp_path)


def test_tokenizers_with_patterns_are_refused(scratch):
    saved = scratch.to_dict()
    tokenizer = json.loads(saved["tokenizer"])
    tokenizer["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    with pytest.raises(DataError, match="regular expressions"):
        load_processor(saved | {"tokenizer": json.dumps(tokenizer)})
    for text in ("{", "[]", '{"version": "9"}', "[" * 100_000):
        with pytest.raises(DataError, match="tokenizer"):
            load_processor(saved | {"tokenizer": text})


def test_nothing_to_train_on_and_wrong_kinds():
    with pytest.raises(DataError, match="title"):
        make_processor("title", "text", None, None, lambda: [None, ""])
    with pytest.raises(ConfigError, match="unknown kind"):
        make_processor("title", "smell", None, None, lambda: TEXTS)
    with pytest.raises(ConfigError, match=r"picture\.backbone"):
        make_processor("picture", "image", None, TextEncoder(["red"]))
