"""The routes: predict, explain, timeline, encode, search, and one page that posts to them.

Whoever asks for HTML, as a browser's form does, gets a page; everybody else JSON. Errors are 4xx with
the same words as everywhere, without the names of folders of this machine.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from motet import __version__
from motet.config import plain
from motet.errors import ConfigError, DataError, MotetError
from motet.explain.report import Explanation
from motet.index import Index
from motet.index.page import search_page
from motet.predictor import Entry, Predictor
from motet.predictor.look import explain_entry
from motet.serve import page
from motet.serve.limits import Bounded, Limits, Refused, check_key
from motet.serve.line import Line
from motet.serve.read import Row, entry_in, rows_in
from motet.tasks.sentiment import SentimentAnalyzer

T = TypeVar("T")
MOST = 1000  # results of a search
_PATH = re.compile(r"(?<![\w.])(?:/[^\s/:;,'\"]+)+/(?=[^\s/])")


def make_app(
    predictor: Predictor, index: Index | None = None, *, key: str | None = None, limits: Limits | None = None
) -> Starlette:
    """An ASGI application for a model, and for searching an index made with it.

    key: what clients must send (`Authorization: Bearer KEY`, or as the password that a browser asks
    for); every route but /health answers 401 without it.
    """
    service = _Service(predictor, index, key, limits or Limits())
    posts = ("predict", "explain", "timeline", "encode", "search")
    routes = [
        Route("/", service.home),
        Route("/health", service.health),
        Route("/model", service.model),
        *(
            Route(f"/{name}", partial(service.answer, what=name), methods=["POST"], name=name)
            for name in posts
        ),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Bounded, limits=service.limits)],
        lifespan=service.lifespan,
    )


class _Service:
    def __init__(self, predictor: Predictor, index: Index | None, key: str | None, limits: Limits) -> None:
        self.predictor, self.index, self.key, self.limits = predictor, index, key, limits
        self.sentiment = SentimentAnalyzer(predictor) if predictor.tasks else None
        self.line = Line(predictor.predict_entries, longest=limits.waiting, seconds=limits.answer)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        await self.line.close()

    # ---- what is asked for without a body

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def home(self, request: Request) -> Response:
        try:
            self._check_key(request)
        except Refused as error:
            return self._said(request, error)
        return HTMLResponse(page.home(self.predictor, self.index), headers=page.HEADERS)

    async def model(self, request: Request) -> Response:
        try:
            self._check_key(request)
        except Refused as error:
            return self._said(request, error)
        model, index = self.predictor, self.index
        rows = None if index is None else await asyncio.to_thread(index.count)
        return JSONResponse(
            {
                "motet": __version__,
                "modalities": {name: p.kind for name, p in model.processors.items()},
                "tasks": [{"name": t.name, "kind": t.kind, "classes": t.classes} for t in model.tasks],
                "width": model.width,
                "index": None if rows is None else {"rows": rows},
                "limits": asdict(self.limits),
            }
        )

    # ---- what has one

    async def answer(self, request: Request, *, what: str) -> Response:
        try:
            self._check_key(request)
            self.line.refuse_if_full()  # before anything is read
            async with rows_in(request, self.limits) as (rows, several):
                return await _unless_gone(request, self._answered(request, what, rows, several))
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except MotetError as error:
            return self._said(request, error)

    async def _answered(self, request: Request, what: str, rows: list[Row], several: bool) -> Response:
        if several and what != "predict":
            raise Refused(400, f"/{what} takes one row, not a list.")
        if what == "search" and "like" in request.query_params and not any(rows):
            entry = None
        else:
            entries = [entry_in(row, self.predictor.processors) for row in rows]
            if what == "predict":
                return await self._predict(request, entries, several)
            (entry,) = entries
        match what:
            case "search":
                return await self._search(request, rows[0], entry)
            case "encode":
                vector = await self.line.ask(lambda: self._vector(entry))
                return JSONResponse({"vector": vector})
            case "explain":
                made = await self.line.ask(lambda: _explained(self.predictor, entry, _wants_page(request)))
            case _:
                made = await self.line.ask(lambda: self._timeline(request, entry))
        return _page(made) if isinstance(made, str) else JSONResponse(plain(made))

    async def _predict(self, request: Request, entries: list[Entry], several: bool) -> Response:
        if not self.predictor.tasks:
            raise ConfigError("this model was trained for retrieval only and predicts no label.")
        found = await asyncio.gather(*(self.line.ask(entry) for entry in entries))
        said = [{k: v for k, v in one.items() if k != "id"} for one in found]
        if several:
            for one in said:
                one["status"] = _without_paths(one["status"])
            return JSONResponse({"rows": plain(said)})
        if said[0]["status"] not in ("ok", "missing"):
            raise DataError(said[0]["status"])
        return _page(page.answer(said[0])) if _wants_page(request) else JSONResponse(plain(said[0]))

    async def _search(self, request: Request, row: Row, entry: Entry | None) -> Response:
        if self.index is None:
            raise ConfigError("this server has no index. Start it with: motet serve MODEL --index INDEX")
        index, asked = self.index, request.query_params
        top, offset = _number(asked, "top", 10, MOST), _number(asked, "offset", 0, 100 * MOST)
        query = None if entry is None else dict(entry.cells)

        def search() -> Any:
            hits = index.search(
                query,
                like=asked.get("like"),
                top=max(1, top),
                offset=offset,
                modality=asked.get("modality"),
                where=asked.get("where"),
                distinct=asked.get("distinct"),
            )
            if not _wants_page(request):
                return {"hits": [asdict(hit) for hit in hits]}
            texts = [value for value in row.values() if isinstance(value, str) and value.strip()]
            kept = index.thumbnails([hit.id for hit in hits])
            return search_page(" + ".join(texts) or "What you sent", hits, first=offset + 1, thumbnails=kept)

        made = await self.line.ask(search)
        return _page(made) if isinstance(made, str) else JSONResponse(plain(made))

    def _vector(self, entry: Entry | None) -> list[float]:
        assert entry is not None
        return [float(x) for x in self.predictor.encode(dict(entry.cells))]

    def _timeline(self, request: Request, entry: Entry | None) -> Any:
        assert entry is not None
        if self.sentiment is None:
            raise ConfigError("this model was trained for retrieval only and predicts no label.")
        asked = request.query_params
        window, step = _seconds(asked, "window", 6.0), _seconds(asked, "step", 2.0)
        found = self.sentiment.timeline_of(entry, window=window, step=step)
        return page.timeline(found) if _wants_page(request) else found.to_dict()

    # ---- every answer

    def _check_key(self, request: Request) -> None:
        if self.key is not None:
            check_key(request.headers.get("authorization", ""), self.key)

    def _said(self, request: Request, error: MotetError) -> Response:
        """An error as its status and words."""
        status = error.status if isinstance(error, Refused) else 400
        if not isinstance(error, Refused | ConfigError | DataError):
            status = 500
        headers = error.headers if isinstance(error, Refused) else {}
        words = _without_paths(str(error))
        if _wants_page(request):
            return HTMLResponse(page.error(words), status, headers=page.HEADERS | headers)
        return JSONResponse({"error": words}, status, headers=headers)


def _explained(predictor: Predictor, entry: Entry | None, html: bool) -> Any:
    assert entry is not None
    found = Explanation(explain_entry(predictor, entry))
    return found.html() if html else found.to_dict()


async def _unless_gone(request: Request, answer: Awaitable[T]) -> T:
    """The answer; it is given up where the client hangs up before.

    Raises:
        ClientDisconnect: it did.
    """

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, left = asyncio.ensure_future(answer), asyncio.ensure_future(gone())
    try:
        await asyncio.wait((answering, left), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        for task in (answering, left):
            task.cancel()


def _wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def _page(html: str) -> Response:
    return HTMLResponse(html, headers=page.HEADERS)


def _without_paths(words: str) -> str:
    """Names of folders of this machine left out, names of files kept."""
    return _PATH.sub("", words)


def _number(asked: Mapping[str, str], name: str, usual: int, most: int) -> int:
    said = asked.get(name, "")
    if not said:
        return usual
    if not (said.isascii() and said.isdigit()) or int(said) > most:
        raise Refused(400, f"{name}={said[:40]!r}: must be a whole number, at most {most}.")
    return int(said)


def _seconds(asked: Mapping[str, str], name: str, usual: float) -> float:
    said = asked.get(name, "")
    try:
        return float(said) if said else usual
    except ValueError:
        raise Refused(400, f"{name}={said[:40]!r}: must be a number of seconds.") from None
