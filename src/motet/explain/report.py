"""The page of one explained input, and the parts that other reports take from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from motet.errors import StorageError
from motet.explain import draw, met, more
from motet.explain.believe import believe_html
from motet.explain.item import Explained, Media, explain_sample
from motet.explain.panel import panel_html
from motet.explain.pictures import pictures
from motet.explain.raster import save_pictures
from motet.explain.rollout import Importance
from motet.explain.said import sentences, shown_as
from motet.explain.style import Section, page
from motet.explain.whole import Whole
from motet.explain.whole_report import whole_html, whole_pictures
from motet.model import Motet
from motet.types import TokenBatch

FOOT = (
    "Made by Motet. Attention shows where the model looked, not why it answered; "
    "the deletion test says how far to believe it."
)


class Page(ABC):
    """What can be saved as a page, as pictures and as numbers, and shows itself in a notebook."""

    @abstractmethod
    def html(self) -> str:
        """The whole self-contained page."""

    @abstractmethod
    def pictures(self) -> dict[str, str]:
        """Every view as SVG, by name."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The numbers behind the page, as JSON values."""

    def save(self, path: str | Path) -> Path:
        """Write the page.

        Raises:
            StorageError: it cannot be written.
        """
        return write_page(path, self.html())

    def save_pictures(self, folder: str | Path) -> list[Path]:
        """Write every view as SVG and PNG.

        Raises:
            StorageError: the folder cannot be written.
        """
        return save_pictures(folder, self.pictures())

    def _repr_html_(self) -> str:
        frame = 'style="width:100%;height:40rem;border:0" title="Explanation"'
        return f'<iframe {frame} srcdoc="{escape(self.html())}"></iframe>'


@dataclass(frozen=True, eq=False)
class Explanation(Page):
    """One explained input: `.save("report.html")`, `.to_dict()`, or shown by itself in a notebook."""

    item: Explained

    def html(self) -> str:
        return explain_html(self.item)

    def pictures(self) -> dict[str, str]:
        return pictures(self.item)

    def to_dict(self) -> dict[str, Any]:
        return {"said": list(sentences(self.item))} | self.item.to_dict()


@dataclass(frozen=True, eq=False)
class WholeExplanation(Page):
    """Many explained inputs together, in the same forms as one."""

    whole: Whole

    def html(self) -> str:
        return whole_html(self.whole)

    def pictures(self) -> dict[str, str]:
        return whole_pictures(self.whole)

    def to_dict(self) -> dict[str, Any]:
        return self.whole.to_dict()


def explain(model: Motet, batch: TokenBatch, media: Mapping[str, Media], *, title: str = "") -> Explanation:
    """Explain a batch of one sample; `media` says by modality what to show of it."""
    return Explanation(explain_sample(model, batch, media, title=title))


def write_page(path: str | Path, html: str) -> Path:
    """Write a page whole or not at all."""
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(html, "utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise StorageError(
            f"{path}: the page cannot be written: {error.strerror}. Choose another --out."
        ) from None
    return path


def explain_html(item: Explained) -> str:
    """A page about one input: the answer, where the model looked, whether to believe that, and why."""
    sections = [
        Section("Where it looked", panel_html(item)),
        Section("The answer", reached_html(item)),
        Section("Whether to believe it", believe_html(item)),
        Section("Query and result", met.meeting_html(item)),
        Section("Who listened to whom", more.matrix_html(item)),
        Section("Seconds against seconds", more.seconds_html(item)),
        Section("Heads and layers", more.heads_html(item)),
    ]
    there = [section for section in sections if section.body]
    return page(item.title, there, head=said_html(item), foot=FOOT)


def said_html(item: Explained) -> str:
    """What the model said, then where it looked and whether to believe that."""
    first, *others = sentences(item)
    return f'<p class="said">{escape(first)}</p><p class="lead">{escape(" ".join(others))}</p>'


def answer_html(item: Explained) -> str:
    """What the model says, with all its scores, best first; empty for a model without tasks."""
    if not item.predictions:
        return ""
    parts = []
    for task, said in item.predictions.items():
        if said["scores"]:
            ranked = sorted(said["scores"].items(), key=lambda score: -score[1])
            parts.append(draw.bars([(c, p, draw.percent(p)) for c, p in ranked], caption=task))
        else:
            parts.append(f'<p><span class="note">{escape(task)}</span> {said["label"]:.3g}</p>')
    truth = f'<p class="note">The right answer: {escape(item.truth)}.</p>' if item.truth else ""
    return "".join(parts) + truth


def reached_html(item: Explained) -> str:
    """The scores of the answer beside which modality, and which tokens, reached it."""
    shares = item.importance.by_modality()
    colours = [f"var(--m{min(i, 5)})" for i in range(len(shares))]
    rows = [
        draw.row(
            escape(shown_as(item, name)),
            draw.bar_cell(share, colour=colour, extra=True),
            draw.number(draw.percent(share)),
            draw.number(f"{item.without[name]:.3f}" if name in item.without else "\u2013"),
        )
        for (name, share), colour in zip(shares.items(), colours, strict=True)
    ]
    head = (f"through ({item.importance.method})", "", ">share", ">answer without")
    reached = draw.rows_table(f"What reached it; as it is, {item.without['']:.3f}", head, rows, caption=True)
    columns = [answer_html(item), reached + _tokens(item.importance)]
    return f'<div class="columns">{"".join(f"<div>{column}</div>" for column in columns if column)}</div>'


def _tokens(importance: Importance) -> str:
    order = np.argsort(-importance.value, kind="stable")[:40]
    rows = [[importance.labels[i], importance.modality[i], float(importance.value[i])] for i in order]
    table = draw.table(["token", "modality", "part of the whole"], rows)
    return f"<details><summary>The tokens that weigh most</summary>{table}</details>"
