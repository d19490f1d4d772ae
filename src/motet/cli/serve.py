"""`motet serve`: a model behind HTTP, with a web page."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

KEY = "MOTET_KEY"


def serve(
    model: Annotated[Path, typer.Argument(help="A model folder, as `motet fit` wrote it.")],
    index: Annotated[Path | None, typer.Option(help="An index made with it, to search in.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    max_upload: Annotated[int, typer.Option(min=1, metavar="MB", help="The largest request.")] = 64,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait.")] = 256,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="A request is given up after.")
    ] = 30.0,
) -> None:
    """Serve a model: a web page, and a JSON API (predict, explain, timeline, encode, search).

    Set MOTET_KEY to ask every client for that key.
    """
    from motet.cli.output import say
    from motet.predictor import Predictor
    from motet.serve import Limits
    from motet.serve import serve as run

    key = os.environ.get(KEY) or None
    predictor = Predictor.load(model)
    opened = None
    if index is not None:
        from motet.index import Index

        opened = Index.open(index, predictor)
    if key is None and host not in ("127.0.0.1", "::1", "localhost"):
        say(f"warning: anybody who reaches {host} can use this server; set {KEY} to ask for a key")
    limits = Limits(upload=max_upload << 20, waiting=waiting, answer=timeout)
    ready = f"serving {model} at {{address}} (stop with Ctrl-C)"
    run(predictor, opened, host=host, port=port, key=key, limits=limits, ready=ready)
