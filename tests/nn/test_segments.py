"""Ragged sums, means and softmax against plain loops in fp64."""

import pytest
import torch

from motet.nn.segments import segment_max, segment_mean, segment_softmax, segment_sum

SEGMENT = torch.tensor([2, 0, 0, 4, 2, 2, 0])  # 1 and 3 have no rows, and rows are not sorted
SEGMENTS = 6


@pytest.fixture
def rows() -> torch.Tensor:
    return torch.randn(7, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("function", "loop"),
    [
        (segment_sum, lambda part: part.sum(0)),
        (segment_mean, lambda part: part.mean(0)),
        (segment_max, lambda part: part.amax(0)),
    ],
)
def test_each_segment_is_reduced_alone_and_empty_ones_are_zero(function, loop, rows):
    found = function(rows, SEGMENT, SEGMENTS)
    for s in range(SEGMENTS):
        part = rows[SEGMENT.eq(s)]
        expected = loop(part) if len(part) else torch.zeros(3, 2, dtype=torch.float64)
        torch.testing.assert_close(found[s], expected, atol=1e-14, rtol=0)


def test_softmax_of_each_segment_equals_a_loop(rows):
    found = segment_softmax(rows, SEGMENT, SEGMENTS)
    for s in SEGMENT.unique():
        torch.testing.assert_close(found[SEGMENT.eq(s)], rows[SEGMENT.eq(s)].softmax(0), atol=1e-14, rtol=0)


def test_softmax_neither_overflows_nor_depends_on_the_other_segments(rows):
    shifted = rows + 1e4 * SEGMENT[:, None, None]
    torch.testing.assert_close(
        segment_softmax(shifted, SEGMENT, SEGMENTS),
        segment_softmax(rows, SEGMENT, SEGMENTS),
        atol=1e-10,
        rtol=0,
    )


@pytest.mark.parametrize("function", [segment_sum, segment_mean, segment_softmax])
def test_gradients(function, rows):
    rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: function(x, SEGMENT, SEGMENTS), (rows,))


@pytest.mark.parametrize("function", [segment_sum, segment_mean, segment_max])
def test_no_rows_at_all(function):
    found = function(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 2)
    assert found.tolist() == [[0] * 4] * 2


def test_half_precision_is_summed_in_fp32():
    many = torch.ones(4096, 1, dtype=torch.bfloat16)  # in bf16, 256 + 1 is 256
    one = torch.zeros(4096, dtype=torch.int64)
    assert segment_sum(many, one, 1).item() == 4096
    assert segment_mean(many, one, 1).item() == 1
    assert segment_sum(many, one, 1).dtype == torch.bfloat16
