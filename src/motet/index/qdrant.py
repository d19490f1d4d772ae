"""Qdrant, by address: `qdrant://host:6333` (extra `scale`). The server keeps and indexes the rows."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.errors import ConfigError, StorageError, missing_extra
from motet.index.entries import (
    FOUND,
    Among,
    Condition,
    Entry,
    Found,
    all_of,
    field_key,
    kind_of,
    plain_vector,
)
from motet.index.filter import Compare, Empty, Every, Some

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

PAGE = 256
ENTRY = ("id", "digest", "modality", "first", "fields")
_RANGE = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}


class QdrantDatabase:
    """A `Database` in one collection of a server; the server sees every write at once."""

    def __init__(self, address: str, collection: str, width: int) -> None:
        self.address, self.collection = address, collection
        self._client = connect(address)
        from qdrant_client import models

        self._models = models
        with self._asking():
            if not self._client.collection_exists(collection):
                size = models.VectorParams(size=width, distance=models.Distance.COSINE)
                self._client.create_collection(collection, vectors_config=size)
                for name, kind in (("id", "keyword"), ("modality", "keyword"), ("first", "bool")):
                    self._client.create_payload_index(collection, name, models.PayloadSchemaType(kind))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from httpx import HTTPError
        from qdrant_client.http.exceptions import ApiException

        try:
            yield
        except (ApiException, HTTPError, OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise StorageError(
                f"{self.address}, collection {self.collection}: {reason}. Check that the server runs there."
            ) from None

    def refresh(self) -> None:
        """Nothing is kept here."""

    def put(self, entries: Sequence[Entry], *, fresh: bool) -> None:
        points = [
            self._models.PointStruct(
                id=e.key,
                vector=plain_vector(e.vector).tolist(),
                payload={
                    "id": e.id,
                    "digest": e.digest,
                    "modality": e.modality,
                    "first": e.first,
                    "fields": e.fields,
                    "thumbnail": b64encode(e.thumbnail).decode(),
                    **e.cells,
                },
            )
            for e in entries
        ]
        with self._asking():
            for start in range(0, len(points), PAGE):
                self._client.upsert(self.collection, points[start : start + PAGE], wait=True)

    def remove(self, condition: Condition) -> None:
        wanted = self._filter(condition) or self._models.Filter()
        with self._asking():
            selector = self._models.FilterSelector(filter=wanted)
            self._client.delete(self.collection, selector, wait=True)

    def count(self, *conditions: Condition) -> int:
        with self._asking():
            return self._client.count(
                self.collection, count_filter=self._filter(*conditions), exact=True
            ).count

    def fetch(
        self, condition: Condition, *, limit: int | None = None, whole: bool = False
    ) -> Iterator[Entry]:
        payload = True if whole else [*ENTRY]
        yield from (_entry(point) for point in self._points(payload, whole, condition, limit=limit))

    def thumbnails(self, condition: Condition) -> dict[str, bytes]:
        points = self._points(["id", "thumbnail"], False, condition, Among("first", (True,)))
        said = {point.payload["id"]: b64decode(point.payload["thumbnail"]) for point in points}
        return {id: thumbnail for id, thumbnail in said.items() if thumbnail}

    def _points(
        self, payload: bool | list[str], vectors: bool, *conditions: Condition, limit: int | None = None
    ) -> Iterator[Any]:
        left, place = limit, None
        while left is None or left > 0:
            with self._asking():
                points, place = self._client.scroll(
                    self.collection,
                    scroll_filter=self._filter(*conditions),
                    limit=PAGE if left is None else min(PAGE, left),
                    offset=place,
                    with_payload=payload,
                    with_vectors=vectors,
                )
            yield from points
            if place is None:
                return
            left = None if left is None else left - len(points)

    def nearest(self, queries: np.ndarray, limit: int, *conditions: Condition) -> list[list[Found]]:
        wanted = [
            self._models.QueryRequest(
                query=query.tolist(),
                filter=self._filter(*conditions),
                limit=limit,
                with_payload=FOUND,
                params=self._models.SearchParams(hnsw_ef=max(128, 2 * limit)),
            )
            for query in queries
        ]
        with self._asking():
            answers = self._client.query_batch_points(self.collection, wanted)
        return [[_found(point) for point in answer.points] for answer in answers]

    def stale(self) -> bool:
        return False

    def flush(self) -> None:
        """The server tends its index by itself."""

    def drop(self) -> None:
        with self._asking():
            self._client.delete_collection(self.collection)

    def _filter(self, *conditions: Condition) -> Any:
        parts = [self._condition(part) for part in all_of(conditions)]
        return self._models.Filter(must=parts) if parts else None

    def _condition(self, condition: Condition) -> Any:  # noqa: PLR0911
        m = self._models
        match condition:
            case Among("key", values):
                return m.HasIdCondition(has_id=list(values))
            case Among("first", values):
                return m.FieldCondition(key="first", match=m.MatchValue(value=values[0]))
            case Among(column, values):
                return m.FieldCondition(key=column, match=m.MatchAny(any=list(values)))
            case Compare():
                return self._compare(condition)
            case Empty(name, wanted):
                empty = m.IsEmptyCondition(is_empty=m.PayloadField(key=f"text.{field_key(name)}"))
                return empty if wanted else m.Filter(must_not=[empty])
            case Every(parts):
                return m.Filter(must=[self._condition(part) for part in parts])
            case Some(parts):
                return m.Filter(should=[self._condition(part) for part in parts])
        return m.Filter()

    def _compare(self, test: Compare) -> Any:
        m, kind = self._models, kind_of(test.value)
        key = f"{kind}.{field_key(test.name)}"
        known = m.Filter(must_not=[m.IsEmptyCondition(is_empty=m.PayloadField(key=key))])
        if test.sign not in ("=", "!="):
            if kind != "number":
                raise ConfigError(
                    f"filter: {test.name} {test.sign} {test.value!r}: Qdrant orders numbers only. "
                    "Compare with = or !=, or use another store."
                )
            return m.FieldCondition(key=key, range=m.Range(**{_RANGE[test.sign]: test.value}))
        if kind == "number":
            equal = m.FieldCondition(key=key, range=m.Range(gte=test.value, lte=test.value))
        else:
            equal = m.FieldCondition(key=key, match=m.MatchValue(value=test.value))
        return equal if test.sign == "=" else m.Filter(must=[known], must_not=[equal])


def connect(address: str) -> QdrantClient:
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise missing_extra("scale", "qdrant-client", f"the store {address}") from None
    return QdrantClient(url="http://" + address.removeprefix("qdrant://"), check_compatibility=False)


def _entry(point: Any) -> Entry:
    vector = getattr(point, "vector", None)
    return Entry(
        str(point.id),
        **{name: point.payload[name] for name in ENTRY},
        vector=None if vector is None else plain_vector(vector),
        thumbnail=b64decode(point.payload.get("thumbnail", "")),
    )


def _found(point: Any) -> Found:
    return Found(float(point.score), *(point.payload[name] for name in FOUND))
