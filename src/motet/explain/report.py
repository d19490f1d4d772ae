"""The page of one explained input, and the parts that other reports take from it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from motet.errors import StorageError
from motet.explain import draw, more
from motet.explain import media as show
from motet.explain.item import Explained, Media, explain_sample
from motet.explain.rollout import Importance
from motet.explain.style import MAX_WORDS, Section, page
from motet.model import Motet
from motet.types import TokenBatch

_names = itertools.count()
BARS = 110
BELIEVE = {
    "faithful": (
        "removing what is called important hurts more than chance: the view names what the answer hangs on"
    ),
    "worse than chance": (
        "removing what is called important hurts less than chance: do not believe this view here"
    ),
    "no better than chance": ("no different from removing tokens at random: do not lean on this view here"),
}
FOOT = (
    "Made by Motet. Attention shows where the model looked, not why it answered; "
    "the deletion test says how far to believe it."
)


@dataclass(frozen=True, eq=False)
class Explanation:
    """One explained input: `.save("report.html")`, `.to_dict()`, or shown by itself in a notebook."""

    item: Explained

    def html(self) -> str:
        """The whole self-contained page."""
        return explain_html(self.item)

    def save(self, path: str | Path) -> Path:
        """Write the page.

        Raises:
            StorageError: it cannot be written.
        """
        return write_page(path, self.html())

    def to_dict(self) -> dict[str, Any]:
        return self.item.to_dict()

    def _repr_html_(self) -> str:
        frame = 'style="width:100%;height:40rem;border:0" title="Explanation"'
        return f'<iframe {frame} srcdoc="{escape(self.html())}"></iframe>'


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
    """A page about one input: the answer, who listened to whom, what reached the answer."""
    sections = [
        Section("The input", input_html(item)),
        Section("The answer", answer_html(item)),
        Section("Who listened to whom", matrix_html(item)),
        Section("Each word over the picture", pictures_html(item)),
        Section("Each word over the sound", sounds_html(item)),
        Section("Query and result", more.meeting_html(item)),
        Section("What reached the answer", reached_html(item)),
        Section("Seconds against seconds", more.seconds_html(item)),
        Section("Heads and layers", more.heads_html(item)),
    ]
    there = [section for section in sections if section.body]
    return page(item.title, there, lead="Where the model looked, and what its answer hangs on.", foot=FOOT)


def input_html(item: Explained) -> str:
    """The input itself: picture, player, text."""
    pictures, parts = [], []
    for name in item.matrix.modalities:
        media = item.media.get(name, Media())
        note = escape(media.note or name)
        if media.file is not None and item.kinds[name] == "image":
            pictures.append(
                f'<img class="thumb" src="{show.picture_uri(media.file)}" alt="{escape(item.title)}">'
            )
        elif media.file is not None and item.kinds[name] == "audio":
            parts.append(f'<p class="note">{note}</p>{show.player(media.file, media.note or name)}')
        elif media.text:
            parts.append(f'<p class="note">{note}</p><p class="text">{escape(media.text)}</p>')
    parts = [*pictures, f"<div>{''.join(parts)}</div>"]
    missing = [name for name in item.kinds if name not in item.matrix.modalities]
    said = f'<p class="note">Missing: {escape(", ".join(missing))}.</p>' if missing else ""
    return f'<div class="pair">{"".join(parts)}</div>{said}'


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
    return f'<div class="columns">{"".join(f"<div>{part}</div>" for part in parts)}</div>{truth}'


def matrix_html(item: Explained) -> str:
    """Modality x modality, corrected, with the raw shares behind it; empty for a single modality."""
    matrix = item.matrix
    if len(matrix.modalities) < 2:
        return ""
    names = list(matrix.modalities)
    picture = draw.heat_map(
        matrix.whole_corrected, names, names, title="Attention of each modality to each modality",
        row_name="listens", col_name="to", most=2 / len(names),
    )  # fmt: skip
    head = ["listens", *(f"to {name}" for name in names), *(f"{name}, raw" for name in names), "tokens"]
    rows: list[list[str | int | float]] = [
        [
            name,
            *map(float, matrix.whole_corrected[i]),
            *map(float, matrix.whole_raw[i]),
            int(matrix.tokens[i]),
        ]
        for i, name in enumerate(names)
    ]
    caption = (
        "Each row adds up to one: how a modality divides its attention, mean over heads and over the "
        "layers in which modalities meet. Corrected for how many tokens each has; the raw shares are in "
        "the table."
    )
    return draw.figure(picture, caption, draw.table(head, rows))


def pictures_html(item: Explained) -> str:
    """Each word over each picture."""
    parts = []
    for name, view in item.words.items():
        file = item.media.get(name, Media()).file
        if item.kinds[name] != "image" or file is None:
            continue
        numbers = draw.table(
            ["word", "share of its attention", "brightest patch", "of that share"],
            [
                [label, float(share), view.key_labels[int(weights.argmax())], float(weights.max())]
                for label, share, weights in zip(view.query_labels, view.share, view.weights, strict=True)
            ],
        )
        body = show.lens(
            f"x{next(_names)}",
            show.picture_uri(file),
            view.query_labels,
            view.grid(),
            view.share.tolist(),
            kind=name,
        )
        parts.append(body + f"<details><summary>The numbers</summary>{numbers}</details>")
    return "".join(parts)


def sounds_html(item: Explained) -> str:
    """Each word over the seconds of each sound."""
    parts = []
    for name, view in item.words.items():
        media = item.media.get(name, Media())
        if item.kinds[name] != "audio" or media.file is None:
            continue
        loud, seconds = show.envelope(media.file, BARS)
        lit = show.over_time(view.weights, view.time, seconds, BARS)
        rows = "".join(
            f"<span>{escape(label)}</span>{show.lit_sound(loud, lit[i], f'Where {label!r} listened')}"
            for i, label in enumerate(view.query_labels[:MAX_WORDS])
        )
        best = view.weights.argmax(1)
        numbers = draw.table(
            ["word", "share of its attention", "loudest for it", "of that share"],
            [
                [label, float(view.share[i]), view.key_labels[int(best[i])], float(view.weights[i, best[i]])]
                for i, label in enumerate(view.query_labels)
            ],
        )
        note = "The height is loudness; the fuller the colour, the more the word listened there."
        picture = f'<div class="sounds">{rows}<span></span>{show.seconds_axis(seconds)}</div>'
        parts.append(draw.figure(picture, note, numbers))
    return "".join(parts)


def reached_html(item: Explained) -> str:
    """Which modality and which tokens reached the answer, and the deletion test."""
    shares = item.importance.by_modality()
    colours = [f"var(--m{min(i, 5)})" for i in range(len(shares))]
    rows = [(name, share, draw.percent(share)) for name, share in shares.items()]
    parts = [draw.bars(rows, caption=f"By modality ({item.importance.method})", colours=colours)]
    for name in shares:
        if item.kinds[name] == "text":
            parts.append(f"<h3>Words</h3>{show.words(*item.weighed_words(name))}")
    deletion = deletion_html(item)
    columns = [f"<div>{part}</div>" for part in ("".join(parts) + _tokens(item.importance), deletion) if part]
    return f'<div class="columns">{"".join(columns)}</div>'


def deletion_html(item: Explained) -> str:
    """The curve of the deletion test with its verdict; empty where nothing was tested."""
    test = item.deletion
    if test is None:
        return ""
    lines = [
        draw.Line("important", test.removed.tolist(), test.score.tolist()),
        draw.Line("random", test.removed.tolist(), test.random.mean(0).tolist()),
        draw.Line("reversed", test.removed.tolist(), test.reversed.tolist()),
    ]
    spread = np.percentile(test.random, [2.5, 97.5], axis=0)
    lowest = min(float(curve.min()) for curve in (test.score, test.reversed, test.random))
    picture = draw.line_chart(
        lines, title="Deletion test", x_name="share of tokens removed", y_name=item.answer,
        zero=lowest >= 0, band=(test.removed.tolist(), spread[0].tolist(), spread[1].tolist()),
    )  # fmt: skip
    caption = f"Deletion test: {BELIEVE[test.verdict]}. Reversed, read from the right, is insertion."
    rows = [
        [float(r), float(chosen), float(mean), float(back)]
        for r, chosen, mean, back in zip(
            test.removed, test.score, test.random.mean(0), test.reversed, strict=True
        )
    ]
    numbers = draw.table(["removed", "important first", "random", "reversed"], rows, first=False)
    return draw.figure(picture, caption, numbers) + tests_html(item)


def tests_html(item: Explained) -> str:
    """Every view's areas against random order, with their intervals, and what they come to."""

    def area(mean: float, low: float, high: float) -> str:
        return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"

    rows: list[list[str | int | float]] = [
        [
            test.method,
            area(test.area, test.low, test.high),
            area(test.insertion, test.insertion_low, test.insertion_high),
            test.verdict,
        ]
        for test in item.tests
    ]
    note = (
        "Area between the curve and random order, with the 5 to 95 % range over random orders: above zero "
        "is better than chance. Rollout is attention alone."
    )
    table = draw.table(["view", "deletion", "insertion", "verdict"], rows)
    return f'<h3>Which view to believe</h3>{table}<p class="note">{escape(note)}</p>'


def _tokens(importance: Importance) -> str:
    order = np.argsort(-importance.value, kind="stable")[:40]
    rows = [[importance.labels[i], importance.modality[i], float(importance.value[i])] for i in order]
    table = draw.table(["token", "modality", "part of the whole"], rows)
    return f"<details><summary>The tokens that weigh most</summary>{table}</details>"
