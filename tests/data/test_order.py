import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.data.loader import Loader, LoaderConfig
from motet.data.order import by_count, by_tokens
from motet.errors import ConfigError
from motet.types import ModalitySpec, Piece, Sample

LENGTHS = st.lists(st.integers(0, 300), max_size=120).map(lambda n: np.array(n, np.int64))


@settings(max_examples=150, deadline=None)
@given(LENGTHS, st.integers(1, 20), st.integers(1, 400), st.integers(1, 4), st.booleans())
def test_an_epoch_is_every_sample_once_within_the_limits(lengths, size, tokens, world, shuffle):
    def parts(seed):
        random = np.random.default_rng(seed) if shuffle else None
        return by_tokens(lengths, size=size, tokens=tokens, world=world, random=random)

    first = parts(0)
    assert sorted(np.concatenate([*first, np.zeros(0, int)]).tolist()) == list(range(len(lengths)))
    assert len(first) % world == 0
    for part in first:
        assert len(part) <= size and (len(part) == 1 or lengths[part].sum() <= tokens)
    assert {len(parts(seed)) for seed in range(1, 4)} <= {len(first)}  # every epoch has as many steps
    if not shuffle:
        assert np.concatenate([*first, np.zeros(0, int)]).tolist() == list(range(len(lengths)))
    counted = by_count(np.arange(len(lengths)), size, world)
    assert len(counted) % world == 0 and sum(map(len, counted)) == len(lengths)
    assert all(len(part) <= size for part in counted)


def test_batches_are_full_and_of_like_lengths():
    random = np.random.default_rng(0)
    lengths = np.exp(random.normal(4, 0.8, 2000)).astype(np.int64) + 1
    parts = by_tokens(lengths, size=10_000, tokens=2000, world=1, random=random)
    assert len(parts) <= 1.12 * lengths.sum() / 2000 + 1
    padded = sum(len(p) * lengths[p].max() for p in parts)
    assert padded < 1.25 * lengths.sum()
    assert lengths[parts[0]].mean() != min(lengths[p].mean() for p in parts)  # short ones do not come first


class Rows:
    """Samples of growing length; no lengths are told, so the loader looks."""

    fingerprint = "rows"

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        n = 1 + i * 7 % 50
        return Sample(str(i), {"text": Piece(np.full(n, i), np.arange(n, dtype=np.float32))})


def loader(count=100, rank=0, world=1, seed=0, **config):
    specs = [ModalitySpec("text", "text", "ids", 1000)]
    return Loader(
        Rows(count), specs, {}, LoaderConfig(**config), shuffle=True, seed=seed, rank=rank, world=world
    )


def ids(one, epoch=0, start=0):
    return [b.ids for b in one.batches(epoch, start)]


CONFIGS = [{"batch_size": 8}, {"batch_size": 16, "tokens": 200}, {"batch_size": 1}, {"tokens": 3}]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_an_epoch_and_resume_in_its_middle(config, world):
    ranks = [loader(rank=r, world=world, **config) for r in range(world)]
    whole = [ids(one, epoch=1) for one in ranks]
    assert sorted(int(i) for rank in whole for batch in rank for i in batch) == list(range(100))
    assert {len(rank) for rank in whole} == {one.steps_per_epoch for one in ranks}
    for rank, batches in enumerate(whole):
        for start in (0, 1, len(batches) // 2, len(batches)):
            again = loader(rank=rank, world=world, **config)
            assert ids(again, 1, start) == batches[start:]
    assert whole != [ids(one, epoch=2) for one in ranks]
    assert whole != [ids(loader(rank=r, world=world, seed=1, **config), 1) for r in range(world)]


def test_the_limit_of_tokens_holds_for_batches():
    batches = list(loader(tokens=120).batches(0))
    assert max(b.layout.tokens for b in batches) <= 120 and len(batches) < 40
    assert sum(b.layout.tokens for b in batches) == sum(1 + i * 7 % 50 for i in range(100))


def test_more_ranks_than_samples_gives_empty_batches():
    sizes = [[len(b) for b in ids(loader(3, rank=r, world=4))] for r in range(4)]
    assert sorted(sizes) == [[0], [1], [1], [1]]
    empty = next(b for r in range(4) for b in loader(3, rank=r, world=4).batches(0) if not b.ids)
    assert empty.layout.tokens == 0 and empty.values["text"].dtype == torch.int64
    assert (
        ids(loader(0)) == [] and ids(loader(0, tokens=5)) == [] and loader(0, tokens=5).steps_per_epoch == 0
    )


def test_wrong_use_is_named():
    with pytest.raises(ConfigError, match="tokens"):
        LoaderConfig(tokens=-1)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        loader(rank=2, world=2)
