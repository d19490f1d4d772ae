"""Where a data set's Pieces are: in memory up to a limit, on disk, or not at all; what each cell holds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from motet.data.cache import FeatureCache, size_of
from motet.data.half import compact
from motet.data.processor import Processor, spoken_in
from motet.types import Piece

IN_WORKER = 64 * 2**20  # bytes of Pieces that a worker process is given, or keeps


class PieceStore:
    """Pieces by the content that they were made from; up to `memory_bytes` of them stay in memory."""

    def __init__(self, cache: FeatureCache, memory_bytes: int) -> None:
        self.cache, self.memory_bytes = cache, memory_bytes
        self.used = 0
        self._memory: dict[str, Piece] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For a worker process, of which there are many: it keeps little."""
        state = self.__dict__ | {"memory_bytes": min(self.memory_bytes, IN_WORKER)}
        return state if self.used <= IN_WORKER else state | {"_memory": {}, "used": 0}

    def get(self, key: str) -> Piece | None:
        found = self._memory.get(key)
        return self.cache.get(key) if found is None else found

    def length(self, key: str) -> int | None:
        """Tokens of a Piece that is in memory or on disk; from there it comes into memory if it fits."""
        found = self.get(key)
        if found is None:
            return None
        self._remember(key, found)
        return len(found)

    def keep(self, key: str, piece: Piece, *, cheap: bool) -> None:
        """In memory if it fits, and on disk unless it is `cheap` to make anew."""
        if not cheap:
            self.cache.put(key, piece)
        self._remember(key, piece)

    def _remember(self, key: str, piece: Piece) -> None:
        if key in self._memory or self.used + size_of(piece) // 2 > self.memory_bytes:
            return
        small = compact(piece)
        size = size_of(small)
        if self.used + size <= self.memory_bytes:
            self._memory[key] = small
            self.used += size


class Cells:
    """The key of every cell's content and its number of tokens, once known: 37 bytes a cell."""

    def __init__(self, modalities: Iterable[str], rows: int) -> None:
        self._digest = {m: np.zeros((rows, 32), np.uint8) for m in modalities}
        self._known = {m: np.zeros(rows, np.int8) for m in self._digest}  # 0: not, 1: empty, 2: has a key
        self._tokens = {m: np.full(rows, -1, np.int32) for m in self._digest}

    def knows(self, modality: str, row: int) -> bool:
        return bool(self._known[modality][row])

    def key(self, modality: str, row: int) -> str | None:
        """The sha256 in hexadecimal; None for an empty cell, or one that is not known."""
        return self._digest[modality][row].tobytes().hex() if self._known[modality][row] == 2 else None

    def learn(self, modality: str, row: int, key: str | None) -> None:
        self._known[modality][row] = 1 if key is None else 2
        if key is None:
            self._tokens[modality][row] = 0
        else:
            self._digest[modality][row] = np.frombuffer(bytes.fromhex(key), np.uint8)

    def count(self, modality: str, row: int, tokens: int) -> None:
        self._tokens[modality][row] = tokens

    def tokens(self, row: int) -> int | None:
        """Of all modalities of a row together; None where one is not known."""
        counts = [int(tokens[row]) for tokens in self._tokens.values()]
        return None if min(counts, default=0) < 0 else sum(counts)


def is_cheap(processor: Processor) -> bool:
    """Whether a Piece is made faster than it is read back."""
    slow = processor.spec.pretrained or spoken_in(processor)
    return processor.kind in ("text", "features") and not slow
