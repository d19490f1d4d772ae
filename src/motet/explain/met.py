"""A query beside a result of its search: which tokens of the two make them alike."""

from __future__ import annotations

from html import escape

import numpy as np

from motet.explain import draw
from motet.explain import media as show
from motet.explain.item import Explained
from motet.explain.occlusion import Meeting
from motet.explain.views import on_grid

STRONG = 12  # tokens of each side in the picture
WORDS = 12


def _strongest(found: Meeting) -> tuple[np.ndarray, np.ndarray]:
    """The tokens of query and result that the cosine hangs on most, in their order."""
    query = np.argsort(-np.abs(found.query), kind="stable")[:STRONG]
    result = np.argsort(-np.abs(found.result), kind="stable")[:STRONG]
    return np.sort(query), np.sort(result)


def meeting_svg(found: Meeting) -> str:
    """Query tokens (down) against result tokens (across): what they bring only together."""
    best, other = _strongest(found)
    return draw.heat_map(
        np.maximum(found.together[np.ix_(best, other)], 0), [found.query_labels[i][:16] for i in best],
        [str(j + 1) for j in range(len(other))], digits=3, title="Which tokens met", row_name="query",
        col_name="result, numbered as below", cell=(58, 34),
    )  # fmt: skip


def meeting_html(item: Explained) -> str:
    """Which tokens of the query met which of the result."""
    found = item.meeting
    if found is None:
        return ""
    best, other = _strongest(found)
    met: list[list[str | int | float]] = [
        [f"{j + 1}: {found.result_modality[k]}, {found.result_labels[k]}", float(found.result[k])]
        for j, k in enumerate(other)
    ]
    asked: list[list[str | int | float]] = [
        [f"{found.query_modality[i]}, {found.query_labels[i]}", float(found.query[i])] for i in best
    ]
    caption = (
        f"Cosine {found.cosine:.3f}. A cell is how much of it the two tokens bring only together "
        "(leaving out either, and both; negative ones are drawn as zero)."
    )
    lost = "the cosine loses without it"
    tables = [
        draw.table([f"token of the {who}", lost], lines) for who, lines in (("query", asked), ("result", met))
    ]
    columns = "".join(f"<div>{table}</div>" for table in tables)
    picture = draw.figure(meeting_svg(found), caption)
    return _result(item, found) + picture + f'<div class="columns">{columns}</div>'


def _result(item: Explained, found: Meeting) -> str:
    """The result itself; its picture with the patches lit that the cosine hangs on, then word by word."""
    parts, words = [], ""
    for name, media in item.against.items():
        here = np.array(found.result_modality) == name
        if media.text:
            parts.append(f'<p class="text">{escape(media.text)}</p>')
        elif media.file is not None and item.kinds[name] == "audio":
            parts.append(show.played(media.file, media.note or name))
        elif media.file is not None and item.kinds[name] == "image" and here.any():
            uri = show.picture_uri(media.file)
            title = "The patches of the result that the cosine hangs on"
            parts.append(f'<img class="thumb" src="{uri}" alt="The result">')
            parts.append(
                f'<div class="thumb">{show.lit_picture(uri, _grid(found, found.result, here), title)}</div>'
            )
            words = _words(found, here, uri)
    return f'<div class="pair">{"".join(parts)}</div>{words}'


def _words(found: Meeting, here: np.ndarray, uri: str) -> str:
    """The result's picture once for each strong token of the query, lit where the two met."""
    best, _ = _strongest(found)
    cells = []
    for i in best[:WORDS]:
        label = found.query_labels[i]
        lit = show.lit_picture(uri, _grid(found, found.together[i], here), f"Where {label!r} met the picture")
        together = float(np.maximum(found.together[i][here], 0).sum())
        cells.append(f"<li>{lit}<span>{escape(label)}</span><small>{together:+.3f}</small></li>")
    note = "Each word of the query over the picture that was found: lit where the two help only together."
    return f'<ul class="met">{"".join(cells)}</ul><p class="note">{note}</p>'


def _grid(found: Meeting, values: np.ndarray, here: np.ndarray) -> np.ndarray:
    return on_grid(np.maximum(values[here], 0), found.result_row[here], found.result_col[here])
