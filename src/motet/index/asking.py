"""What a search asks for, and how its answers are read: one vector from all parts, cosines judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from motet.errors import ConfigError
from motet.index.filter import Filter, parse_filter
from motet.index.store import Row, Store
from motet.types import Hit

if TYPE_CHECKING:
    from motet.predictor import Predictor


def parts_of(query: Any) -> list[Any]:
    """A list is several things, whose sum is looked for; all else is one."""
    return [] if query is None else query if isinstance(query, list) else [query]


def is_vector(part: Any, width: int) -> bool:
    return isinstance(part, np.ndarray) and part.shape == (width,)


def unit(vector: np.ndarray) -> np.ndarray:
    norm = float(np.linalg.norm(vector))
    if not math.isfinite(norm) or norm == 0:
        raise ConfigError("search: the query vector must hold finite numbers, not all zero.")
    return (vector / norm).astype(np.float32)


def row_vector(row: Row) -> np.ndarray:
    """(E,): all that is known of a row, as one vector."""
    return unit(np.sum(list(row.vectors.values()), axis=0))


def best_of_each(hits: Sequence[Hit], field: str | None) -> list[Hit]:
    """Hits without those whose field has the value of a better one; empty values are all different."""
    if field is None:
        return list(hits)
    seen: set[str] = set()
    kept = []
    for hit in hits:
        value = hit.fields.get(field)
        key = json.dumps(value)
        if value is None or key not in seen:
            kept.append(hit)
        seen.add(key)
    return kept


def summed(
    asked: Sequence[Sequence[Any]],
    like: Row | None,
    width: int,
    encode: Callable[[list[Any]], np.ndarray],
) -> np.ndarray:
    """(Q, E) of unit length: of each query the sum of its parts and `like`, each of unit length.

    Parts other than vectors are encoded together.
    """
    others = [part for parts in asked for part in parts if not is_vector(part, width)]
    encoded = iter(encode(others) if others else ())
    rest = [] if like is None else [row_vector(like)]
    made = []
    for parts in asked:
        vectors = [unit(part) if is_vector(part, width) else next(encoded) for part in parts]
        made.append(unit(np.sum([*vectors, *rest], axis=0)))
    return np.stack(made)


def nearest(
    store: Store,
    vectors: np.ndarray,
    need: int,
    like: str | None,
    *,
    modality: str | None,
    where: Filter | None,
    distinct: str | None,
) -> list[list[Hit]]:
    """For each of the vectors (Q, E) at least `need` hits where there are so many, without the row `like`."""
    count = need + (like is not None)
    hits: list[list[Hit]] = [[] for _ in vectors]
    left = list(range(len(vectors)))
    while left:
        short = []
        parts = store.search_many(vectors[left], count, modality=modality, where=where)
        for i, found in zip(left, parts, strict=True):
            hits[i] = best_of_each([hit for hit in found if hit.id != like], distinct)
            if len(hits[i]) < need and len(found) >= count:
                short.append(i)
        left, count = short, count * 4
    return hits


def filter_of(store: Store, where: str | None) -> Filter | None:
    """The filter that a text says.

    Raises:
        ConfigError: it cannot be read, or names a field that no row has.
    """
    if not where:
        return None
    wanted = parse_filter(where)
    known(store, wanted.names, f"filter {where!r}")
    return wanted


def known(store: Store, names: Iterable[str], what: str) -> None:
    """Raises ConfigError for a field that no row has, with those that there are."""
    unknown = sorted(name for name in names if not store.has_field(name))
    fields = store.fields() - set(unknown) if unknown else set()
    if fields:
        raise ConfigError(
            f"{what}: no row has a field {unknown[0]!r}. There are: {', '.join(sorted(fields))}."
        )


def known_modality(store: Store, name: str, path: Path) -> None:
    """Raises ConfigError for a modality that no row has."""
    if not store.has_modality(name) and len(store):
        raise ConfigError(f"modality {name!r}: {path} holds {', '.join(sorted(store.modalities()))}.")


def judged(hits: Sequence[Hit], part: Any, model: Predictor) -> list[Hit]:
    """The hits with what their cosines mean, for a query of one part that is read as one modality."""
    heard = model.heard(part)
    if len(heard) != 1:
        return list(hits)
    pairs = [model.scores.of(heard[0], hit.modality) for hit in hits]
    return [
        hit if pair is None else replace(hit, match=pair.match(hit.score), above=pair.above(hit.score))
        for hit, pair in zip(hits, pairs, strict=True)
    ]


def reranked(hits: Sequence[Hit], parts: Sequence[Any], like: Row | None, model: Predictor) -> list[Hit]:
    """The hits by the sum of cosine and late interaction, best first; those that cannot be read again last.

    Raises:
        ConfigError: a part that is a vector, which has no tokens; not one row that can be read again.
    """
    from motet.predictor.late import late_scores

    asked = [*parts, *([like.fields] if like is not None else [])]
    if any(is_vector(part, model.width) for part in asked):
        raise ConfigError("search: a vector has no tokens to re-rank by. Give a text or a file instead.")
    scores = late_scores(model, asked, [(hit.fields, hit.modality) for hit in hits])
    if hits and all(late is None for late in scores):
        raise ConfigError(
            "search: none of these rows can be read again to re-rank them: their files are gone, or their "
            "columns have other names than the model's. Leave rerank out."
        )
    made = [hit if late is None else replace(hit, late=late) for hit, late in zip(hits, scores, strict=True)]
    return sorted(made, key=lambda hit: -math.inf if hit.late is None else hit.score + hit.late, reverse=True)
