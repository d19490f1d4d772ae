from __future__ import annotations

import numpy as np
import pytest

from motet.tasks.retrieve import evaluate_retrieval
from motet.types import Piece, Sample


def piece(*ids: int) -> Piece:
    return Piece(np.array(ids, dtype=np.int64), np.zeros(len(ids), np.float32))


def unit(rows: list[list[float]]) -> np.ndarray:
    values = np.array(rows, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


def test_groups_and_equal_contents_are_right_answers_and_missing_rows_no_gallery() -> None:
    samples = [
        Sample("0", {"text": piece(1), "image": piece(7)}, group="a"),
        Sample("1", {"text": piece(2), "image": piece(8)}, group="a"),
        Sample("2", {"text": piece(3), "image": piece(9)}),
        Sample("3", {"text": piece(3)}),
        Sample("4", {"image": piece(5)}),
    ]
    texts = unit([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]])
    images = unit([[0, 1, 0], [1, 0, 0], [0, 0, 1], [0, 0, 0], [1, 1, 0]])
    found = {
        (p["query"], p["answer"]): p for p in evaluate_retrieval({"text": texts, "image": images}, samples)
    }
    there = found["text", "image"]
    # Row 0's nearest picture is row 1's, of the same group; row 3 has no picture and is no query.
    assert (there["n"], there["gallery"], there["R@1"]) == (3, 4, 1.0)
    back = found["image", "text"]
    assert (back["n"], back["gallery"], back["R@1"]) == (3, 4, 1.0)
    # Three queries with 2, 2 and 1 (or 2 for the repeated caption) right answers of 4.
    assert there["chance_R@1"] == pytest.approx((2 / 4 + 2 / 4 + 1 / 4) / 3)
    assert back["chance_R@1"] == pytest.approx((2 / 4 + 2 / 4 + 2 / 4) / 3)


def test_rows_without_group_or_equal_contents_match_only_themselves() -> None:
    samples = [Sample(str(i), {"a": piece(i), "b": piece(10 + i)}) for i in range(6)]
    turned = np.roll(np.eye(6), 1, axis=0)
    found = evaluate_retrieval({"a": np.eye(6), "b": turned}, samples)
    assert all(p["R@1"] == 0.0 for p in found)
    assert evaluate_retrieval({"a": np.eye(6), "b": np.eye(6)}, samples)[0]["R@1"] == 1.0
