"""What a search found, as one page of pictures, players and texts that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from motet.errors import DataError
from motet.explain.media import SOUND_TYPES, picture_uri, player
from motet.explain.style import Section, page
from motet.types import Hit

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
MOST = 200  # cells of media on one page, which carries them all
_CARD = (
    "display:flex; gap:1.25rem; align-items:flex-start; padding:1rem 0; border-bottom:1px solid var(--line)"
)


def search_page(title: str, hits: Sequence[Hit]) -> str:
    """A self-contained HTML page of `hits`, best first. Media that are gone or broken are named."""
    left = MOST
    cards = []
    for rank, hit in enumerate(hits, 1):
        shown, texts = [], []
        for name, cell in hit.fields.items():
            media = _media(name, cell, hit.id) if left > 0 else ""
            if media:
                left -= 1
                shown.append(media)
            elif cell is not None:
                texts.append(f"<dt>{escape(name)}</dt><dd>{escape(str(cell))}</dd>")
        cards.append(
            f'<article style="{_CARD}"><div>{"".join(shown)}</div><div><h3 style="margin:0">'
            f"{rank}. {escape(hit.id)}</h3>"
            f'<p class="note">{_score(hit)}, by {escape(hit.modality)}</p>'
            f"<dl>{''.join(texts)}</dl></div></article>"
        )
    body = "".join(cards) or "<p>Nothing was found.</p>"
    return page(title, [Section(f"{len(hits)} found", body)], lead="Best first.", foot="Made by Motet.")


def _score(hit: Hit) -> str:
    return f"cosine {hit.score:.3f}"


def _media(name: str, cell: Any, id: str) -> str:
    """An element that carries the file a cell names; empty where it names none that can be shown."""
    if not isinstance(cell, str) or not cell.lower().endswith((*PICTURES, *SOUND_TYPES)):
        return ""
    path = Path(cell)
    with suppress(DataError, OSError, ValueError):
        if not path.is_file():
            return ""
        if cell.lower().endswith(PICTURES):
            return f'<img class="thumb" src="{picture_uri(path)}" alt="{escape(f"{name} of {id}")}">'
        return player(path, f"{name} of {id}")
    return ""
