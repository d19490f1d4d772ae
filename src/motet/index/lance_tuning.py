"""What is built beside LanceDB's rows to find them fast, and how much of it a search looks at.

A constant for all data would be wrong for some: how many of the index's lists hold the nearest rows depends
on how the vectors lie. So stored rows are asked for when the index is built, and what they needed is kept
with the table.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from motet.index.sql import PREFIX

if TYPE_CHECKING:
    from lancedb.table import AsyncTable

ASKED, TOP, GOAL = 64, 10, 0.995  # stored rows that are asked for, their neighbours, the recall of those
LISTS, PROBES, FOR = 200, 30, 200_000  # of the index, and those searched; for so many entries, else by root
REFINE, MOST = 4, 32  # candidates compared again for every row wanted: at least, at most
SPARE = 1.5  # times the lists that stored rows needed: what is asked for is not stored
SHORT, FEW_VALUES, LOOKED_AT = 64, 100, 1000  # characters, different values, rows


@dataclass(frozen=True)
class Tuning:
    """How many lists are searched, and how many candidates are compared again for every row wanted."""

    probes: int
    refine: int = REFINE


def lists_for(rows: int) -> int:
    return max(1, round(LISTS * (rows / FOR) ** 0.5))


def usual(rows: int) -> Tuning:
    return Tuning(round(PROBES * max(1.0, (rows / FOR) ** 0.5)))


async def near(
    table: AsyncTable,
    query: np.ndarray,
    limit: int,
    columns: list[str],
    how: Tuning | None,
    sql: str | None = None,
) -> pa.Table:
    """The rows nearest to the query by cosine, best first, with their `_distance`; how None: of all."""
    search: Any = table.query().nearest_to(query).column("vector").distance_type("cosine")
    search = search.limit(limit).select([*columns, "_distance"])
    search = search.where(sql) if sql else search
    if how is None:
        search = search.bypass_vector_index()
    else:
        search = search.nprobes(how.probes).refine_factor(how.refine)
    return await search.to_arrow()


async def tune(table: AsyncTable) -> None:
    """Find what the rows of this table need, and keep it with them."""
    rows = await table.count_rows()
    offsets = np.unique(np.linspace(0, rows - 1, ASKED).astype(int)).tolist()
    sample = await table.take_offsets(offsets).select(["vector"]).to_arrow()
    queries = np.stack(sample["vector"].to_numpy())
    truth = await _truth(table, queries)

    async def enough(how: Tuning) -> bool:
        found = await _nearest(table, queries, how)
        seen = sum(len(a & b) for a, b in zip(found, truth, strict=True))
        return seen >= GOAL * sum(map(len, truth))

    lists, start = lists_for(rows), usual(rows)
    refine = REFINE
    while refine < MOST and not await enough(Tuning(lists, refine)):
        refine *= 2
    probes = start.probes
    while probes < lists and not await enough(Tuning(probes, refine)):
        probes = round(probes * SPARE)
    probes = probes if probes == start.probes else round(probes * SPARE)
    kept = {"motet:probes": str(min(probes, lists)), "motet:refine": str(refine)}
    await table.update_field_metadata({"path": "vector", "metadata": kept})


async def tuning_of(table: AsyncTable) -> Tuning:
    """What `tune` found; the usual, where the index is older."""
    kept = (await table.schema()).field("vector").metadata or {}
    try:
        return Tuning(int(kept[b"motet:probes"]), int(kept[b"motet:refine"]))
    except (KeyError, ValueError):
        return usual(await table.count_rows())


async def _truth(table: AsyncTable, queries: np.ndarray) -> list[set[str]]:
    """The keys of each query's nearest rows, by comparing all in one pass over the table."""
    best = np.full((len(queries), TOP), -np.inf, np.float32)
    keys = np.full((len(queries), TOP), "", object)
    async for batch in await table.query().select(["key", "vector"]).to_batches(max_batch_length=4096):
        vectors = batch["vector"].flatten().to_numpy().reshape(len(batch), -1)
        lengths = np.linalg.norm(vectors, axis=1)
        near = queries @ vectors.T / np.maximum(lengths, np.finfo(np.float32).tiny)
        for query, scores in enumerate(near):
            better = np.flatnonzero(scores > best[query, -1])
            better = better[np.argsort(-scores[better])[:TOP]]
            if len(better):
                found = np.array(batch["key"].take(pa.array(better)).to_pylist(), object)
                merged = np.concatenate([best[query], scores[better]])
                order = np.argsort(-merged)[:TOP]
                best[query], keys[query] = merged[order], np.concatenate([keys[query], found])[order]
    return [{key for key in row if key} for row in keys.tolist()]


async def _nearest(table: AsyncTable, queries: np.ndarray, how: Tuning) -> list[set[str]]:
    """The keys of the rows that a search finds near each query."""

    async def one(query: np.ndarray) -> set[str]:
        return set((await near(table, query, TOP, ["key"], how))["key"].to_pylist())

    found: list[set[str]] = []
    for start in range(0, len(queries), 8):
        found += await asyncio.gather(*(one(query) for query in queries[start : start + 8]))
    return found


async def index_fields(table: AsyncTable) -> None:
    """An index over each field by which one would filter: numbers, flags, and short texts."""
    from lancedb.index import Bitmap, BTree

    names = list(field_columns(await table.schema()))
    texts = [name for name in names if name[0] == PREFIX["text"] and PREFIX["number"] + name[1:] not in names]
    sample = await table.query().select(texts).limit(LOOKED_AT).to_arrow() if texts else None
    for name in names:
        if name[0] == PREFIX["number"]:
            await table.create_index(name, config=BTree())
        elif name[0] == PREFIX["flag"]:
            await table.create_index(name, config=Bitmap())
        elif sample is not None and name in texts:
            values = [value for value in sample[name].to_pylist() if value is not None]
            if sum(map(len, values)) <= SHORT * len(values):
                few = len(set(values)) <= FEW_VALUES
                await table.create_index(name, config=Bitmap() if few else BTree())


def field_columns(schema: pa.Schema) -> Iterator[str]:
    """The columns that hold a field's cells of one kind: see `motet.index.entries.field_key`."""
    return (
        name for name in schema.names if len(name) == 22 and name[0] in PREFIX.values() and name[1] == "f"
    )
