import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.data.collate import collate
from motet.errors import DataError
from motet.types import Layout, ModalitySpec, Piece, Sample, floats_of

SPECS = [
    ModalitySpec("text", "text", "ids", 50),
    ModalitySpec("image", "image", "vectors", 4),
    ModalitySpec("sound", "audio", "vectors", 3),
]


def make_piece(spec, count, rng, ordered=True):
    times = rng.integers(0, 5, count).astype(np.float32) / 2
    times = np.sort(times) if ordered else times
    values = rng.integers(0, 50, count) if spec.input == "ids" else rng.normal(size=(count, spec.size))
    values = values.astype(np.int64 if spec.input == "ids" else np.float32)
    place = {"row": times * 2, "col": times + 1} if spec.kind == "image" else {}
    return Piece(values, times, labels=tuple(f"{spec.name}{i}" for i in range(count)), **place)


def make_samples(counts, seed=0, ordered=True):
    """counts[b][m] tokens."""
    rng = np.random.default_rng(seed)
    return [
        Sample(str(b), {s.name: make_piece(s, n, rng, ordered) for s, n in zip(SPECS, row, strict=True) if n})
        for b, row in enumerate(counts)
    ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=6),
    st.integers(0, 99),
    st.booleans(),
)
def test_equals_layout_build(counts, seed, ordered):
    """Against a plain loop that ranks the tokens and lets Layout.build pack them."""
    samples = make_samples(counts, seed, ordered)
    batch = collate(samples, SPECS, {}, labels=True)
    rows = []  # (sample, time, modality, index, row, col, value, label)
    for b, sample in enumerate(samples):
        mine = []
        for m, spec in enumerate(SPECS):
            if (p := sample.pieces.get(spec.name)) is not None:
                for i in range(len(p)):
                    place = (0.0, 0.0) if p.row is None else (float(p.row[i]), float(p.col[i]))
                    mine.append((b, float(p.time[i]), m, i, *place, p.values[i], p.labels[i]))
        rows += sorted(mine, key=lambda r: r[1:4])
    want, order = Layout.build(
        [s.name for s in SPECS],
        torch.tensor([r[2] for r in rows], dtype=torch.int64),
        torch.tensor([r[0] for r in rows], dtype=torch.int64),
        time=torch.tensor([r[1] for r in rows]),
        row=torch.tensor([r[4] for r in rows]),
        col=torch.tensor([r[5] for r in rows]),
        samples=len(samples),
    )
    got = batch.layout
    assert got.counts == want.counts and got.samples == want.samples and got.modalities == want.modalities
    for name in ("offsets", "sample", "modality", "position", "time", "row", "col", "span"):
        a, b = getattr(got, name), getattr(want, name)
        assert a.dtype == b.dtype and torch.equal(a, b), name
    packed = [rows[i] for i in order.tolist()]
    for spec in SPECS:
        at = want.slice_of(spec.name)
        values = batch.values[spec.name].numpy()
        assert len(values) == want.counts[SPECS.index(spec)]
        for value, row in zip(values, packed[at], strict=True):
            assert (value == row[6]).all()
        assert batch.labels[spec.name] == tuple(r[7] for r in packed[at])


def test_targets_groups_and_ids():
    specs = SPECS[:1]
    rng = np.random.default_rng(0)
    samples = [
        Sample(str(i), {"text": make_piece(specs[0], 2, rng)}, targets, group)
        for i, (targets, group) in enumerate([({"y": 2}, "a"), ({}, ""), ({"z": 0.5}, "a"), ({}, "")])
    ]
    batch = collate(samples, specs, {"y": "classes", "z": "number"})
    assert batch.targets["y"].tolist() == [2, -100, -100, -100] and batch.targets["y"].dtype == torch.int64
    assert torch.isnan(batch.targets["z"]).tolist() == [True, True, False, True]
    assert batch.targets["z"].dtype == torch.float32
    group = batch.group.tolist()
    assert group[0] == group[2] and len(set(group)) == 3 and min(group) >= 0
    alone = collate(samples[2:3], specs, {})  # another process sees the same number for the same group
    assert alone.group.tolist() == [group[0]]
    assert batch.weight is None and batch.ids == ("0", "1", "2", "3")
    assert batch.labels == {}


def test_dropped_and_absent_modalities_have_no_tokens():
    samples = make_samples([(2, 3, 0), (1, 2, 2)])
    drop = np.array([[True, False, False], [False, True, False]])
    batch = collate(samples, SPECS, {}, drop=drop)
    assert batch.layout.counts == (1, 3, 2)
    assert batch.layout.present().tolist() == [[False, True, False], [True, False, True]]
    nothing = collate(make_samples([(0, 0, 0)]), SPECS, {})
    assert nothing.layout.tokens == 0 and nothing.layout.samples == 1
    assert nothing.values["image"].shape == (0, 4) and nothing.values["text"].dtype == torch.int64


def test_pieces_that_do_not_fit_are_refused():
    sample = Sample("a", {"image": Piece(np.zeros((2, 5), np.float32), np.zeros(2, np.float32))})
    with pytest.raises(DataError, match="image"):
        collate([sample], SPECS, {})
    sample = Sample("a", {"text": Piece(np.array([50]), np.zeros(1, np.float32))})
    with pytest.raises(DataError, match="the model knows 50"):
        collate([sample], SPECS, {})


def test_a_batch_of_128_takes_less_than_10_ms():
    samples = make_samples([(10, 25, 10)] * 128)
    collate(samples, SPECS, {})
    spent = []
    for _ in range(10):
        start = time.perf_counter()
        collate(samples, SPECS, {})
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.010


def test_weights_are_there_where_samples_differ():
    rng = np.random.default_rng(0)
    made = [
        Sample(str(i), {"text": make_piece(SPECS[0], 2, rng)}, weight=w) for i, w in enumerate([1.0, 0.5])
    ]
    assert collate(made, SPECS[:1], {}).weight.tolist() == [1.0, 0.5]
    assert collate(made[:1], SPECS[:1], {}).weight is None
    assert collate(made[1:], SPECS[:1], {}).weight.tolist() == [0.5]


def test_levels_of_pictures_stay_bytes_until_the_model_reads_them():
    levels = np.arange(256, dtype=np.uint8).reshape(64, 4)
    exact = levels.astype(np.float64) / 127.5 - 1
    time = np.zeros(64, np.float32)
    picture, view = Piece(levels, time), Piece(exact.astype(np.float32), time)
    spec = next(spec for spec in SPECS if spec.name == "image")
    alone = collate([Sample("a", {"image": picture})] * 2, [spec], {}).values["image"]
    assert alone.dtype == torch.uint8 and len(alone) == 128
    assert np.abs(floats_of(alone)[64:].numpy() - exact).max() < 1e-7
    both = collate([Sample("a", {"image": view}), Sample("b", {"image": picture})], [spec], {})
    assert torch.equal(floats_of(both.values["image"])[64:], floats_of(alone)[64:])
    assert np.abs(both.values["image"][:64].numpy() - exact).max() < 1e-7
