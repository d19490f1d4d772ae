"""What a page says in words: the answer, where the model looked, and whether to believe that."""

from __future__ import annotations

import numpy as np

from motet.explain.draw import percent
from motet.explain.item import Explained, Media

BELIEVE = {
    "faithful": (
        "Believe this view: taking away what it calls important changes the answer more than chance would."
    ),
    "no better than chance": (
        "Do not lean on this view: taking away what it calls important changes the answer no more than "
        "taking away tokens at random."
    ),
    "worse than chance": (
        "Do not believe this view: taking away what it calls important changes the answer less than "
        "taking away tokens at random."
    ),
}


def sentences(item: Explained) -> tuple[str, ...]:
    """At most three: what the model said, where it looked, whether to believe the view."""
    test = item.deletion
    found = (_answer(item), _looked(item), BELIEVE[test.verdict] if test else "")
    return tuple(sentence for sentence in found if sentence)


def shown_as(item: Explained, modality: str) -> str:
    """What to call a modality: "synthesised speech" rather than "speech"."""
    return item.media.get(modality, Media()).note or modality


def _answer(item: Explained) -> str:
    if not item.predictions:
        return "The model gives no label; explained is what holds this input at its place among others."
    task, said = next(iter(item.predictions.items()))
    truth = f"; the right answer is \u201c{item.truth}\u201d" if item.truth else ""
    match said["label"]:
        case float() as number:
            return f"The model says {number:.3g} for {task}{truth}."
        case list() as labels:
            names = ", ".join(f"\u201c{label}\u201d" for label in labels) or "none of the labels"
            return f"The model says {names} for {task}{truth}."
        case label:
            return f"The model says \u201c{label}\u201d ({percent(said['scores'][label])}){truth}."


def _looked(item: Explained) -> str:
    """Through which modality, and through what of it, most reached the answer."""
    shares = item.importance.by_modality()
    most = max(shares, key=lambda name: shares[name])
    here = item.units.of(most)
    answer = item.units.answer[here]
    place = ""
    if len(here) > 1 and float(answer.max()) > 1.5 * float(np.mean(answer)):
        place = f", most of all through \u201c{item.units.labels[here[int(answer.argmax())]].strip()}\u201d"
    if len(shares) == 1:
        return f"It had only {shown_as(item, most)} to go by{place}."
    less = ""
    if most in item.without:
        before, after = f"{item.without['']:.2f}", f"{item.without[most]:.2f}"
        less = f"; without it, {before} {'stays' if before == after else 'becomes'} {after}"
    return f"{percent(shares[most])} of what reached it came through {shown_as(item, most)}{place}{less}."
