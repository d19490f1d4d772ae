"""Milvus, by address: `milvus://host:19530` (extra `scale`). The server keeps and indexes the rows."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.errors import StorageError, missing_extra
from motet.index.entries import (
    FOUND,
    KINDS,
    Among,
    Condition,
    Entry,
    Found,
    all_of,
    field_key,
    kind_of,
    plain_vector,
)
from motet.index.filter import Cell, Compare, Empty, Every, Some

if TYPE_CHECKING:
    from pymilvus import MilvusClient

PAGE = 256
ENTRY = ["key", "id", "digest", "modality", "first", "fields"]
WHOLE = ["thumbnail", "vector"]
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class MilvusDatabase:
    """A `Database` in one collection of a server, read with strong consistency."""

    def __init__(self, address: str, collection: str, width: int) -> None:
        try:
            from pymilvus import DataType, MilvusClient
        except ImportError:
            raise missing_extra("scale", "pymilvus", f"the store {address}") from None
        self.address, self.collection = address, collection
        with self._asking():
            self._client: MilvusClient = MilvusClient(uri="http://" + address.removeprefix("milvus://"))
            if not self._client.has_collection(collection):
                schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
                schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=64)
                for name, size in (
                    ("id", 65_535),
                    ("digest", 128),
                    ("modality", 256),
                    ("fields", 65_535),
                    ("thumbnail", 65_535),
                ):
                    schema.add_field(name, DataType.VARCHAR, max_length=size)
                schema.add_field("first", DataType.BOOL)
                for kind in KINDS:
                    schema.add_field(kind, DataType.JSON)
                schema.add_field("vector", DataType.FLOAT_VECTOR, dim=width)
                index = self._client.prepare_index_params()
                index.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
                self._client.create_collection(
                    collection, schema=schema, index_params=index, consistency_level="Strong"
                )
            self._client.load_collection(collection)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, OSError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise StorageError(
                f"{self.address}: {reason}. Check that the server runs there and has space."
            ) from None

    def refresh(self) -> None:
        """Nothing is kept here."""

    def put(self, entries: Sequence[Entry], *, fresh: bool) -> None:
        rows = [
            {
                **{name: getattr(e, name) for name in ENTRY},
                **{kind: dict(e.cells[kind]) for kind in KINDS},
                "thumbnail": b64encode(e.thumbnail).decode(),
                "vector": plain_vector(e.vector).tolist(),
            }
            for e in entries
        ]
        with self._asking():
            for start in range(0, len(rows), PAGE):
                self._client.upsert(self.collection, rows[start : start + PAGE])

    def remove(self, condition: Condition) -> None:
        with self._asking():
            self._client.delete(self.collection, filter=_expression(condition))

    def count(self, *conditions: Condition) -> int:
        with self._asking():
            found = self._client.query(
                self.collection, output_fields=["count(*)"], filter=_expression(*conditions)
            )
        return int(found[0]["count(*)"])

    def fetch(
        self, condition: Condition, *, limit: int | None = None, whole: bool = False
    ) -> Iterator[Entry]:
        names = [*ENTRY, *(WHOLE if whole else [])]
        yield from (_entry(row) for row in self._rows(names, condition, limit=limit))

    def thumbnails(self, condition: Condition) -> dict[str, bytes]:
        rows = self._rows(["id", "thumbnail"], condition, Among("first", (True,)))
        return {row["id"]: b64decode(row["thumbnail"]) for row in rows if row["thumbnail"]}

    def _rows(self, names: list[str], *conditions: Condition, limit: int | None = None) -> Iterator[Any]:
        with self._asking():
            pages = self._client.query_iterator(
                self.collection, batch_size=PAGE, limit=-1 if limit is None else limit,
                output_fields=names, filter=_expression(*conditions),
            )  # fmt: skip
        while True:
            with self._asking():
                page = pages.next()
            if not page:
                pages.close()
                return
            yield from page

    def nearest(self, queries: np.ndarray, limit: int, *conditions: Condition) -> list[list[Found]]:
        with self._asking():
            found = self._client.search(
                self.collection, data=queries.tolist(), limit=limit, output_fields=FOUND,
                search_params={"metric_type": "COSINE"}, filter=_expression(*conditions),
            )  # fmt: skip
        return [
            [Found(float(hit["distance"]), *(hit["entity"][name] for name in FOUND)) for hit in hits]
            for hits in found
        ]

    def stale(self) -> bool:
        return False

    def flush(self) -> None:
        """The server tends its index by itself."""

    def drop(self) -> None:
        with self._asking():
            self._client.drop_collection(self.collection)


def _expression(*conditions: Condition) -> str:
    """An expression whose names are digests and whose values are literals made here: nothing is pasted."""
    return " and ".join(_one(part) for part in all_of(conditions)) or 'key != ""'


def _one(condition: Condition) -> str:  # noqa: PLR0911
    match condition:
        case Among("first", (value,)):
            return f"first == {_literal(value)}"
        case Among(column, values):
            return f"{column} in [{', '.join(_literal(value) for value in values)}]"
        case Compare(name, sign, value):
            cell = f'{kind_of(value)}["{field_key(name)}"]'
            return f"(exists {cell} and {cell} {'==' if sign == '=' else sign} {_literal(value)})"
        case Empty(name, wanted):
            return f'({"not " if wanted else ""}exists text["{field_key(name)}"])'
        case Every(parts):
            return f"({' and '.join(_one(part) for part in parts)})"
        case Some(parts):
            return f"({' or '.join(_one(part) for part in parts)})"
        case _:
            return 'key != ""'


def _literal(value: Cell) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + value.translate(_ESCAPES) + '"'
        case _:
            return repr(float(value))


def _entry(row: Any) -> Entry:
    vector = row.get("vector")
    return Entry(
        **{name: row[name] for name in ENTRY},
        vector=None if vector is None else plain_vector(vector),
        thumbnail=b64decode(row.get("thumbnail", "")),
    )
