"""The page of `motet check --html`: what was found, with the pictures and sounds of the worst rows."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image

from motet.data.audio import load_audio
from motet.data.columns import Columns
from motet.data.findings import LIMIT, Finding, Report
from motet.data.image import load_image
from motet.data.media import open_media
from motet.data.table import Table
from motet.data.video import load_video
from motet.errors import DataError
from motet.explain.draw import bars, table
from motet.explain.style import Section, page

SHOWN, CARDS = 12, 12  # findings with examples, and rows of each
SIDE = 112  # pixels of a thumbnail
WIDE, HIGH, STEPS = 176, 56, 88  # of a waveform


def check_page(report: Report, opened: Table, columns: Columns) -> str:
    """One self-contained HTML document. `opened` and `columns` are those that were checked."""
    sections = [
        Section("Findings", _summary(report), "" if report.findings else "Nothing is wrong with this table.")
    ]
    with_rows = [finding for finding in report.findings if finding.rows]
    if with_rows:
        examples = "".join(_examples(finding, opened, columns) for finding in with_rows[:SHOWN])
        sections.append(Section("Rows to look at", f"<style>{_style()}</style>{examples}", _lead(with_rows)))
    if report.labels:
        sections.append(Section("Labels", _labels(report)))
    sections.append(Section("Columns", _columns(report)))
    verdict = (
        f"Usable: {report.broken} of {report.rows} rows are broken (limit {LIMIT:.0%})."
        if report.usable
        else f"Not usable: {report.broken} of {report.rows} rows are broken, more than {LIMIT:.0%}."
    )
    head = f'<p class="verdict {"good" if report.usable else "bad"}">{verdict}</p>'
    return page(f"Check of {opened.path.name}", sections, lead=str(report.table), head=head)


def _style() -> str:
    return (files("motet.explain") / "check.css").read_text("utf-8")


def _lead(findings: Sequence[Finding]) -> str:
    return f"The first {SHOWN} of {len(findings)} findings." if len(findings) > SHOWN else ""


def _summary(report: Report) -> str:
    if not report.findings:
        return ""
    kinds = Counter(finding.level for finding in report.findings)
    said = ", ".join(
        _count(count, f"kind of {level}", f"kinds of {level}s") for level, count in kinds.items()
    )
    rows = [
        [finding.level, finding.rule, finding.column, len(finding.lines) or "", finding.message]
        for finding in report.findings
    ]
    return table(["status", "rule", "column", "rows", "first case"], rows) + f'<p class="note">{said}</p>'


def _count(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"


def _examples(finding: Finding, opened: Table, columns: Columns) -> str:
    rows = list(dict.fromkeys(finding.rows))[:CARDS]
    more = len(set(finding.rows)) - len(rows)
    names = [finding.column] if finding.column in columns.modalities else list(columns.modalities)
    cards = "".join(_card(opened, columns, i, names) for i in rows)
    place = f" in {escape(finding.column)}" if finding.column else ""
    return (
        f'<h3><span class="{finding.level}">{escape(finding.rule)}</span>{place} '
        f"<small>{_count(len(finding.lines), 'row')}</small></h3><p>{escape(finding.message)}</p>"
        f'<ul class="cards">{cards}</ul>' + (f'<p class="note">and {more} more rows</p>' if more else "")
    )


def _card(opened: Table, columns: Columns, i: int, names: Sequence[str]) -> str:
    row = opened.row(i)
    shown = [name for name in names if columns.modalities[name] != "text"][:2] or list(names)[:1]
    pictures = "".join(_picture(row[name], columns.modalities[name], opened) for name in shown)
    texts = [name for name, kind in columns.modalities.items() if kind == "text" and row[name] is not None]
    said = f"<span>{escape(_cut(row[texts[0]]))}</span>" if texts else ""
    named = " ".join(_cut(row[name]) for name in shown if columns.modalities[name] != "text")
    return f"<li>{pictures}<b>{escape(opened.unit)} {opened.line(i)}</b>{escape(named)} {said}</li>"


def _cut(cell: Any, length: int = 90) -> str:
    text = "" if cell is None else str(cell)
    return text if len(text) <= length else text[: length - 1] + "…"


def _picture(cell: Any, kind: str, opened: Table) -> str:
    """A thumbnail or waveform, or why there is none."""
    try:
        media = open_media(cell, opened.root) if kind in ("image", "audio", "video") else None
        if media is None:
            return "" if kind in ("text", "features") else _nothing("empty")
        if kind == "audio":
            wave = load_audio(media, str(cell))
            return _nothing("no sound") if wave is None else waveform(wave)
        clip = load_video(media, str(cell)) if kind == "video" else None
        if kind == "video" and clip is None:
            return _nothing("no picture")
        if clip is not None:
            return _thumbnail(Image.fromarray(clip.frames[len(clip.frames) // 2]))
        return _thumbnail(load_image(media, str(cell)))
    except DataError as error:
        return _nothing(error.rule)


def _nothing(why: str) -> str:
    return f'<div class="none">{escape(why)}</div>'


def _thumbnail(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((2 * SIDE, 2 * SIDE), reducing_gap=2)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return f'<img alt="" src="data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def waveform(wave: np.ndarray) -> str:
    """The loudness of a sound over its length, full scale from edge to edge, so that silence is a line."""
    edges = np.linspace(0, len(wave), STEPS + 1).astype(int)
    loud = [float(np.abs(wave[a : max(b, a + 1)]).max(initial=0)) for a, b in pairwise(edges)]
    middle, step = HIGH / 2, WIDE / STEPS
    bar = "".join(
        f"M{k * step:.1f} {middle - h:.1f}h{step * 0.7:.1f}v{2 * h:.1f}h-{step * 0.7:.1f}z"
        for k, h in enumerate(min(1.0, value) * (middle - 2) for value in loud)
    )
    seconds = len(wave) / 16_000
    return (
        f'<svg viewBox="0 0 {WIDE} {HIGH}" role="img"><title>{seconds:.2f} s of sound</title>'
        f'<line x1="0" y1="{middle}" x2="{WIDE}" y2="{middle}"/><path d="{bar}"/></svg>'
    )


def _labels(report: Report) -> str:
    most = max(report.labels.values()) or 1
    rows = [(word, count / most, str(count)) for word, count in report.labels.items()]
    return bars(rows[:40], caption=f"Rows of each of {len(rows)} classes")


def _columns(report: Report) -> str:
    said = "".join(f"<li>{escape(line)}</li>" for line in report.columns)
    parts = ", ".join(f"{part} {count}" for part, count in report.parts.items())
    filled = [[name, f"{count} of {report.rows}"] for name, count in report.filled.items()]
    lengths = "".join(
        f"<p>{escape(name)}: {median:g} words in the middle, at most {most}.</p>"
        for name, (median, most) in report.words.items()
    )
    split = f"<p>Split: {escape(parts)}.</p>" if parts else ""
    return f"<ul>{said}</ul>{split}{lengths}" + table(["modality", "rows with a value"], filled)
