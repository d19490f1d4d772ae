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

MAX_WORDS = 24  # of a lens: thumbnails beside one large picture

SCRIPT = """
for (const label of document.querySelectorAll('.lens label'))
  label.addEventListener('pointerenter', e => { if (e.pointerType === 'mouse') label.control.checked = true });
for (const sound of document.querySelectorAll('audio'))
  sound.addEventListener('play', () => {
    for (const other of document.querySelectorAll('audio')) if (other !== sound) other.pause();
  });
"""

_COLOURS = """
:root { --page:#fbfaf8; --panel:#fff; --ink:#1c2027; --soft:#5d6573; --line:#e5e2dc; --cell:#f1f0ec;
  --accent:#1b4a92; --on-accent:#fff; --good:#0b7a56; --bad:#a8420f;
  --m0:#1b4a92; --m1:#b4560a; --m2:#0b7a6c; --m3:#8a3f7e; --m4:#6b6a1e; --m5:#5d6573; color-scheme:light }
"""
_DARK = """--page:#111418; --panel:#181c22; --ink:#e8eaee; --soft:#9aa3b1; --line:#2a3039; --cell:#20252d;
  --accent:#8cb2ff; --on-accent:#0c1424; --good:#5fd0a5; --bad:#f2a071;
  --m0:#8cb2ff; --m1:#f0a860; --m2:#5ecfbf; --m3:#e0a0d6; --m4:#cfcb74; --m5:#9aa3b1; color-scheme:dark"""

_RULES = """
* { box-sizing:border-box }
html { scroll-behavior:smooth; -webkit-text-size-adjust:100% }
@media (prefers-reduced-motion:reduce) { html { scroll-behavior:auto } }
body { margin:0; background:var(--page); color:var(--ink); font:16px/1.6 system-ui,-apple-system,"Segoe UI",
  Roboto,"Helvetica Neue",Arial,"Liberation Sans",sans-serif; font-variant-numeric:tabular-nums }
header, main, footer { max-width:66rem; margin:0 auto; padding:0 1.5rem }
header { padding-top:4rem; padding-bottom:2rem }
h1,h2 { font-family:"Iowan Old Style","Palatino Linotype",Palatino,"Book Antiqua","Liberation Serif",Georgia,serif;
  font-weight:500; letter-spacing:-.01em; line-height:1.15; text-wrap:balance }
h1 { font-size:clamp(2rem,5vw,2.9rem); margin:0 0 .75rem }
h2 { font-size:1.75rem; margin:0 0 .5rem }
h3 { font-size:1rem; font-weight:600; margin:2.5rem 0 .25rem }
p { margin:.25rem 0 1rem; max-width:44rem; text-wrap:pretty }
.lead, .note, figcaption, caption { color:var(--soft) }
.lead { font-size:1.1rem; margin:0 }
.note, figcaption { font-size:.9rem; line-height:1.5 }
a { color:var(--accent) }
nav { position:sticky; top:0; z-index:2; background:color-mix(in srgb,var(--page) 92%,transparent);
  backdrop-filter:blur(8px); border-bottom:1px solid var(--line) }
nav ul { display:flex; gap:1.5rem; list-style:none; max-width:66rem; margin:0 auto; padding:0 1.5rem;
  overflow-x:auto; scrollbar-width:none; white-space:nowrap }
nav a { display:block; padding:.8rem 0; color:var(--soft); text-decoration:none; font-size:.92rem }
nav a:hover { color:var(--ink) }
:focus-visible { outline:2px solid var(--accent); outline-offset:3px; border-radius:3px }
.skip { position:absolute; left:-99rem } .skip:focus { left:1rem; top:1rem; z-index:3; background:var(--panel); padding:.5rem }
section { padding:3.25rem 0; border-bottom:1px solid var(--line); scroll-margin-top:3rem }
section:last-child { border-bottom:0 }
footer { padding-top:1.5rem; padding-bottom:4rem; color:var(--soft); font-size:.88rem; border-top:1px solid var(--line) }
code, pre { font:.88em/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace }
pre { background:var(--cell); padding:1rem 1.25rem; border-radius:8px; overflow-x:auto; margin:.5rem 0 1rem }
.facts { display:grid; grid-template-columns:repeat(auto-fit,minmax(9.5rem,1fr)); gap:1.75rem 2rem; margin:2rem 0 0 }
.facts dt { color:var(--soft); font-size:.88rem; line-height:1.4 } .facts div { display:flex; flex-direction:column-reverse; justify-content:flex-end }
.facts dd { margin:0; font-size:1.9rem; line-height:1.25; letter-spacing:-.02em }
.facts small { font-size:.88rem; color:var(--soft); letter-spacing:0; display:block }
.columns { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr)); gap:2rem 3.5rem; align-items:start }
.columns > * { min-width:0 }
figure { margin:1.5rem 0 0 } figcaption { margin-top:.75rem; max-width:44rem }
svg.chart { display:block; width:100%; height:auto; overflow:visible; font-size:13px; fill:var(--ink) }
.chart .soft { fill:var(--soft) } .chart .base { fill:var(--cell) } .chart .hot { fill:var(--accent) }
.chart .on { fill:var(--on-accent) } .chart .grid { stroke:var(--line); fill:none }
.chart .middle { text-anchor:middle } .chart .end { text-anchor:end }
.chart .line { fill:none; stroke-width:2; stroke-linejoin:round; stroke-linecap:round }
.s0 { stroke:var(--accent) } .s1 { stroke:var(--soft); stroke-dasharray:2 4 } .s2 { stroke:var(--m1) }
.chart .f0 { fill:var(--accent) } .chart .f1 { fill:var(--soft) } .chart .f2 { fill:var(--m1) } .band { fill:var(--soft); opacity:.14 }
.scroll { overflow-x:auto; margin:1.25rem 0 0 }
table { border-collapse:collapse; width:100%; font-size:.94rem } caption { text-align:left; font-size:.9rem; padding-bottom:.5rem }
th { font-weight:500; text-align:left; color:var(--soft); font-size:.86rem; white-space:nowrap }
td, th { padding:.55rem 1.1rem .55rem 0; border-bottom:1px solid var(--line); vertical-align:middle }
tbody th { color:var(--ink); font-size:.94rem } tr > :last-child { padding-right:0 }
td.n, th.n { text-align:right } td.wide { width:34%; min-width:7rem } tr.top td, tr.top th { font-weight:600 }
.bar { display:block; position:relative; height:.7rem; border-radius:2px; background:var(--cell) }
.bar::before { content:""; position:absolute; inset:0 auto 0 0; width:calc(var(--v)*100%); border-radius:2px; background:var(--c,var(--accent)) }
.bar.ref::after { content:""; position:absolute; top:-.2rem; bottom:-.2rem; left:calc(var(--r)*100%); border-left:2px solid var(--ink) }
details { margin-top:.75rem; font-size:.9rem } summary { cursor:pointer; color:var(--soft); width:fit-content }
details table { font-size:.85rem; width:auto } details td, details th { padding:.3rem 1rem .3rem 0 }
details .scroll { max-height:24rem; overflow:auto }
.dot { display:inline-block; width:.62rem; height:.62rem; border-radius:50%; background:var(--c); margin-right:.5rem }
.dot.off { background:none; box-shadow:inset 0 0 0 1.5px var(--line) } .dots .dot { margin-right:.35rem }
.words { font-size:1.35rem; line-height:2; max-width:44rem; margin:.5rem 0 }
.words span { padding:.12em .35em; margin-right:.15em; border-radius:4px; background:color-mix(in srgb,var(--accent) calc(var(--w)*100%),var(--cell)) }
.words .on { color:var(--on-accent) }
.pair { display:flex; flex-wrap:wrap; gap:1.5rem 2.5rem; align-items:center; margin-top:1.5rem } .pair > * { min-width:0 }
.thumb { width:9rem; height:9rem; border-radius:10px; object-fit:contain; background:#fff; border:1px solid var(--line); display:block }
audio { display:block; height:2.4rem; width:min(100%,20rem) }
.defs { position:absolute; width:0; height:0 }
.lens { display:grid; grid-template-columns:minmax(0,20rem) minmax(0,1fr); gap:2.5rem; align-items:start; margin-top:1.5rem; position:relative }
.lens input { position:absolute; opacity:0; pointer-events:none }
.lens .stage > * { display:none; margin:0 } .lens svg { display:block; width:100%; border-radius:10px; background:#fff }
.thumbs { display:grid; grid-template-columns:repeat(auto-fill,minmax(6.2rem,1fr)); gap:1rem }
.thumbs label { cursor:pointer; text-align:center; font-size:.92rem; line-height:1.35; overflow-wrap:anywhere }
.thumbs svg { margin-bottom:.4rem; outline:2px solid transparent; outline-offset:2px }
.thumbs small { display:block; color:var(--soft) }
.sounds { display:grid; grid-template-columns:max-content minmax(0,1fr); gap:.35rem 1.25rem; align-items:center; max-width:48rem }
.sounds span { text-align:right } .sounds svg { margin:0 }
.queries { display:grid; gap:2.75rem; margin-top:2rem }
.query { display:grid; grid-template-columns:12rem minmax(0,1fr); gap:1.25rem 2.5rem; align-items:start }
.query h3 { margin:0; font-size:1.12rem; line-height:1.35 } .query .note { margin:.25rem 0 .6rem }
.hits { display:grid; grid-template-columns:repeat(6,minmax(0,1fr)); gap:1rem; list-style:none; margin:0; padding:0 }
.hits img { width:100%; aspect-ratio:1; object-fit:contain; background:#fff; border-radius:10px; padding:10%; border:1px solid var(--line); display:block }
.hits .right img { outline:3px solid var(--good); outline-offset:-1px; border-color:transparent }
.hits li { font-size:.8rem; line-height:1.35; color:var(--soft); overflow-wrap:anywhere } .hits span { display:block; margin-top:.4rem }
.hits b { color:var(--good); font-weight:600; display:block }
.item + .item { margin-top:3.5rem; padding-top:3rem; border-top:1px solid var(--line) }
.item > h3:first-child { font-size:1.3rem; margin:0 0 1rem }
@media (max-width:44rem) {
  header { padding-top:2.25rem } section { padding:2.5rem 0 } header, main, footer, nav ul { padding-left:1.1rem; padding-right:1.1rem }
  .lens, .query { grid-template-columns:minmax(0,1fr); gap:1.25rem } .hits { grid-template-columns:repeat(3,minmax(0,1fr)) }
  svg.chart { font-size:16px } svg.small { font-size:13px } td, th { padding-right:.8rem } .thumbs { grid-template-columns:repeat(auto-fill,minmax(4.8rem,1fr)) }
  td.wide { min-width:5rem }
}
@media print { nav { display:none } body { background:#fff } }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page. `body` is HTML; `title` and `lead` are text."""

    title: str
    body: str
    lead: str = ""


def page(title: str, sections: Sequence[Section], *, lead: str = "", head: str = "", foot: str = "") -> str:
    """One self-contained HTML document. `head` is HTML under the title, the rest is text."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'"
    )
    links = "".join(f'<li><a href="#s{i}">{escape(s.title)}</a></li>' for i, s in enumerate(sections))
    nav = f'<nav aria-label="Sections"><ul>{links}</ul></nav>' if len(sections) > 1 else ""
    body = "".join(
        f'<section id="s{i}" aria-labelledby="h{i}"><h2 id="h{i}">{escape(s.title)}</h2>'
        + (f"<p>{escape(s.lead)}</p>" if s.lead else "")
        + f"{s.body}</section>"
        for i, s in enumerate(sections)
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_css()}</style></head><body>"
        '<a class="skip" href="#content">Skip to the content</a>'
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{head}</header>{nav}'
        f'<main id="content">{body}</main><footer>{escape(foot)}</footer>'
        f"<script>{SCRIPT}</script></body></html>"
    )


def _css() -> str:
    """The style sheet; `data-theme` on the root overrides what the system prefers."""
    lens = "".join(
        f".lens input:nth-of-type({i}):checked ~ .stage > :nth-child({i}) {{ display:block }}"
        f".lens input:nth-of-type({i}):checked ~ .thumbs > :nth-child({i}) svg {{ outline-color:var(--accent) }}"
        f".lens input:nth-of-type({i}):focus-visible ~ .thumbs > :nth-child({i})"
        " { outline:2px solid var(--accent); outline-offset:6px }"
        for i in range(1, MAX_WORDS + 1)
    )
    dark = f'@media (prefers-color-scheme:dark) {{ :root:not([data-theme="light"]) {{ {_DARK} }} }}'
    return _COLOURS + dark + f':root[data-theme="dark"] {{ {_DARK} }}' + _RULES + lens
