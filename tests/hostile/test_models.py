"""Hostile weights: files of the safetensors format that lie, each with a manifest that vouches for it."""

from __future__ import annotations

import json
import struct
import time

import numpy as np
import pytest
import torch

from motet import checkpoint
from motet.checkpoint import load_folder, save_folder
from motet.data.cache import FeatureCache
from motet.errors import DataError
from motet.types import Piece

BODY = bytes(16)
GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


def file_of(header: object, body: bytes = BODY, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


HEADERS = {
    "nothing": b"",
    "half a length": b"\x10\0\0",
    "a length beyond the file": file_of({"w": GOOD}, length=10_000),
    "a length of 2^63": file_of({"w": GOOD}, length=2**63),
    "a length of 200 MB": file_of({"w": GOOD}, length=200 * 2**20),
    "no JSON": file_of(b"{]"),
    "not UTF-8": file_of(b'{"\xff": 1}'),
    "deep": file_of(b'{"a": ' * 20_000 + b"1" + b"}" * 20_000),
    "a list": file_of([GOOD]),
    "an unknown type": file_of({"w": GOOD | {"dtype": "P32"}}),
    "a negative shape": file_of({"w": GOOD | {"shape": [-2, -2]}}),
    "a huge shape": file_of({"w": GOOD | {"shape": [2**40, 2**40]}}),
    "too few bytes": file_of({"w": GOOD | {"shape": [4, 4]}}),
    "offsets that run backwards": file_of({"w": GOOD | {"data_offsets": [16, 0]}}),
    "offsets beyond the file": file_of({"w": GOOD | {"data_offsets": [0, 1600]}}, BODY),
    "a hole": file_of({"w": GOOD | {"data_offsets": [16, 32]}}, BODY * 2),
    "overlapping": file_of({"w": GOOD, "v": GOOD | {"data_offsets": [8, 24]}}, BODY * 2),
    "bytes that belong to none": file_of({"w": GOOD}, BODY * 2),
    "a key twice": file_of(b'{"w": %s, "w": %s}' % ((json.dumps(GOOD).encode(),) * 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_model_with_such_weights_is_refused(tmp_path, name):
    path = save_folder(tmp_path / "m", tensors={"w": torch.zeros(2, 2)}, documents={})
    (path / "model.safetensors").write_bytes(HEADERS[name])
    listed = {"model.safetensors": checkpoint._describe(path / "model.safetensors")}
    (path / "manifest.json").write_text(checkpoint._render(listed))
    begin = time.process_time()
    with pytest.raises(DataError, match="safetensors"):
        load_folder(path)
    assert time.process_time() - begin < 5


def test_a_cached_piece_that_was_changed_counts_as_absent(tmp_path):
    cache = FeatureCache(tmp_path)
    cache.put("ab" * 32, Piece(np.ones((2, 2), np.float32), np.zeros(2, np.float32)))
    (path,) = tmp_path.rglob("*.piece")
    whole = path.read_bytes()
    for changed in (b"", whole[:40], whole[:-1], *HEADERS.values()):
        path.write_bytes(changed)
        assert cache.get("ab" * 32) is None
    path.write_bytes(whole)
    assert cache.get("ab" * 32) is not None
