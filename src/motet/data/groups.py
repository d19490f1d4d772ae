"""Which rows belong together: by their group column, equal media, equal texts.

A pure function of the rows' content and the columns, whatever their order.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from motet.data.blob import Blob
from motet.data.columns import Columns
from motet.data.paths import resolve_media
from motet.data.table import Table
from motet.errors import DataError

# A text in this share of the rows, and in more than CATEGORY_ROWS, is a category ("dog"), not a caption.
CATEGORY_SHARE, CATEGORY_ROWS = 0.05, 20
CACHED = 1 << 16  # files that are not looked up again where they stand in several rows
NONE = bytes(8)


def group_rows(
    table: Table,
    columns: Columns,
    *,
    retrieval: bool | None = None,
    near: Sequence[Sequence[int]] = (),
) -> list[str]:
    """The group of every row: rows that must stay on one side of a split.

    Rows are united that share a value in the group or context column; the bytes of a media file or a list of
    features; a text, where rows are to be told apart by it: for `retrieval` (default: where there
    is no label), since a repeated caption is one answer to a search, or where it is all that the row
    has. Otherwise a text that repeats, such as "yes", is no duplicate; and texts of a good share of
    all rows are categories, not captions. Texts are compared without case and with single spaces.
    `near` are further sets of rows to unite, no row in two, such as near-duplicates.
    A group is called by its value in the group column, or else by a hash of a row's cells.
    """
    searched = columns.label is None if retrieval is None else retrieval
    texts = [name for name, kind in columns.modalities.items() if kind == "text"]
    others = [name for name in columns.modalities if name not in texts]
    media = content_keys(table, others)
    has_media = np.zeros(len(table), bool)
    for keys in media:
        has_media |= keys >= 0
    words, sets, name_of = _read(table, columns, texts)
    links = [*([np.stack(media)] if media else []), *_text_links(words, has_media, searched), *sets]
    if near:
        links.append(np.full(len(table), -1, np.int64))
        for number, rows in enumerate(near):
            links[-1][list(rows)] = number
    roots = connected(links, len(table))
    names: dict[int, str] = {}
    for i, root in enumerate(roots.tolist()):
        name, before = name_of(i), names.get(root)
        if before is None or name < before:  # the least, so that the order of rows does not matter
            names[root] = name
    return [names[root] for root in roots.tolist()]


def _read(
    table: Table, columns: Columns, texts: Sequence[str]
) -> tuple[np.ndarray, list[np.ndarray], Callable[[int], str]]:
    """What links rows, but for media, in one pass over the table.

    Numbers of the words of each text column (texts, n); of the values in each column that unites rows; and
    what each row would call its group: its value in the group column, or a hash of its cells.
    """
    names = [*columns.modalities]
    places = [names.index(text) for text in texts]
    words, context, own = [bytearray() for _ in texts], bytearray(), bytearray()
    group, known = array("q"), dict[str, int]()
    united = columns.group or columns.context or names[0]
    for cells in table.iterate([*names, united, columns.context or united]):
        for k, marks in zip(places, words, strict=True):
            marks.extend(_mark(_text_key(cells[k])))
        if columns.context:
            context += _mark("" if cells[-1] is None else f"={cells[-1]}")
        if columns.group and cells[-2] is not None:
            group.append(known.setdefault(str(cells[-2]), len(known)))
            continue
        whole = "\0".join([_plain_text(cell) for cell in cells[: len(names)]])
        own += hashlib.blake2b(whole.encode(errors="surrogatepass"), digest_size=16).digest()
        group.append(-(len(own) // 16))
    given = list(known)

    def name(i: int) -> str:
        at = group[i]
        return given[at] if at >= 0 else "~" + own[-16 * at - 16 : -16 * at].hex()

    # one numbering for all text columns: stacked, so that `connected` can link across them
    numbered = _numbers(b"".join(words)).reshape(len(texts), len(table))
    sets = [np.maximum(np.frombuffer(group, np.int64), -1)] if columns.group else []
    return numbered, [*sets, *([_numbers(context)] if columns.context else [])], name


def _text_links(words: np.ndarray, has_media: np.ndarray, searched: bool) -> list[np.ndarray]:
    """(n,) or (texts, n) int64 each: rows of equal number are linked by their texts; -1 for none.

    words: (texts, n) int64; a caption in one column links with the same words in another.
    """
    if not len(words):
        return []
    links = []
    if searched:
        many = max(CATEGORY_ROWS, CATEGORY_SHARE * words.shape[1])
        count = np.bincount(words[words >= 0], minlength=1)
        links.append(np.where((words >= 0) & (count[words] <= many), words, -1))
    some = (words >= 0).any(0) & ~has_media
    if some.any():
        alone = np.full(words.shape[1], -1, np.int64)
        code = np.zeros(int(some.sum()), np.int64)
        for line in words[:, some]:  # one number for each combination
            code = np.unique(code * (int(words.max()) + 2) + line + 1, return_inverse=True)[1]
        alone[some] = code
        links.append(alone)
    return links


def _mark(text: str) -> bytes:
    """8 bytes that stand for a text, so that a million texts need not be kept; zeros for an empty one."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest() if text else NONE


def _numbers(marks: bytes | bytearray) -> np.ndarray:
    """(n,) int64 of n marks: equal where they are equal, from 0 on; -1 for empty texts."""
    whole = np.frombuffer(marks, np.uint64)
    values, numbers = np.unique(whole, return_inverse=True)
    return numbers - 1 if len(values) and values[0] == 0 else numbers


def connected(links: Sequence[np.ndarray], count: int) -> np.ndarray:
    """(count,) int64: for each row, the first row of the set that its links join it with.

    links: (count,) or (several, count) int64 each; rows are joined by an equal number from 0 on in one of
    them, whichever of its lines it is in. By spreading the least row number until nothing changes.
    """
    root = np.arange(count)
    sets = []
    for link in links:
        flat = link.reshape(-1)
        row = np.tile(np.arange(count), len(flat) // max(1, count))
        used = np.flatnonzero(flat >= 0)
        used = used[np.argsort(flat[used], kind="stable")]
        starts = np.flatnonzero(np.diff(flat[used], prepend=-1))
        sizes = np.diff(starts, append=len(used))
        keep = np.repeat(sizes > 1, sizes)
        used, sizes = used[keep], sizes[sizes > 1]
        if len(used):
            sets.append((row[used], np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes))
    while sets:
        before = root.copy()
        for rows, starts, sizes in sets:
            least = np.repeat(np.minimum.reduceat(root[rows], starts), sizes)
            np.minimum.at(root, root[rows], least)
            np.minimum.at(root, rows, least)
            root = root[root]
        if np.array_equal(before, root):
            break
    return root


def _plain_text(cell: object) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    if isinstance(cell, Blob):
        return f"{cell.name} {cell.size}"
    return json.dumps(cell)


def _text_key(cell: object) -> str:
    return "" if cell is None else " ".join(str(cell).casefold().split())


def content_keys(table: Table, names: Sequence[str]) -> list[np.ndarray]:
    """For each column, (n,) int64: equal where rows hold the same content, in any of the columns; -1: empty.

    Content is read only where another has the same size: files of different size differ. A cell that
    names no usable file is like no other; it is quarantined when it is read.
    """
    if not names:
        return []
    place = functools.lru_cache(CACHED)(functools.partial(_place, table.root))
    marks, sizes = bytearray(), array("q")  # row by row; size -1: not media, or none that can be read
    for i, cells in enumerate(table.iterate(names)):
        for k, cell in enumerate(cells):
            size = -1
            if isinstance(cell, list):
                marks += _mark(f"{names[k]}={json.dumps(cell)}")
            elif isinstance(cell, Blob):
                marks += _mark(f"place {i} {k}")
                size = cell.size
            elif isinstance(cell, str):
                mark, size = place(cell)
                marks += mark
            else:
                marks += NONE
            sizes.append(size)
    keys = np.frombuffer(marks, np.uint64).copy()
    read = _of_shared_size(keys, np.frombuffer(sizes, np.int64)).reshape(-1, len(names))
    known: dict[int, bytes] = {}
    if read.any():
        for i, cells in enumerate(table.iterate(names)):
            for k in np.flatnonzero(read[i]).tolist():
                at = i * len(names) + k
                keys[at] = int.from_bytes(_content(cells[k], table.root, int(keys[at]), known), sys.byteorder)
    return list(_numbers(keys.tobytes()).reshape(-1, len(names)).T)


def _of_shared_size(keys: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(n,) bool: whether media of another mark have the same size. keys: (n,) marks."""
    media = np.flatnonzero(sizes >= 0)
    first = media[np.unique(keys[media], return_index=True)[1]]
    values, count = np.unique(sizes[first], return_counts=True)
    return np.isin(sizes, values[count > 1])


def _place(root: Path, cell: str) -> tuple[bytes, int]:
    """The mark of the file that a cell names, and its size."""
    try:
        path = resolve_media(cell, root, "")
        return _mark(f"file {path}"), os.stat(path).st_size
    except (DataError, OSError):
        return _mark(f"cell {cell}"), -1


def _content(cell: object, root: Path, mark: int, known: dict[int, bytes]) -> bytes:
    """The mark of what a media cell holds; that of a file is found once."""
    if isinstance(cell, Blob):
        return hashlib.sha256(cell.read_bytes()).digest()[:8]
    if mark not in known:
        try:
            with resolve_media(str(cell), root, "").open("rb") as file:
                known[mark] = hashlib.file_digest(file, "sha256").digest()[:8]
        except (DataError, OSError):
            known[mark] = mark.to_bytes(8, sys.byteorder)
    return known[mark]
