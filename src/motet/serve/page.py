"""What a person sees: one page with a form, and the answers beside it. It needs no script.

The form posts to the routes themselves, into a frame; each answers a browser with a page of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from motet.explain import draw
from motet.explain.style import Section, page
from motet.index import Index
from motet.predictor import Predictor
from motet.tasks.timeline import Timeline

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'self'; form-action 'self'; base-uri 'none'",
}
_ACCEPT = {"image": "image/*", "audio": "audio/*,video/*", "video": "video/*", "features": ".npy"}
_ASKS = {"image": "A picture", "audio": "A sound", "video": "A clip", "text": "Words", "features": "Numbers"}


def home(predictor: Predictor, index: Index | None) -> str:
    """The form: a field for every modality, a button for everything that this model can do."""
    fields = "".join(_field(name, p.kind) for name, p in predictor.processors.items())
    timed = any(p.kind in ("audio", "video") for p in predictor.processors.values())
    can = [
        ("predict", "Ask", bool(predictor.tasks)),
        ("search", "Find", index is not None),
        ("explain", "Why?", bool(predictor.tasks)),
        ("timeline", "Over time", bool(predictor.tasks) and timed),
    ]
    buttons = "".join(
        f'<button formaction="{where}">{escape(words)}</button>' for where, words, there in can if there
    )
    if not buttons:
        buttons = '<p class="note">This model was trained for retrieval: start the server with an index.</p>'
    css = (files("motet.serve") / "page.css").read_text("utf-8")
    body = (
        f'<style>{css}</style><div class="ask-model">'
        '<form method="post" enctype="multipart/form-data" target="answer">'
        f'{fields}<div class="does">{buttons}</div><p class="note">Leave empty what there is not. '
        "What you send is kept only until it is answered.</p></form>"
        '<iframe name="answer" title="The answer" sandbox="allow-scripts"></iframe></div>'
    )
    ask, lead = Section("Ask", body), _lead(predictor, index)
    return page("Ask the model", [ask], lead=lead, policy=("frame-src 'self'",))


def _lead(predictor: Predictor, index: Index | None) -> str:
    kinds = ", ".join(dict.fromkeys(_HEARS[p.kind] for p in predictor.processors.values()))
    says = "; ".join(
        ": ".join([task.name, *([_few(task.classes)] if task.classes else [])]) for task in predictor.tasks
    )
    parts = [f"It takes {kinds}, any of them alone or together."]
    parts += [f"It says {says}."] if says else []
    parts += ["It finds what is like it in an index."] if index is not None else []
    return " ".join(parts)


def _few(names: Sequence[str], most: int = 8) -> str:
    return ", ".join([*names[:most], *(["..."] if len(names) > most else [])])


_HEARS = {"text": "words", "image": "pictures", "audio": "sounds", "video": "clips", "features": "numbers"}


def _field(name: str, kind: str) -> str:
    label = f"{_ASKS[kind]}<small>{escape(name)}</small>"
    if kind == "text":
        return f'<label>{label}<textarea name="{escape(name)}"></textarea></label>'
    return f'<label>{label}<input type="file" name="{escape(name)}" accept="{_ACCEPT[kind]}"></label>'


def answer(said: Mapping[str, Any]) -> str:
    """What a model says of one thing, as `Predictor.predict` gives it."""
    if said["status"] == "missing":
        return page("Nothing to go by", [], lead="Nothing was sent that this model can use.")
    tasks = said.get("tasks") or {"": said}
    parts = []
    for name, one in tasks.items():
        if one["scores"]:
            ranked = sorted(one["scores"].items(), key=lambda pair: -pair[1])
            parts.append(draw.bars([(c, p, draw.percent(p)) for c, p in ranked], caption=name))
        elif name:
            parts.append(f'<p><span class="note">{escape(name)}</span> {one["label"]:.3g}</p>')
    heard = f"Heard: {', '.join(said['modalities'])}."
    return page(_label(said["label"]), [Section("How sure", "".join(parts))] if parts else [], lead=heard)


def _label(label: Any) -> str:
    if isinstance(label, float):
        return f"{label:.3g}"
    return ", ".join(label) or "none of them" if isinstance(label, list) else str(label)


def timeline(found: Timeline) -> str:
    """The curve of a clip."""
    guess = " The times of the words are a guess." if found.estimated else ""
    return page("Over time", [Section("The curve", found.svg())], lead=f"{found.seconds:.1f} seconds.{guess}")


def error(words: str) -> str:
    """Why there is no answer."""
    return page("That did not work", [], lead=words)
