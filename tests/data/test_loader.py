import numpy as np
import pytest
import torch

from motet.data.loader import Loader, LoaderConfig
from motet.errors import ConfigError
from motet.types import ModalitySpec, Piece, Sample

SPECS = [ModalitySpec("text", "text", "ids", 1000), ModalitySpec("sound", "audio", "vectors", 160)]


class Rows:
    fingerprint = "rows"

    def __init__(self, count, third=False):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        text = Piece(np.array([i, i]), np.zeros(2, np.float32), labels=("a", "b"))
        sound = Piece(np.ones((10, 160), np.float32), np.arange(10, dtype=np.float32))
        return Sample(str(i), {"text": text, "sound": sound} if i % 5 else {"text": text}, {"y": i % 3})


def loader(count=50, workers=0, **options):
    config = LoaderConfig(batch_size=8, workers=workers)
    return Loader(Rows(count), SPECS, {"y": "classes"}, config, **options)


def same(a, b):
    assert a.ids == b.ids
    assert all(torch.equal(a.values[m], b.values[m]) for m in a.values)
    assert torch.equal(a.layout.position, b.layout.position) and torch.equal(a.group, b.group)
    return True


OPTIONS = {"shuffle": True, "modality_dropout": 0.5, "spec_augment": True, "seed": 3}


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_at_k_gives_exactly_the_batches_from_k_on(workers):
    whole = list(loader(**OPTIONS).batches(2))
    for k in range(len(whole) + 1):
        rest = list(loader(workers=workers, **OPTIONS).batches(2, start=k))
        assert len(rest) == len(whole) - k and all(map(same, rest, whole[k:]))


def test_an_epoch_is_every_sample_once_in_even_batches():
    batches = list(loader(shuffle=True).batches(0))
    assert len(batches) == loader().steps_per_epoch == 7
    assert sorted(int(i) for b in batches for i in b.ids) == list(range(50))
    assert {len(b.ids) for b in batches} == {7, 8}
    assert [i for b in loader().batches(0) for i in b.ids] == [str(i) for i in range(50)]


def test_order_depends_on_seed_epoch_and_data():
    def ids(fingerprint="rows", epoch=0, seed=0):
        one = loader(shuffle=True, seed=seed)
        one.dataset.fingerprint = fingerprint
        return [i for b in one.batches(epoch) for i in b.ids]

    assert ids() == ids()
    assert len({tuple(o) for o in (ids(), ids(seed=1), ids(epoch=1), ids("others"))}) == 4


def test_modality_dropout_never_takes_all():
    batches = list(loader(400, modality_dropout=1.0).batches(0))
    present = torch.cat([b.layout.present() for b in batches])
    has_both = torch.arange(400) % 5 != 0
    assert present.any(1).all() and (present[has_both].sum(1) == 1).all()
    assert 100 < present[has_both][:, 0].sum() < 220  # both are dropped about equally often
    assert torch.equal(torch.cat([b.layout.present() for b in loader(400).batches(0)])[:, 1], has_both)


def test_masks_are_spans_of_sounds_only():
    plain = next(loader().batches(0))
    masked = next(loader(spec_augment=True).batches(0))
    assert torch.equal(plain.values["text"], masked.values["text"])
    sounds = masked.values["sound"].reshape(-1, 10, 2, 80)
    assert (sounds == 0).any() and (sounds == 0).float().mean() < 0.45
    for sound in sounds:  # a band of mel is masked at every time, a token in every band
        times, bands = (sound == 0).all(-1).all(-1), (sound == 0).all(0).all(0)
        assert torch.equal(sound == 0, (times[:, None, None] | bands).expand(10, 2, 80))


def test_labels_come_when_asked():
    assert next(loader(labels=True).batches(0)).labels["text"][:2] == ("a", "b")


def test_stopping_early_leaves_no_thread():
    import threading

    batches = loader(workers=2).batches(0)
    next(batches)
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("motet-loader")]


def test_wrong_use_is_named():
    with pytest.raises(ConfigError, match="batch_size"):
        LoaderConfig(batch_size=0)
    with pytest.raises(ConfigError, match="modality_dropout"):
        loader(modality_dropout=2.0)
