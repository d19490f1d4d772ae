"""Pictures, sounds and clips that are nearly the same: re-encoded, resized, a little louder.

Pictures: the 64 signs of the differences between neighbours in a grey 9 x 8 copy (dHash; Krawetz 2013),
equal but for NEAR_BITS; besides the colours of an 8 x 8 copy and, so that faces and letters are told
apart, every value of a grey 16 x 16 copy. Sounds: the mean log-mel spectrum in each of
PARTS parts of the sound, without its level; how that changes from part to part and band to band, so that
steady noises are told apart; and a length that is nearly the same. Clips: the first, the middle and the
last frame, one of them nearly the same and the others alike, and the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from motet.data.audio import load_audio
from motet.data.columns import Columns
from motet.data.frames import Clip
from motet.data.groups import connected
from motet.data.image import load_image
from motet.data.media import open_media
from motet.data.mel import RATE, log_mel
from motet.data.table import Table
from motet.data.video import load_video
from motet.errors import DataError

NEAR_BITS = 3  # of 64 that may differ
FLAT = 2  # of 255: a difference up to this is none, so that noise in flat parts flips no sign
MOST = 512  # pictures of one quarter, sorted by all bits, that each is compared with
COLOURS = 6.0  # of 255, mean difference of the 8 x 8 copies
DETAIL = 28  # of 255, largest difference of the 16 x 16 copies
PRINT = 8 + 192 + 256  # bytes of a picture's print
PARTS, BANDS = 24, 16
SPECTRA = 0.05  # root mean square difference of log10 spectra without their level; four times a log-mel unit
CHANGES = 0.85  # least correlation of the changes
LENGTHS = 0.03  # share by which lengths may differ
HEARD = 30  # seconds
THREADS = 2
MEDIA = ("image", "audio", "video")
Progress = Callable[[int, int, str], None]


def picture_print(image: Image.Image) -> np.ndarray:
    """(8 + 192 + 256,) uint8: the 64 signs as 8 bytes, the colours of 8 x 8, and the greys of 16 x 16."""
    whole = image.convert("L")
    grey = np.asarray(whole.resize((9, 8), Image.Resampling.BILINEAR, reducing_gap=2), np.int16)
    fine = np.asarray(whole.resize((16, 16), Image.Resampling.BILINEAR, reducing_gap=2), np.uint8)
    small = np.asarray(image.resize((8, 8), Image.Resampling.BILINEAR, reducing_gap=2), np.uint8)
    return np.concatenate(
        [np.packbits(grey[:, 1:] > grey[:, :-1] + FLAT), small.reshape(-1), fine.reshape(-1)]
    )


def sound_print(wave: np.ndarray) -> np.ndarray:
    """(1 + PARTS * BANDS,) float32: seconds, and the spectrum of each part. wave: (n,) at 16 kHz."""
    heard = wave[: HEARD * RATE]
    mel = log_mel(np.pad(heard, (0, max(0, PARTS * 160 - len(heard)))), 80)
    edges = np.linspace(0, len(mel), PARTS + 1).astype(int)
    parts = np.stack([mel[a:b].mean(0).reshape(BANDS, -1).mean(1) for a, b in pairwise(edges)])
    return np.concatenate([[len(wave) / RATE], (parts - parts.mean()).reshape(-1)]).astype(np.float32)


def clip_print(clip: Clip) -> np.ndarray:
    """(3 * 456 + 4,) uint8: the prints of three frames, and the seconds at which the last one is, float32."""
    places = (len(clip.frames) // 2, 0, -1)
    pictures = [picture_print(Image.fromarray(clip.frames[k])) for k in places]
    return np.concatenate([*pictures, clip.times[-1:].astype(np.float32).view(np.uint8)])


def near_pictures(prints: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) of rows of `prints` (n, 456) that show nearly the same."""
    bits, colours = np.ascontiguousarray(prints[:, :8]), prints[:, 8:200].astype(np.int16)
    fine = prints[:, 200:].astype(np.int16)
    hashes = bits.view(np.uint64).reshape(-1)
    quarters = bits.view(np.uint16).reshape(-1, 4)  # with three bits wrong one quarter is right
    seen = set()
    for k in range(4):
        order = np.lexsort((hashes, quarters[:, k]))
        starts = np.flatnonzero(np.diff(quarters[order, k].astype(np.int32), prepend=-1))
        for bucket in np.split(order, starts[1:]):
            for at, i in enumerate(bucket[:-1].tolist()):
                later = bucket[at + 1 : at + 1 + MOST]
                later = later[np.bitwise_count(hashes[later] ^ hashes[i]) <= NEAR_BITS]
                close = np.abs(colours[later] - colours[i]).mean(1) <= COLOURS
                close &= np.abs(fine[later] - fine[i]).max(1) <= DETAIL
                seen |= {(min(i, j), max(i, j)) for j in later[close].tolist()}
    yield from sorted(seen)


def near_clips(prints: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) of rows of `prints` (n, 1372) that show nearly the same, and as long."""
    seconds = np.ascontiguousarray(prints[:, 3 * PRINT :]).view(np.float32).reshape(-1)
    frames = [np.ascontiguousarray(prints[:, k * PRINT : (k + 1) * PRINT]) for k in range(3)]
    for i, j in sorted({pair for frame in frames for pair in near_pictures(frame)}):
        alike = all(_close(frame[i], frame[j]) for frame in frames)
        if alike and abs(seconds[i] - seconds[j]) <= LENGTHS * max(seconds[i], seconds[j]):
            yield i, j


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two pictures are alike by their prints, but for the signs, which moving pictures blur."""
    apart = np.abs(a[8:].astype(np.int16) - b[8:])
    return bool(apart[:192].mean() <= COLOURS and apart[192:].max() <= DETAIL)


def near_sounds(prints: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs (earlier, later) of rows of `prints` that sound nearly the same."""
    order = np.argsort(prints[:, 0], kind="stable")
    seconds, spectra = prints[order, 0], prints[order, 1:]
    ends = np.searchsorted(seconds, seconds * (1 + LENGTHS), side="right")
    changes = np.diff(np.diff(spectra.reshape(-1, PARTS, BANDS), axis=1), axis=2).reshape(len(order), -1)
    changes /= np.maximum(np.linalg.norm(changes, axis=1, keepdims=True), 1e-9)
    found = []
    for i, end in enumerate(ends.tolist()):
        apart = np.sqrt(((spectra[i + 1 : end] - spectra[i]) ** 2).mean(1))
        close = (apart <= SPECTRA) & (changes[i + 1 : end] @ changes[i] >= CHANGES)
        found += [(int(order[i]), int(order[i + 1 + j])) for j in np.flatnonzero(close)]
    yield from sorted((min(pair), max(pair)) for pair in found)


def near_pairs(kind: str, prints: Sequence[np.ndarray | None]) -> list[tuple[int, int]]:
    """Pairs of places in `prints` (None: no media) that are nearly the same."""
    has = [i for i, one in enumerate(prints) if one is not None]
    if len(has) < 2:
        return []
    stacked = np.stack([one for one in prints if one is not None])
    match kind:
        case "image":
            pairs = near_pictures(stacked)
        case "video":
            pairs = near_clips(stacked)
        case _:
            pairs = near_sounds(stacked)
    return [(has[i], has[j]) for i, j in pairs]


def near_rows(table: Table, columns: Columns, progress: Progress | None = None) -> list[list[int]]:
    """Sets of rows with nearly the same picture, sound or clip. Broken media are like no other."""
    pairs = []
    for name, kind in columns.modalities.items():
        if kind in MEDIA:
            pairs += near_pairs(kind, read_prints(table, name, kind, progress))
    return merged(pairs)


def merged(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """The sets of rows that pairs join; no row is in two."""
    if not pairs:
        return []
    members: dict[int, set[int]] = {}
    for root, pair in zip(connected([np.array(pairs).T], len(pairs)).tolist(), pairs, strict=True):
        members.setdefault(root, set()).update(pair)
    return sorted(sorted(rows) for rows in members.values())


def read_prints(
    table: Table, name: str, kind: str, progress: Progress | None = None
) -> list[np.ndarray | None]:
    """The print of every cell of a column, None where it is empty or broken. Two threads decode."""

    def one(cell: Any) -> np.ndarray | None:
        try:
            media = open_media(cell, table.root)
            if media is None:
                return None
            if kind == "image":
                return picture_print(load_image(media, str(cell)))
            if kind == "video":
                clip = load_video(media, str(cell))
                return None if clip is None else clip_print(clip)
            wave = load_audio(media, str(cell))
            return None if wave is None else sound_print(wave)
        except DataError:
            return None

    found: list[np.ndarray | None] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(table), 64):
            found += pool.map(one, table.column(name)[start : start + 64])
            if progress:
                progress(len(found), len(table), f"near-duplicates in {name}")
    return found
