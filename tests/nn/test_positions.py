"""Positions: what a score may depend on, and places that were not trained on."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.errors import ConfigError
from motet.nn.positions import (
    LearnedGrid,
    LearnedPositions,
    Rotary,
    RotaryConfig,
    apply_rotary,
    sinusoidal,
    sinusoidal_grid,
)
from motet.types import Layout

F64 = torch.float64


def layout_of(time, row=None, col=None, modality=None) -> Layout:
    time = torch.as_tensor(time, dtype=torch.float32)
    modality = torch.zeros(len(time), dtype=torch.int64) if modality is None else torch.tensor(modality)
    names = ("text", "image", "audio")
    place = {
        k: torch.as_tensor(v, dtype=torch.float32) for k, v in (("row", row), ("col", col)) if v is not None
    }
    return Layout.build(names, modality, torch.zeros_like(modality), time=time, samples=1, **place)[0]


def scores(layout: Layout, config: RotaryConfig, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    rotation = Rotary(config, q.shape[-1])(layout, torch.float64)
    return torch.einsum("ihk,jhk->hij", apply_rotary(q, rotation), apply_rotary(k, rotation))


@given(
    shift=st.tuples(st.integers(0, 3600), st.integers(0, 40), st.integers(0, 40)),
    unit=st.sampled_from([0.1, 0.5, 1.0]),
)
@settings(max_examples=20, deadline=None)
def test_scores_depend_only_on_differences_in_time_row_and_column(shift, unit):
    draw = torch.Generator().manual_seed(1)
    q, k = torch.randn(2, 1, 2, 16, dtype=F64, generator=draw).expand(2, 5, 2, 16)
    time, row, col = torch.randint(0, 8, (3, 5), generator=draw).float()
    here = scores(layout_of(time, row, col), RotaryConfig(time_unit=unit), q, k)
    moved = layout_of(time + shift[0], row + shift[1], col + shift[2])
    torch.testing.assert_close(scores(moved, RotaryConfig(time_unit=unit), q, k), here, atol=1e-9, rtol=0)


@pytest.mark.parametrize("axis", ["time", "row", "col"])
def test_every_axis_is_felt(axis):
    q = torch.ones(2, 1, 16, dtype=F64)
    places = {"time": [0, 0], "row": [0, 0], "col": [0, 0]} | {axis: [0, 1]}
    score = scores(layout_of(**places), RotaryConfig(), q, q)[0]
    assert score[0, 1] < score[0, 0] - 1e-3


def test_each_pair_turns_by_place_times_its_frequency():
    config = RotaryConfig(time=0.5, row=0.25, col=0.25, base=100.0, grid_base=10.0, time_unit=0.5)
    rotation = Rotary(config, 16)(layout_of([1.5], [2.0], [3.0]), F64)
    time_steps = [3.0 * 100 ** (-i / 4) for i in range(4)]
    expected = [*time_steps, 2.0, 2.0 * 10**-0.5, 3.0, 3.0 * 10**-0.5]
    torch.testing.assert_close(rotation.cos[0], torch.tensor([math.cos(a) for a in expected], dtype=F64))
    torch.testing.assert_close(rotation.sin[0], torch.tensor([math.sin(a) for a in expected], dtype=F64))


def test_tokens_without_a_grid_turn_by_time_only():
    rotation = Rotary(RotaryConfig(), 16)(layout_of([2.0]))
    assert rotation.cos[0, 4:].tolist() == [1.0] * 4
    assert rotation.sin[0, 4:].tolist() == [0.0] * 4
    assert (rotation.cos[0, :4] != 1).all()


def test_the_same_second_in_two_modalities_has_the_same_rotation():
    layout = layout_of([0.3, 2.4, 2.4, 1.0], modality=[0, 0, 2, 2])
    rotation = Rotary(RotaryConfig(), 8)(layout)
    same = layout.time == torch.tensor(2.4)
    assert layout.modality[same].tolist() == [0, 2]
    assert torch.equal(*rotation.cos[same])
    assert torch.equal(*rotation.sin[same])


def test_what_the_shares_leave_is_not_turned():
    x = torch.randn(3, 2, 16, dtype=F64)
    rotation = Rotary(RotaryConfig(time=0.5, row=0, col=0), 16)(layout_of([0.0, 1, 2]), F64)
    turned = apply_rotary(x, rotation)
    assert torch.equal(turned[..., 4:8], x[..., 4:8])
    assert torch.equal(turned[..., 12:], x[..., 12:])
    assert not torch.allclose(turned[1:, :, :4], x[1:, :, :4])


def test_rotation_keeps_lengths_and_type():
    rotation = Rotary(RotaryConfig(time_unit=0.01), 32)(layout_of([0.0, 7.0, 3600.0], [0, 5, 90], [3, 0, 90]))
    assert rotation.cos.dtype == torch.float32
    x = torch.randn(3, 4, 32)
    torch.testing.assert_close(apply_rotary(x, rotation).norm(dim=-1), x.norm(dim=-1))
    for dtype in (torch.bfloat16, torch.float64):
        assert apply_rotary(x.to(dtype), rotation).dtype == dtype


def test_a_model_in_bf16_keeps_exact_frequencies():
    layout = layout_of([100.0])
    expected = Rotary(RotaryConfig(), 8)(layout)
    assert torch.equal(Rotary(RotaryConfig(), 8).bfloat16()(layout).cos, expected.cos)


@pytest.mark.parametrize("head_size", [4, 6, 10, 64, 128])
@pytest.mark.parametrize("shares", [(1.0, 0, 0), (0.5, 0.25, 0.25), (0.4, 0.3, 0.3), (0.2, 0.1, 0.1)])
def test_any_division_of_a_head(head_size, shares):
    time, row, col = shares
    config = RotaryConfig(time=time, row=row, col=col)
    try:
        rotary = Rotary(config, head_size)
    except ConfigError as error:
        assert "less than one pair" in str(error)
        assert min(s for s in shares if s) * head_size / 2 < 1
        return
    assert rotary(layout_of([1.0])).cos.shape == (1, head_size // 2)
    if sum(shares) == pytest.approx(1):
        assert rotary.still == 0


@pytest.mark.parametrize(
    "wrong", [{"time": 0.8}, {"row": -0.1}, {"time": 0, "row": 0, "col": 0}, {"time_unit": 0}]
)
def test_wrong_shares_and_units_are_refused(wrong):
    with pytest.raises(ConfigError, match="rotary"):
        RotaryConfig(**wrong)


def test_odd_heads_are_refused():
    with pytest.raises(ConfigError, match="even"):
        Rotary(RotaryConfig(), 7)


def test_rotary_compiles_without_a_graph_break():
    layout = layout_of([0.0, 1.0, 2.5])
    rotation = Rotary(RotaryConfig(), 8)(layout)
    x = torch.randn(3, 2, 8)
    compiled = torch.compile(apply_rotary, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, rotation), apply_rotary(x, rotation))


def test_sinusoidal_equals_the_papers_formula():
    values = torch.tensor([0.0, 0.37, 12.5, 4000.0], dtype=F64)
    found = sinusoidal(values, 10)
    for t, value in enumerate(values.tolist()):
        for i in range(5):
            angle = value / 10000 ** (2 * i / 10)
            assert found[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
            assert found[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


def test_sinusoidal_scores_depend_on_the_distance():
    near = sinusoidal(torch.tensor([3.0, 4.5], dtype=F64), 32)
    far = sinusoidal(torch.tensor([9003.0, 9004.5], dtype=F64), 32)
    torch.testing.assert_close(near[0] @ near[1], far[0] @ far[1], atol=1e-9, rtol=0)


def test_sinusoidal_grid_is_half_row_half_column():
    row, col = torch.tensor([0.0, 2.0]), torch.tensor([5.0, 1.5])
    found = sinusoidal_grid(row, col, 12)
    torch.testing.assert_close(found, torch.cat((sinusoidal(row, 6), sinusoidal(col, 6)), dim=1))
    with pytest.raises(ConfigError, match="multiple of 4"):
        sinusoidal_grid(row, col, 10)
    with pytest.raises(ConfigError, match="odd"):
        sinusoidal(row, 5)


def test_learned_positions_are_exact_where_trained():
    learned = LearnedPositions(6, 4).double()
    position = torch.arange(6)
    assert torch.equal(learned(position), learned.table)
    assert torch.equal(learned(position[:4], length=4), learned.table[:4])


def test_learned_positions_between_and_beyond():
    learned = LearnedPositions(6, 4).double()
    halfway = learned(torch.tensor([2.5], dtype=F64))[0]
    torch.testing.assert_close(halfway, (learned.table[2] + learned.table[3]) / 2)
    assert torch.equal(learned(torch.tensor([50.0]))[0], learned.table[5])
    longer = learned(torch.arange(11.0), length=11)  # 11 places on 6: every second is a trained one
    torch.testing.assert_close(longer[::2], learned.table)
    torch.testing.assert_close(longer[1], (learned.table[0] + learned.table[1]) / 2)


def test_a_sequences_positions_do_not_depend_on_its_neighbours_length():
    learned = LearnedPositions(6, 4).double()
    together = learned(torch.tensor([0, 1, 0, 10]), length=torch.tensor([2.0, 2.0, 11.0, 11.0]))
    torch.testing.assert_close(together, learned.table[[0, 1, 0, 5]])


@given(rows=st.integers(1, 9), cols=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_a_learned_grid_equals_the_bilinearly_resized_table(rows, cols):
    torch.manual_seed(0)
    grid = LearnedGrid(4, 5, 3).double()
    row, col = (
        a.flatten().double() for a in torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    )
    table = grid.table.permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(table, (rows, cols), mode="bilinear", align_corners=False)
    expected = resized[0].permute(1, 2, 0).reshape(rows * cols, 3)
    torch.testing.assert_close(grid(row, col, rows, cols), expected, atol=1e-12, rtol=0)


def test_a_learned_grid_is_exact_at_the_trained_size():
    grid = LearnedGrid(2, 3, 4)
    row, col = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 0, 1, 2])
    assert torch.equal(grid(row, col, 2, 3), grid.table.flatten(0, 1))
    assert torch.equal(grid(row, col), grid.table.flatten(0, 1))


def test_places_not_trained_on_are_finite_and_smooth():
    fine = torch.arange(0, 500, 0.01, dtype=F64)
    step = sinusoidal(fine, 16).diff(dim=0).abs().max()
    assert step <= 0.01
    learned = LearnedPositions(8, 4).double()
    jump = learned.table.diff(dim=0).abs().max()
    assert learned(fine, length=500.0).diff(dim=0).abs().max() <= 0.01 * jump
    rotation = Rotary(RotaryConfig(time_unit=1.0), 16)(
        layout_of(fine.float() * 20, fine.float(), fine.float()), F64
    )
    assert rotation.cos.isfinite().all()
    assert rotation.cos.diff(dim=0).abs().max() <= 0.21  # 0.2 s a step, one radian a second at most
