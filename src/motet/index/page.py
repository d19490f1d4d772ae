"""What a search found, as one page of pictures, players and texts that needs no network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

from motet.data.image import load_image
from motet.errors import DataError
from motet.explain.style import Section, page
from motet.types import Hit

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
PLAYED = {
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
}
MOST = 200  # cells of media on one page, which carries them all
SIDE = 400  # pixels of a thumbnail
LARGEST = 4 << 20  # bytes of one sound or clip; larger ones are named
_STYLE = """<style>
.finds { display:grid; grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr)); gap:1.25rem;
  list-style:none; padding:0; margin:1.5rem 0 0 }
.find { display:flex; flex-direction:column; background:var(--panel); border:1px solid var(--line);
  border-radius:10px; overflow:hidden }
.find img, .find video { display:block; width:100%; aspect-ratio:1; object-fit:contain; background:#fff }
.find video { background:#000; aspect-ratio:16/9 }
.find audio { width:calc(100% - 1.5rem); margin:.75rem .75rem 0 }
.find div { padding:.75rem 1rem 1rem; overflow-wrap:anywhere }
.find h3 { margin:0; font-size:1rem } .find p { margin:.15rem 0 0 }
.find dl { margin:.5rem 0 0; font-size:.88rem; display:grid; gap:.1rem .75rem;
  grid-template-columns:auto 1fr }
.find dt { color:var(--soft) } .find dd { margin:0 } .find details { margin-top:.5rem }
@media (max-width:30rem) { .finds { grid-template-columns:1fr 1fr; gap:.75rem }
  .find dl { display:block } }
</style>"""


def search_page(
    title: str, hits: Sequence[Hit], *, first: int = 1, thumbnails: Mapping[str, bytes] | None = None
) -> str:
    """A self-contained HTML page of `hits`, best first. Media that are gone or broken are named.

    first: the place of the first hit, where this is not the first page. thumbnails: id -> WebP, shown where
    the files of a hit are not.
    """
    left, cards = MOST, []
    for rank, hit in enumerate(hits, first):
        shown, texts = [], []
        for name, cell in hit.fields.items():
            media = _media(name, cell, hit.id) if left > 0 else ""
            if media:
                left -= 1
                shown.append(media)
            elif cell is not None:
                texts.append((name, str(cell)))
        if not shown and thumbnails and hit.id in thumbnails:
            kept = base64.b64encode(thumbnails[hit.id]).decode()
            shown.append(f'<img src="data:image/webp;base64,{kept}" alt="{escape(hit.id)}" loading="lazy">')
        cards.append(_card(rank, hit, "".join(shown), texts))
    body = f'{_STYLE}{_legend(hits)}<ol class="finds" start="{first}">{"".join(cards)}</ol>'
    if not cards:
        body = "<p>Nothing was found.</p>"
    last = first + len(hits) - 1
    head = f"The best {len(hits)}" if first == 1 else f"Places {first} to {last}"
    return page(title, [Section(head, body)], lead="Best first.", foot="Made by Motet.")


def _card(rank: int, hit: Hit, media: str, texts: Sequence[tuple[str, str]]) -> str:
    """A hit: its media, its text as the heading, and all else that is known of it."""
    heading = next((text for name, text in texts if name == hit.modality or _is_prose(text)), hit.id)
    rest = [("row", hit.id), *((name, text) for name, text in texts if text != heading)]
    known = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rest)
    return (
        f'<li class="find">{media}<div><h3>{rank}. {escape(heading)}</h3>'
        f'<p class="note">{_score(hit)}</p>'
        f"<details><summary>more</summary><dl>{known}</dl></details></div></li>"
    )


def _is_prose(text: str) -> bool:
    return " " in text.strip() and not Path(text).suffix[1:].isalnum()


def _score(hit: Hit) -> str:
    said = [f"match {share(hit.match)}"] if hit.match is not None else []
    said += [f"above {share(hit.above)}"] if hit.match is None and hit.above is not None else []
    said += [f"cosine {hit.score:.3f}", *([] if hit.late is None else [f"by token {hit.late:.3f}"])]
    return " · ".join(escape(part) for part in [*said, hit.modality])


def share(value: float | None) -> str:
    """0..1 in percent, never quite all of it; empty for None."""
    if value is None:
        return ""
    return ">99.9%" if value > 0.9995 else f"{value:.1%}" if value > 0.99 else f"{value:.0%}"


def _legend(hits: Sequence[Hit]) -> str:
    """What the percentages mean, where there are any."""
    match, above = (any(getattr(hit, name) is not None for hit in hits) for name in ("match", "above"))
    said = (
        ["Match: the probability that the two belong together if one of two such pairs does."]
        if match
        else []
    )
    if above and any(hit.match is None for hit in hits):
        said.append("Above: the share of unrelated pairs that are less alike.")
    if not said:
        return ""
    return f'<p class="note">{" ".join(said)} Learned from rows that the model was not trained on.</p>'


def _media(name: str, cell: Any, id: str) -> str:
    """An element that carries the file a cell names; empty where it names none that can be shown."""
    suffix = Path(cell).suffix.lower() if isinstance(cell, str) and len(cell) < 4096 else ""
    if suffix not in PICTURES and suffix not in PLAYED:
        return ""
    path, label = Path(cell), escape(f"{name} of {id}")
    with suppress(DataError, OSError, ValueError):
        if not path.is_file():
            return ""
        if suffix in PICTURES:
            return f'<img src="{_thumbnail(path)}" alt="{label}" loading="lazy">'
        if path.stat().st_size <= LARGEST:
            kind = PLAYED[suffix]
            uri = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
            tag = kind.partition("/")[0]
            return f'<{tag} controls preload="metadata" aria-label="{label}" src="{uri}"></{tag}>'
    return ""


def _thumbnail(path: Path) -> str:
    """The whole picture, at most SIDE pixels wide and high, as a data: URI."""
    picture = load_image(path, least=SIDE)
    picture.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=84)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
