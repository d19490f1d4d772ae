"""Batches in an order that is a pure function of (data, seed, epoch, position)."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch

from motet.data.collate import collate
from motet.errors import ConfigError
from motet.types import ModalitySpec, Sample, TokenBatch


class Samples(Protocol):
    """What a Loader reads: `Dataset`, or any sequence of Samples with a fingerprint."""

    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> Sample: ...


@dataclass(frozen=True)
class LoaderConfig:
    """An epoch is every sample once, in batches of at most `batch_size` and of sizes as equal as can be.

    `workers` threads make batches ahead of time, in the same order with the same content. The masks
    are SpecAugment's, on sounds in training: up to `mask_time` of a sound's tokens and up to
    `mask_mel` of the `mels` bands are set to 0, the training mean.
    """

    batch_size: int = 128
    workers: int = 0
    mask_time: float = 0.2
    mask_mel: float = 0.2
    mels: int = 80

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise ConfigError("loader: batch_size must be at least 1 and workers at least 0.")
        if not (0 <= self.mask_time < 1 and 0 <= self.mask_mel < 1):
            raise ConfigError("loader: mask_time and mask_mel are shares, from 0 to below 1.")


class Loader:
    """Yields TokenBatches of a dataset.

    `modality_dropout` is the chance that a sample of two or more modalities loses a random proper
    subset of them. `spec_augment` masks sounds. Both are drawn from (data, seed, epoch, position).
    """

    def __init__(
        self,
        dataset: Samples,
        specs: Sequence[ModalitySpec],
        targets: Mapping[str, Literal["classes", "number"]],
        config: LoaderConfig | None = None,
        *,
        seed: int = 0,
        shuffle: bool = False,
        modality_dropout: float = 0.0,
        spec_augment: bool = False,
        labels: bool = False,
    ) -> None:
        if not 0 <= modality_dropout <= 1:
            raise ConfigError(f"modality_dropout {modality_dropout} is no chance between 0 and 1.")
        self.dataset, self.specs, self.targets = dataset, tuple(specs), dict(targets)
        self.config, self.seed, self.shuffle = config or LoaderConfig(), seed, shuffle
        self.modality_dropout, self.spec_augment, self.labels = modality_dropout, spec_augment, labels

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.dataset) // self.config.batch_size)

    def order(self, epoch: int) -> list[np.ndarray]:
        """The indices of each batch of an epoch."""
        count = len(self.dataset)
        order = self._random(epoch, -1).permutation(count) if self.shuffle else np.arange(count)
        return np.array_split(order, self.steps_per_epoch) if count else []

    def batches(self, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
        """The batches of an epoch from number `start` on: exactly those an unbroken epoch would give."""
        order = self.order(epoch)
        if not self.config.workers:
            for position in range(start, len(order)):
                yield self._batch(epoch, position, order[position])
            return
        pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="motet-loader")
        ahead: deque[Future[TokenBatch]] = deque()
        try:
            for position in range(start, len(order)):
                ahead.append(pool.submit(self._batch, epoch, position, order[position]))
                if len(ahead) > self.config.workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, epoch: int, position: int, indices: np.ndarray) -> TokenBatch:
        samples = [self.dataset[int(i)] for i in indices]
        random = self._random(epoch, position)
        drop = self._drop(samples, random) if self.modality_dropout else None
        batch = collate(samples, self.specs, self.targets, drop=drop, labels=self.labels)
        return self._masked(batch, random) if self.spec_augment else batch

    def _random(self, epoch: int, position: int) -> np.random.Generator:
        key = f"{self.dataset.fingerprint}:{self.seed}:{epoch}:{position}".encode()
        return np.random.default_rng(np.frombuffer(hashlib.sha256(key).digest(), np.uint32))

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
            if spec.kind != "audio" or spec.pretrained or spec.size % self.config.mels:
                continue
            mel = values[spec.name].numpy().reshape(-1, spec.size // self.config.mels, self.config.mels)
            of = batch.layout.sample[batch.layout.slice_of(spec.name)].numpy()
            ends = np.flatnonzero(np.diff(of, append=-1)) + 1
            for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True) if len(of) else ():
                low, high = _span(end - start, self.config.mask_time, random)
                mel[start + low : start + high] = 0
                low, high = _span(self.config.mels, self.config.mask_mel, random)
                mel[start:end, :, low:high] = 0
            values[spec.name] = torch.from_numpy(mel.reshape(-1, spec.size))
        return replace(batch, values=values)


def _span(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """A random span of at most `share` of `length`."""
    width = int(random.integers(0, int(length * share) + 1))
    start = int(random.integers(0, length - width + 1))
    return start, start + width
