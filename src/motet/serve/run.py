"""The server process: binds, serves, and on SIGTERM answers whom it has let in before it ends."""

from __future__ import annotations

import signal
import socket
import sys

import uvicorn

from motet.data.cache import FeatureCache
from motet.errors import ConfigError
from motet.index import Index
from motet.predictor import Predictor
from motet.serve.app import make_app
from motet.serve.limits import Limits, protocol

DRAIN = 30  # seconds


def serve(
    predictor: Predictor,
    index: Index | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    limits: Limits | None = None,
    ready: str = "",
) -> None:
    """Serve until SIGTERM or SIGINT. Nothing that is sent is kept: the predictor's cache is turned off.

    port: 0 for any that is free. ready: printed on stderr when requests are taken, with {address} filled in.

    Raises:
        ConfigError: the address cannot be used.
    """
    limits = limits or Limits()
    sys.setswitchinterval(5e-4)  # who only waits to be refused must not wait for the model's thread
    predictor.cache = FeatureCache(None)
    listening = _bind(host, port)
    config = uvicorn.Config(
        make_app(predictor, index, key=key, limits=limits),
        http=protocol(limits.arrive),
        ws="none",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=DRAIN,
        backlog=2048,
    )
    _announce(ready, host, listening.getsockname()[1])
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:  # uvicorn raises it again, for whoever was here before, after it has drained
            signal.signal(number, lambda *_: None)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listening.close()


def _bind(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"{host}:{port} cannot be served: {error}. Choose another --port or --host."
        ) from None


def _announce(ready: str, host: str, port: int) -> None:
    if ready:
        shown = f"[{host}]" if ":" in host else host
        print(ready.format(address=f"http://{shown}:{port}/"), file=sys.stderr, flush=True)
