"""A served model under many clients, too many, and slow ones.

    python benchmarks/serve.py MODEL [--text "what each request asks"] [--seconds 60] [--out FOLDER]

MODEL: a folder that `motet fit` wrote, with a text modality and a label. `clients`: 100 at once, 20 requests
each, against the same requests one by one. `overload`: three times as many requests a second as were just
answered, for a minute. `slow`: 500 clients that send a byte a second, beside one that asks as before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import report

HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"


async def ask(port: int, text: str) -> tuple[int, float, Any]:
    """Status, seconds, answer of one request on a connection of its own; status 0 if there was none."""
    begin = time.perf_counter()
    body = json.dumps({"text": text}).encode()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        said = await reader.read()
        writer.close()
    except OSError:
        return 0, time.perf_counter() - begin, None
    took = time.perf_counter() - begin
    if not said:
        return 0, took, None
    head, _, content = said.partition(b"\r\n\r\n")
    return int(head.split()[1]), took, json.loads(content)


async def clients(port: int, text: str) -> dict[str, Any]:
    texts = [f"{text} {i}" for i in range(20)]
    alone, begin = [], time.perf_counter()
    for one in texts:
        alone.append(await ask(port, one))
    serial = len(texts) / (time.perf_counter() - begin)

    async def client() -> list[tuple[int, float, Any]]:
        return [await ask(port, one) for one in texts]

    begin = time.perf_counter()
    found = await asyncio.gather(*(client() for _ in range(100)))
    seconds = time.perf_counter() - begin
    apart = max(
        abs(a[2]["scores"][c] - b[2]["scores"][c])
        for one in found
        for a, b in zip(one, alone, strict=True)
        if a[0] == 200
        for c in b[2]["scores"]
    )
    return {
        "failures": sum(status != 200 for one in found for status, *_ in one),
        "largest_difference": apart,
        "one_by_one_a_second": round(serial, 1),
        "a_second": round(2000 / seconds, 1),
    }


async def overload(port: int, text: str, rate: float, seconds: float, pid: int) -> dict[str, Any]:
    """`rate` requests a second, whatever becomes of them."""
    tasks, begin, before = [], time.perf_counter(), memory(pid)
    while (now := time.perf_counter() - begin) < seconds:
        due = math.floor(now * rate) - len(tasks)
        tasks += [asyncio.create_task(ask(port, text)) for _ in range(due)]
        await asyncio.sleep(0.005)
    found = await asyncio.gather(*tasks)
    refused = [took for status, took, _ in found if status == 429]
    return {
        "asked_a_second": round(rate, 1),
        "statuses": {str(s): sum(status == s for status, *_ in found) for s in {f[0] for f in found}},
        "refused_after_ms": _spread(refused),
        "answered_after_ms": _spread([took for status, took, _ in found if status == 200]),
        "memory_mb": [before, memory(pid)],
    }


async def slow(port: int, text: str) -> dict[str, Any]:
    async def dawdle() -> float:
        begin = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{HEAD}Content-Length: 1000\r\n\r\n".encode())
        answered = asyncio.create_task(reader.read())
        while not answered.done() and not writer.is_closing():
            writer.write(b" ")
            await asyncio.wait({answered}, timeout=1)
        answered.exception()  # cut off, which is what is waited for
        writer.close()
        return time.perf_counter() - begin

    before = [(await ask(port, text))[1] for _ in range(100)]
    crowd = [asyncio.create_task(dawdle()) for _ in range(500)]
    await asyncio.sleep(2)
    beside = []
    while not all(task.done() for task in crowd) and len(beside) < 300:
        beside.append((await ask(port, text))[1])
    cut = await asyncio.gather(*crowd)
    return {
        "without_ms": _spread(before),
        "beside_ms": _spread(beside),
        "cut_off_after_s": [round(min(cut), 1), round(max(cut), 1)],
    }


def _spread(seconds: list[float]) -> dict[str, float] | None:
    if not seconds:
        return None
    return {f"p{q}": round(1e3 * float(np.percentile(seconds, q)), 1) for q in (50, 99)}


def memory(pid: int) -> int:
    """Megabytes of a process now."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


async def measure(port: int, pid: int, text: str, seconds: float) -> dict[str, Any]:
    for _ in range(20):
        await ask(port, text)
    found: dict[str, Any] = {"clients": await clients(port, text)}
    rate = 3 * found["clients"]["a_second"]
    found["overload"] = await overload(port, text, rate, seconds, pid)
    return found | {"slow": await slow(port, text)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", default="what a day")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out")
    given = parser.parse_args()
    command = [sys.executable, "-m", "motet", "serve", str(given.model), "--port", "0"]
    env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=env)
    assert server.stderr is not None
    try:
        line = ""
        while "http://" not in line:
            line = server.stderr.readline()
            if not line:
                raise SystemExit("the server did not start")
        port = int(line.split("http://")[1].split("/")[0].rpartition(":")[2])
        found = asyncio.run(measure(port, server.pid, given.text, given.seconds))
    finally:
        server.terminate()
        exit_code = server.wait(60)
    report("serve", "cpu", found | {"exit": exit_code}, given.out)


if __name__ == "__main__":
    main()
