"""What modality dropout hides becomes a target, and only that."""

import numpy as np
import torch

from motet.data.hidden import hidden_features
from motet.data.loader import Loader, LoaderConfig
from motet.types import ModalitySpec, Piece, Sample

SPECS = (
    ModalitySpec("text", "text", "ids", 9),
    ModalitySpec("image", "image", "vectors", 3, pretrained="an encoder"),
    ModalitySpec("sound", "audio", "vectors", 2),
)


class Rows(list):
    fingerprint = "rows"


def rows(count: int = 12) -> Rows:
    rng = np.random.default_rng(0)
    made = Rows()
    for i in range(count):
        time = np.zeros(2, np.float32)
        image = Piece(rng.normal(size=(2, 3)).astype(np.float32), time)
        sound = Piece(rng.normal(size=(2, 2)).astype(np.float32), time)
        pieces = {"text": Piece(np.array([i % 9, 1]), time), "image": image, "sound": sound}
        made.append(Sample(str(i), {k: v for k, v in pieces.items() if i % 4 or k != "image"}))
    return made


def test_dropped_features_are_their_mean_and_others_missing() -> None:
    samples, drop = rows(4), np.zeros((4, 3), bool)
    drop[0] = drop[1] = [False, True, True]  # sample 0 has no image to hide
    found = hidden_features(samples, SPECS, drop)
    assert found.keys() == {"hidden/image"}  # raw sounds are no features
    assert found["hidden/image"].isnan().all(1).tolist() == [True, False, True, True]
    mean = samples[1].pieces["image"].values.mean(0)
    assert torch.equal(found["hidden/image"][1], torch.from_numpy(mean))


def test_the_loader_gives_them_exactly_where_the_tokens_are_gone() -> None:
    samples = rows()
    loader = Loader(samples, SPECS, {}, LoaderConfig(batch_size=12), modality_dropout=0.9, hidden=True)
    (batch,) = loader.batches(0)
    present, known = batch.layout.present()[:, 1], ~batch.targets["hidden/image"].isnan().any(1)
    had = torch.tensor(["image" in samples[int(i)].pieces for i in batch.ids])
    assert bool(known.any()) and torch.equal(known, had & ~present)
    plain = Loader(samples, SPECS, {}, LoaderConfig(batch_size=12), modality_dropout=0.9)
    (other,) = plain.batches(0)
    assert torch.equal(other.layout.present(), batch.layout.present()) and not other.targets
