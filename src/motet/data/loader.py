"""Batches in an order that is a pure function of (data, seed, epoch, position, ranks)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from motet.data.augment import AugmentConfig
from motet.data.columns import Task
from motet.data.order import by_count, by_tokens
from motet.data.recipe import Place, Recipe, Samples, drawn, pinned, unpacked
from motet.data.workers import Pool
from motet.errors import ConfigError
from motet.types import ModalitySpec, TokenBatch


@dataclass(frozen=True)
class LoaderConfig:
    """An epoch is every sample once, in batches of at most `batch_size` and of sizes as equal as can be.

    With `tokens` above 0 a batch also has at most so many tokens, of samples of like length; a longer
    sample is alone. `workers` threads or processes (`kind`) make batches ahead of time, in the same
    order with the same content: threads where decoding takes the time, processes where Python does.
    Batches are `pin`ned in memory where there is a GPU. The masks are SpecAugment's, on sounds in
    training: up to `mask_time` of a sound's tokens and up to `mask_mel` of the `mels` bands are set
    to 0, the training mean.
    """

    batch_size: int = 128
    tokens: int = 0
    workers: int = 0
    kind: Literal["thread", "process"] = "thread"
    pin: bool = True
    mask_time: float = 0.2
    mask_mel: float = 0.2
    mels: int = 80

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0 or self.tokens < 0:
            raise ConfigError("loader: batch_size must be at least 1, workers and tokens at least 0.")
        if not (0 <= self.mask_time < 1 and 0 <= self.mask_mel < 1):
            raise ConfigError("loader: mask_time and mask_mel are shares, from 0 to below 1.")


class Loader:
    """Yields TokenBatches of a dataset.

    `modality_dropout` is the chance that a sample of two or more modalities loses a random proper
    subset of them; with `hidden` their mean features become targets. `spec_augment` masks sounds,
    `augment` changes pictures. All are drawn from (data, seed, epoch, position). Of `world` ranks each
    has its own part of every step; `batch_size` and `tokens` are of one rank. A rank's batch may be
    empty where there are fewer samples than ranks.
    """

    def __init__(
        self,
        dataset: Samples,
        specs: Sequence[ModalitySpec],
        targets: Mapping[str, Task],
        config: LoaderConfig | None = None,
        *,
        seed: int = 0,
        shuffle: bool = False,
        modality_dropout: float = 0.0,
        spec_augment: bool = False,
        augment: AugmentConfig | None = None,
        labels: bool = False,
        hidden: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if not 0 <= modality_dropout <= 1:
            raise ConfigError(f"modality_dropout {modality_dropout} is no chance between 0 and 1.")
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} of {world}: ranks are counted from 0.")
        self.dataset, self.config = dataset, config or LoaderConfig()
        self.seed, self.shuffle, self.rank, self.world = seed, shuffle, rank, world
        self.recipe = Recipe(
            dataset,
            tuple(specs),
            dict(targets),
            seed=seed,
            modality_dropout=modality_dropout,
            spec_augment=spec_augment,
            augment=augment,
            labels=labels,
            hidden=hidden,
            mask_time=self.config.mask_time,
            mask_mel=self.config.mask_mel,
            mels=self.config.mels,
        )
        self._lengths: np.ndarray | None = None
        self._pool: Pool[Place] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """The same in every epoch and on every rank."""
        if self.config.tokens:
            return len(self.order(0)) // self.world
        return -(-len(self.dataset) // (self.config.batch_size * self.world))

    def order(self, epoch: int) -> list[np.ndarray]:
        """The indices of each batch of an epoch, step by step, in each step rank by rank."""
        count, config = len(self.dataset), self.config
        random = drawn(self.dataset, self.seed, epoch, -1) if self.shuffle else None
        if not config.tokens:
            order = random.permutation(count) if random else np.arange(count)
            return by_count(order, config.batch_size, self.world)
        if self._lengths is None:
            self._lengths = _lengths_of(self.dataset)
        return by_tokens(
            self._lengths, size=config.batch_size, tokens=config.tokens, world=self.world, random=random
        )

    def batches(self, epoch: int, start: int = 0) -> Iterator[TokenBatch]:
        """The batches of an epoch from step `start` on: exactly those an unbroken epoch would give."""
        order = self.order(epoch)
        numbers = range(start * self.world + self.rank, len(order), self.world)
        places = [Place(epoch, number, order[number]) for number in numbers]
        pin = self.config.pin and torch.cuda.is_available()
        for batch in self._made(places):
            yield pinned(batch) if pin else batch

    def _made(self, places: Sequence[Place]) -> Iterator[TokenBatch]:
        if not self.config.workers:
            yield from map(self.recipe.batch, places)
        elif self.config.kind == "thread":
            yield from self._by_threads(places)
        else:
            if self._pool is None:
                self._pool = Pool(self.recipe.parcel, self.config.workers)
            yield from map(unpacked, self._pool.results(places, _name))

    def _by_threads(self, places: Sequence[Place]) -> Iterator[TokenBatch]:
        pool = ThreadPoolExecutor(self.config.workers, thread_name_prefix="motet-loader")
        ahead: deque[Future[TokenBatch]] = deque()
        try:
            for place in places:
                ahead.append(pool.submit(self.recipe.batch, place))
                if len(ahead) > self.config.workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def close(self) -> None:
        """End the worker processes; they start again when they are needed."""
        if self._pool is not None:
            self._pool.close()


def _name(place: Place) -> str:
    rows = ", ".join(map(str, place.indices[:8].tolist()))
    return f"batch {place.number} of epoch {place.epoch} (samples {rows}, ...)"


def _lengths_of(dataset: Samples) -> np.ndarray:
    """(n,) tokens of each sample."""
    known = getattr(dataset, "lengths", None)
    if known is not None:
        return np.asarray(known, np.int64)
    samples = (dataset[i] for i in range(len(dataset)))
    return np.array([sum(map(len, sample.pieces.values())) for sample in samples], np.int64)
