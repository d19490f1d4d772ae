"""A server in a process of its own, and requests to it with nothing but the standard library."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CODE = """
import sys, json, time
from motet.predictor import Predictor
from motet.index import Index
from motet.serve import Limits, serve
given = json.loads(sys.argv[1])
predictor = Predictor.load(given["model"], device="cpu")
index = Index.open(given["index"], predictor) if given["index"] else None
predict = predictor.predict_entries
if given["pause"]:
    def slow(entries):
        time.sleep(given["pause"])
        return predict(entries)
    predictor.predict_entries = slow
serve(predictor, index, port=0, key=given["key"], limits=Limits(**given["limits"]), ready="at {address}")
"""


@dataclass
class Server:
    process: subprocess.Popen[str]
    port: int

    def ask(
        self,
        path: str,
        body: bytes | Iterator[bytes] | None = None,
        kind: str = "application/json",
        *,
        method: str = "POST",
        timeout: float = 30,
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            sent = {"Content-Type": kind} if body is not None else {}
            sent |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
        finally:
            connection.close()

    def json(self, path: str, value: Any, **headers: str) -> tuple[int, Any]:
        status, _, body = self.ask(path, json.dumps(value).encode(), **headers)
        return status, json.loads(body)

    def form(self, path: str, parts: dict[str, str | Path], **headers: str) -> tuple[int, bytes]:
        status, _, body = self.ask(path, form(parts), "multipart/form-data; boundary=xyz", **headers)
        return status, body


def form(parts: dict[str, str | Path]) -> bytes:
    out = b""
    for name, value in parts.items():
        file = f'; filename="{value.name}"' if isinstance(value, Path) else ""
        content = value.read_bytes() if isinstance(value, Path) else value.encode()
        out += f'--xyz\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
        out += content + b"\r\n"
    return out + b"--xyz--\r\n"


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{key}".encode()).decode()


@contextmanager
def serving(
    model: Path, index: Path | None = None, *, key: str | None = None, pause: float = 0.0, **limits: Any
) -> Iterator[Server]:
    """pause: seconds that every turn of the model takes longer."""
    given = {"model": str(model), "index": index and str(index), "key": key, "pause": pause, "limits": limits}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(given)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
    )
    try:
        assert process.stderr is not None
        said = ""
        while not said.startswith("at http"):
            said = process.stderr.readline()
            assert said, "the server ended before it served"
        yield Server(process, urlsplit(said.split()[1]).port or 0)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        finally:
            process.kill()
            process.stderr.close()
