"""What is in a batch: its samples, what training leaves out or changes of them, all drawn from its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from motet.data.augment import AugmentConfig, augmented, can_augment
from motet.data.collate import collate
from motet.data.columns import Task
from motet.data.hidden import hidden_features
from motet.data.workers import Parcel
from motet.types import ModalitySpec, Sample, TokenBatch


class Samples(Protocol):
    """What a Loader reads: `Dataset`, or any sequence of Samples with a fingerprint."""

    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Sample: ...


@dataclass(frozen=True)
class Place:
    """One batch of an epoch: its number among all (of every rank), and its samples."""

    epoch: int
    number: int
    indices: np.ndarray


@dataclass(frozen=True, eq=False)
class Recipe:
    """Makes any batch by itself, here or in another process; see `Loader` for the parts."""

    dataset: Samples
    specs: tuple[ModalitySpec, ...]
    targets: Mapping[str, Task]
    seed: int = 0
    modality_dropout: float = 0.0
    spec_augment: bool = False
    augment: AugmentConfig | None = None
    labels: bool = False
    hidden: bool = False
    mask_time: float = 0.2
    mask_mel: float = 0.2
    mels: int = 80

    def batch(self, place: Place) -> TokenBatch:
        samples = self._samples(place.indices.tolist())
        random = drawn(self.dataset, self.seed, place.epoch, place.number)
        drop = self._drop(samples, random) if self.modality_dropout else None
        hidden = hidden_features(samples, self.specs, drop) if self.hidden else {}
        if self.augment is not None:
            samples = self._augmented(samples, self.augment, place)
        batch = collate(samples, self.specs, self.targets, drop=drop, labels=self.labels)
        batch = replace(batch, targets={**batch.targets, **hidden})
        return self._masked(batch, random) if self.spec_augment else batch

    def _samples(self, indices: Sequence[int]) -> list[Sample]:
        many = getattr(self.dataset, "many", None)  # a Dataset makes several faster than one by one
        return [self.dataset[i] for i in indices] if many is None else many(indices)

    def parcel(self, place: Place) -> Parcel:
        """The same for the way between processes."""
        arrays: list[np.ndarray] = []

        def put(tensor: Tensor) -> int:
            arrays.append(tensor.numpy())
            return len(arrays) - 1

        return Parcel(mapped(self.batch(place), put), arrays)

    def _augmented(self, samples: Sequence[Sample], config: AugmentConfig, place: Place) -> list[Sample]:
        names = [spec.name for spec in self.specs if can_augment(spec)]
        random = drawn(self.dataset, self.seed, place.epoch, place.number, "augment")
        out = []
        for sample in samples:
            views = {m: augmented(sample.pieces[m], config, random) for m in names if m in sample.pieces}
            out.append(replace(sample, pieces={**sample.pieces, **views}))
        return out

    def _drop(self, samples: Sequence[Sample], random: np.random.Generator) -> np.ndarray:
        """(B, M) bool: which modalities each sample loses; never all that it has."""
        drop = np.zeros((len(samples), len(self.specs)), bool)
        chosen = random.random(len(samples)) < self.modality_dropout
        draws = random.random(len(samples))
        for b in np.flatnonzero(chosen):
            has = [m for m, spec in enumerate(self.specs) if len(samples[int(b)].pieces.get(spec.name, ()))]
            if len(has) > 1:
                subset = 1 + int(draws[b] * (2 ** len(has) - 2))  # every subset but none and all
                drop[b, [m for bit, m in enumerate(has) if subset >> bit & 1]] = True
        return drop

    def _masked(self, batch: TokenBatch, random: np.random.Generator) -> TokenBatch:
        """One span of time and one of mel bands of every sound to 0 (Park et al. 2019, arXiv:1904.08779)."""
        values = dict(batch.values)
        for spec in self.specs:
            if spec.kind != "audio" or spec.pretrained or spec.size % self.mels:
                continue
            mel = values[spec.name].numpy().reshape(-1, spec.size // self.mels, self.mels)
            of = batch.layout.sample[batch.layout.slice_of(spec.name)].numpy()
            ends = np.flatnonzero(np.diff(of, append=-1)) + 1
            for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True) if len(of) else ():
                low, high = _span(end - start, self.mask_time, random)
                mel[start + low : start + high] = 0
                low, high = _span(self.mels, self.mask_mel, random)
                mel[start:end, :, low:high] = 0
            values[spec.name] = torch.from_numpy(mel.reshape(-1, spec.size))
        return replace(batch, values=values)


def drawn(dataset: Samples, seed: int, epoch: int, number: int, what: str = "") -> np.random.Generator:
    """The random numbers of one batch (number -1: of the order of an epoch)."""
    key = f"{dataset.fingerprint}:{seed}:{epoch}:{number}{what}".encode()
    return np.random.default_rng(np.frombuffer(hashlib.sha256(key).digest(), np.uint32))


def mapped(batch: TokenBatch, change: Callable[[Any], Any]) -> TokenBatch:
    """The batch with every tensor changed."""
    layout = batch.layout
    tensors = {f.name: getattr(layout, f.name) for f in fields(layout)}
    plain = ("modalities", "counts", "samples")
    return replace(
        batch,
        layout=replace(layout, **{name: change(v) for name, v in tensors.items() if name not in plain}),
        values={name: change(value) for name, value in batch.values.items()},
        targets={name: change(value) for name, value in batch.targets.items()},
        group=change(batch.group),
        weight=None if batch.weight is None else change(batch.weight),
    )


def unpacked(parcel: Parcel) -> TokenBatch:
    """The batch in what `Recipe.parcel` gave."""
    return mapped(parcel.rest, lambda at: torch.from_numpy(parcel.arrays[at]))


def pinned(batch: TokenBatch) -> TokenBatch:
    """In memory from which a GPU copies without waiting."""
    return mapped(batch, Tensor.pin_memory)


def _span(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """A random span of at most `share` of `length`."""
    width = int(random.integers(0, int(length * share) + 1))
    start = int(random.integers(0, length - width + 1))
    return start, start + width
