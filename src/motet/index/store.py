"""What an index needs of a store, and what is stored of a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from motet.index.filter import Filter
from motet.types import Hit


@dataclass(frozen=True, eq=False)
class Row:
    """What is stored of a row. `digest` changes with its content; vectors: modality -> (E,), one or more.

    `thumbnail` is a small WebP picture of the row's media, empty where there is none.
    """

    id: str
    digest: str
    fields: Mapping[str, Any]
    vectors: Mapping[str, np.ndarray]
    thumbnail: bytes = b""


class Store(Protocol):
    """Rows with their vectors. What `write` has returned from survives a crash, and every reader sees it."""

    def __len__(self) -> int: ...

    def refresh(self) -> None:
        """See what others have committed since."""

    def get(self, id: str) -> Row | None: ...

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """id -> digest of those that are there."""

    def thumbnails(self, ids: Sequence[str]) -> dict[str, bytes]:
        """id -> thumbnail of those that have one."""

    def has_field(self, name: str) -> bool:
        """Whether any row has a cell of this name that a filter can read."""

    def fields(self) -> set[str]:
        """Names of fields, for messages: all, or those of some rows where there are many."""

    def has_modality(self, name: str) -> bool:
        """Whether any row has a vector of this modality."""

    def modalities(self) -> set[str]:
        """For messages, as `fields`."""

    def rows(self) -> Iterator[Row]:
        """All rows, in no order."""

    def write(self, put: Sequence[Row] = (), delete: Iterable[str] = ()) -> int:
        """Add or replace rows, take ids out; how many rows went or were replaced.

        One writer at a time: the index holds its lock.

        Raises:
            StorageError: no space, or the store cannot be written or reached.
        """

    def search(
        self, query: np.ndarray, top: int, *, modality: str | None = None, where: Filter | None = None
    ) -> list[Hit]:
        """The rows nearest to `query` (E,), of unit length, by cosine; a row counts by its best vector."""

    def search_many(
        self, queries: np.ndarray, top: int, *, modality: str | None = None, where: Filter | None = None
    ) -> list[list[Hit]]:
        """`search` for each of the queries (Q, E), faster than one by one."""

    def stale(self) -> bool:
        """Whether `flush` has enough to do that it is worth doing now."""

    def flush(self) -> None:
        """Bring what speeds up searching up to date; searches go on meanwhile and miss nothing."""

    def drop(self) -> None:
        """Delete all of it."""
