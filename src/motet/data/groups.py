"""Which rows belong together: by their group column, equal media, equal texts.

A pure function of the rows' content and the columns, whatever their order.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from motet.data.blob import Blob
from motet.data.columns import Columns
from motet.data.paths import resolve_media
from motet.data.table import Table
from motet.errors import DataError

# A text in this share of the rows, and in more than CATEGORY_ROWS, is a category ("dog"), not a caption.
CATEGORY_SHARE, CATEGORY_ROWS = 0.05, 20


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
    links = [*([np.stack(media)] if media else []), *_text_links(table, texts, has_media, searched)]
    for name in {columns.group, columns.context} - {None}:
        links.append(_codes(cell for (cell,) in table.iterate([str(name)])))
    if near:
        links.append(np.full(len(table), -1, np.int64))
        for number, rows in enumerate(near):
            links[-1][list(rows)] = number
    roots = connected(links, len(table))
    names: dict[int, str] = {}
    own = _own_names(table, [*columns.modalities], columns.group)
    for root, name in zip(roots.tolist(), own, strict=True):
        before = names.get(root)
        if before is None or name < before:  # the least, so that the order of rows does not matter
            names[root] = name
    return [names[root] for root in roots.tolist()]


def _text_links(
    table: Table, texts: Sequence[str], has_media: np.ndarray, searched: bool
) -> list[np.ndarray]:
    """(n,) int64 each: rows of equal number are linked by their texts; -1 for none.

    A caption in one column links with the same words in another.
    """
    if not texts:
        return []
    known: dict[str, int] = {}
    words = np.full((len(texts), len(table)), -1, np.int64)
    for i, cells in enumerate(table.iterate(texts)):
        for k, cell in enumerate(cells):
            if cell is not None and (text := _text_key(cell)):
                words[k, i] = known.setdefault(text, len(known))
    links = []
    if searched:
        many = max(CATEGORY_ROWS, CATEGORY_SHARE * len(table))
        count = np.bincount(words[words >= 0], minlength=1)
        # one numbering for all columns: stacked, so that `connected` can link across them
        links.append(np.where((words >= 0) & (count[words] <= many), words, -1))
    some = (words >= 0).any(0) & ~has_media
    if some.any():
        alone = np.full(len(table), -1, np.int64)
        code = np.zeros(int(some.sum()), np.int64)
        for line in words[:, some]:  # one number for each combination
            code = np.unique(code * (len(known) + 1) + line + 1, return_inverse=True)[1]
        alone[some] = code
        links.append(alone)
    return links


def _codes(cells: Iterable[object]) -> np.ndarray:
    """(n,) int64, equal for equal texts; -1 for empty cells."""
    known: dict[str, int] = {}
    return np.array(
        [-1 if cell is None else known.setdefault(str(cell), len(known)) for cell in cells], np.int64
    )


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


def _own_names(table: Table, names: Sequence[str], group: str | None) -> Iterator[str]:
    """What each row would call its group: its value in the group column, or a hash of its cells."""
    for *cells, given in table.iterate([*names, group or names[0]]):
        if group and given is not None:
            yield str(given)
        else:
            whole = "\0".join([_plain_text(cell) for cell in cells])
            yield "~" + hashlib.blake2b(whole.encode(errors="surrogatepass"), digest_size=16).hexdigest()


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
    out = np.full((len(names), len(table)), -1, np.int64)
    known: dict[str, int] = {}
    files: dict[str, list[int]] = {}  # path -> its places in `out`
    sized: list[tuple[int, int]] = []  # media in memory: place, size
    for i, cells in enumerate(table.iterate(names)):
        for k, cell in enumerate(cells):
            place = k * len(table) + i
            if isinstance(cell, list):
                out[k, i] = known.setdefault(f"{names[k]}={json.dumps(cell)}", len(known))
            elif isinstance(cell, Blob):
                sized.append((place, cell.size))
            elif isinstance(cell, str):
                files.setdefault(cell, []).append(place)
    paths: dict[str, list[int]] = {}
    for cell, places in files.items():
        try:
            path = str(resolve_media(cell, table.root, table.where(places[0] % len(table))))
        except DataError:
            out.reshape(-1)[places] = known.setdefault(f"cell {cell}", len(known))
        else:
            paths.setdefault(path, []).extend(places)
    sizes = {path: os.stat(path).st_size for path in paths}
    count = Counter([*sizes.values(), *(size for _, size in sized)])
    for path, places in paths.items():
        key = _file_digest(path) if count[sizes[path]] > 1 else path
        out.reshape(-1)[places] = known.setdefault(key, len(known))
    columns = [table.column(name) for name in names]
    for place, size in sized:
        k, i = divmod(place, len(table))
        key = f"row {place}"
        if count[size] > 1:
            blob = columns[k][i]
            key = hashlib.sha256(blob.read_bytes()).hexdigest() if isinstance(blob, Blob) else key
        out[k, i] = known.setdefault(key, len(known))
    return list(out)


def _file_digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return path
