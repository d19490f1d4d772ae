"""How a report looks: one style sheet, a few lines of script, and the page around them.

A page needs no network and no script to be read. Its content security policy allows nothing but
data: pictures and sounds and this one script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files


@dataclass(frozen=True)
class Section:
    """A part of a page. `body` is HTML; `title` and `lead` are text."""

    title: str
    body: str
    lead: str = ""


def page(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    head: str = "",
    foot: str = "",
    policy: Sequence[str] = (),
) -> str:
    """One self-contained HTML document. `head` is HTML under the title, the rest is text. `policy`: what
    its content security policy allows beside data."""
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    allowed = (
        "default-src 'none'",
        "img-src data:",
        "media-src data:",
        "style-src 'unsafe-inline'",
        f"script-src 'sha256-{digest}'",
        *policy,
    )
    links = "".join(f'<li><a href="#s{i}">{escape(s.title)}</a></li>' for i, s in enumerate(sections))
    nav = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 1 else ""
    body = "".join(
        f'<section id="s{i}" aria-labelledby="h{i}"><h2 id="h{i}">{escape(s.title)}</h2>'
        + (f"<p>{escape(s.lead)}</p>" if s.lead else "")
        + f"{s.body}</section>"
        for i, s in enumerate(sections)
    )
    opening = f'<p class="lead">{escape(lead)}</p>' if lead else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(allowed)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_read('page.css')}</style></head><body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f"<header><h1>{escape(title)}</h1>{opening}{head}</header>{nav}"
        f'<main id="content">{body}</main>{f"<footer><p>{escape(foot)}</p></footer>" if foot else ""}'
        f"<script>{script}</script></body></html>"
    )


def _read(name: str) -> str:
    return (files("motet.explain") / name).read_text("utf-8")
