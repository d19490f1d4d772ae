"""What a request may not do: be too large, too slow, or come without the key."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from motet.errors import MotetError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """upload: bytes of a request. json: bytes of a body in JSON. arrive: seconds a request may take to
    arrive. waiting: requests that may wait for the model. answer: seconds until one is given up."""

    upload: int = 64 << 20
    json: int = 8 << 20
    arrive: float = 30.0
    waiting: int = 256
    answer: float = 30.0


class Refused(MotetError):
    """A request that is not answered, and the status that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def headers(self) -> dict[str, str]:
        match self.status:
            case 401:
                return {"WWW-Authenticate": 'Basic realm="motet"'}
            case 408 | 413:  # the rest of the body is not read
                return {"Connection": "close"}
            case 429:
                return {"Retry-After": "1"}
            case _:
                return {}


class Bounded:
    """Counts what arrives, and how long it takes; whoever reads the body gets `Refused`."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        until = asyncio.get_running_loop().time() + self.limits.arrive
        arrived, whole = 0, False

        async def bounded() -> Message:
            nonlocal arrived, whole
            if whole:
                return await receive()  # nothing more but that the client has gone
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                raise Refused(
                    408, f"the request took more than {self.limits.arrive:g} seconds to arrive."
                ) from None
            arrived += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if arrived > self.limits.upload:
                raise too_large(self.limits.upload)
            return message

        await self.app(scope, bounded, send)


def too_large(most: int) -> Refused:
    return Refused(413, f"the request is larger than {most / (1 << 20):g} MB, the most that is read.")


def check_key(header: str, key: str) -> None:
    """`Authorization: Bearer KEY`, or the password that a browser asks for.

    Raises:
        Refused: 401.
    """
    scheme, _, said = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            said = base64.b64decode(said, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            said = ""
    if scheme.lower() not in ("basic", "bearer") or not hmac.compare_digest(said.encode(), key.encode()):
        raise Refused(401, "this server asks for its key: `Authorization: Bearer KEY`.")


def protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's, but a client that has not sent the head of a request within `seconds` is cut off."""

    class Patient(H11Protocol):
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._unwatch()

        def _watch(self) -> None:
            if self.cycle is not None and not self.cycle.response_complete:  # a whole head has come
                self._unwatch()
            elif self.late is None:
                self.late = self.loop.call_later(seconds, self._cut_off)

        def _unwatch(self) -> None:
            if self.late is not None:
                self.late.cancel()
                self.late = None

        def _cut_off(self) -> None:
            self.late = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Patient
