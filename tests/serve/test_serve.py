"""What a served model answers, to programs and to browsers."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import motet
from motet.predictor import Predictor
from tests.serve.serving import Server, basic, form, serving
from tests.test_predictor import SMALL, write_table

pytest.importorskip("starlette", reason="needs the extra 'serve'")


MANY_PARTS = form({f"p{i}": "x" for i in range(10_000)})


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def model(table: Path) -> Predictor:
    out = table.parent / "run"
    return motet.fit(
        table, label="mood", retrieval=True, out=out, settings=SMALL, preset="scratch", device="cpu"
    )


@pytest.fixture(scope="module")
def server(model: Predictor, table: Path) -> Iterator[Server]:
    path = table.parent / "colours.index"
    index = motet.Index.create(path, model, store="exact")
    index.add(table)
    index.flush()
    with serving(model.folder, path, upload=2 << 20) as found:
        yield found


def test_it_says_what_the_model_says(server: Server, model: Predictor, table: Path) -> None:
    folder = table.parent
    status, said = server.json("/predict", {"text": "a red thing"})
    expected = model.predict({"text": "a red thing"})
    assert status == 200 and said["label"] == expected["label"] and said["modalities"] == ["text"]
    assert said["scores"] == pytest.approx(expected["scores"], abs=1e-6)
    parts = {"text": "a blue thing", "picture": folder / "2.png", "sound": folder / "2.wav"}
    status, body = server.form("/predict", parts)
    expected = model.predict(parts)
    assert status == 200 and json.loads(body)["modalities"] == ["text", "picture", "sound"]
    assert json.loads(body)["scores"] == pytest.approx(expected["scores"], abs=1e-6)


def test_a_file_without_a_name_of_its_own_goes_where_its_content_belongs(
    server: Server, table: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "noending"
    odd.write_bytes((table.parent / "1.png").read_bytes())
    status, body = server.form("/predict", {"file": odd})
    assert status == 200 and json.loads(body)["modalities"] == ["picture"]


def test_several_rows_are_answered_one_by_one(server: Server) -> None:
    status, said = server.json("/predict", {"rows": [{"text": "red"}, {"text": " "}, {"text": "blue"}]})
    assert status == 200 and [row["status"] for row in said["rows"]] == ["ok", "missing", "ok"]
    assert said["rows"][1]["label"] is None
    assert server.json("/predict", {"rows": [{"text": "x"}] * 65})[0] == 400


def test_it_encodes_and_finds(server: Server, model: Predictor, table: Path) -> None:
    status, said = server.json("/encode", {"text": "a green thing"})
    assert status == 200
    assert said["vector"] == pytest.approx(model.encode("a green thing").tolist(), abs=1e-5)
    status, said = server.json("/search?top=3&where=mood+%3D+%27warm%27", {"text": "a red thing"})
    assert status == 200 and len(said["hits"]) == 3
    assert {hit["fields"]["mood"] for hit in said["hits"]} == {"warm"}
    status, body = server.form("/search?top=1&modality=picture", {"picture": table.parent / "4.png"})
    assert json.loads(body)["hits"][0]["id"] == "r4"
    status, _, body = server.ask("/search?like=r4&top=2", b"")
    assert status == 200 and "r4" not in [hit["id"] for hit in json.loads(body)["hits"]]


def test_it_explains_and_follows_time(server: Server, table: Path) -> None:
    parts = {"text": "a red thing", "sound": table.parent / "0.wav"}
    status, body = server.form("/explain", parts)
    assert status == 200 and json.loads(body)["said"]
    status, body = server.form("/timeline?window=0.1&step=0.1", {"sound": table.parent / "0.wav"})
    points = json.loads(body)["points"]
    assert status == 200 and len(points) >= 2 and points[0]["start"] == 0


def test_what_it_is(server: Server, model: Predictor) -> None:
    status, _, body = server.ask("/model", method="GET")
    said = json.loads(body)
    assert status == 200 and said["modalities"] == {"text": "text", "picture": "image", "sound": "audio"}
    assert said["tasks"][0]["name"] == "mood" and said["index"] == {"rows": 36}


def test_a_browser_gets_pages(server: Server, table: Path) -> None:
    home = server.ask("/", method="GET")
    for there in (b'name="text"', b'name="picture"', b'formaction="search"', b"default-src 'none'"):
        assert there in home[2]
    assert "frame-ancestors" in home[1]["content-security-policy"]
    parts = {"text": "a red thing", "picture": table.parent / "0.png"}
    for path in ("/predict", "/explain", "/search"):
        status, body = server.form(path, parts, Accept="text/html,*/*")
        assert status == 200 and body.startswith(b"<!doctype html>"), path
    status, body = server.form("/timeline", {"sound": table.parent / "0.wav"}, Accept="text/html")
    assert status == 200 and b"<svg" in body
    status, body = server.form("/predict", {"picture": table}, Accept="text/html")
    assert status == 400 and b"did not work" in body


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "why"),
    [
        ("/predict", b"{oops", "application/json", 400, "not JSON"),
        ("/predict", b"[" * 100_000, "application/json", 400, ""),
        ("/predict", b"[1]", "application/json", 400, "object of modalities"),
        ("/predict", b'{"text": 3}', "application/json", 400, "must be a text"),
        ("/predict", b'{"colour": "red"}', "application/json", 400, "cannot stand there"),
        ("/predict", b'{"picture": "/etc/hostname"}', "application/json", 400, "multipart"),
        ("/predict", b'{"sound": "../../etc/hostname"}', "application/json", 400, "multipart"),
        ("/predict", b"<a/>", "text/xml", 415, "text/xml"),
        ("/predict", b"no parts at all", "multipart/form-data; boundary=xyz", 400, "form"),
        ("/predict", b"--xyz\r\nbroken", "multipart/form-data", 400, "form"),
        (
            "/predict",
            form({f"p{i}": "x" for i in range(10_000)}),
            "multipart/form-data; boundary=xyz",
            400,
            "",
        ),
        ("/search?top=many", b'{"text": "x"}', "application/json", 400, "top"),
        ("/search?where=price+%3C", b'{"text": "x"}', "application/json", 400, ""),
        ("/search?where=1%3D1%3B+DROP+TABLE+rows", b'{"text": "x"}', "application/json", 400, ""),
        ("/timeline?window=-1", b'{"text": "x"}', "application/json", 400, ""),
        ("/timeline?window=nan", b'{"text": "x"}', "application/json", 400, ""),
        ("/encode", b"{}", "application/json", 400, "nothing"),
        ("/explain", b"{}", "application/json", 400, "nothing"),
    ],
)
def test_bad_requests_are_told_why(
    server: Server, path: str, body: bytes, kind: str, status: int, why: str
) -> None:
    begin = time.monotonic()
    got, _, said = server.ask(path, body, kind)
    assert got == status and why in json.loads(said)["error"]
    assert time.monotonic() - begin < 5
    assert server.ask("/health", method="GET")[0] == 200


def test_a_broken_file_is_named_without_the_folders_of_the_server(server: Server, tmp_path: Path) -> None:
    broken = tmp_path / "cat.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    status, body = server.form("/predict", {"picture": broken, "text": "a red thing"})
    said = json.loads(body)["error"]
    assert status == 400 and "picture" in said and "/" not in said.replace("and/or", "")


def test_what_is_too_large_is_cut_off_whatever_it_says_of_itself(server: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--xyz\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'
        for _ in range(400):
            sent += 1 << 18
            yield b"x" * (1 << 18)

    try:
        status = server.ask("/predict", endless(), "multipart/form-data; boundary=xyz")[0]
    except (BrokenPipeError, ConnectionResetError):  # cut off while still sending
        status = 413
    assert status == 413 and sent < 100 << 20
    assert server.ask("/predict", b"x", Content_Length=str(1 << 40))[0] == 413
    assert server.ask("/health", method="GET")[0] == 200


def test_many_clients_get_what_one_gets(server: Server) -> None:
    texts = [f"a {colour} thing number {i}" for i in range(20) for colour in ("red", "green", "blue")]
    alone = [server.json("/predict", {"text": text}) for text in texts]

    def client(_: int) -> list[tuple[int, dict[str, object]]]:
        return [server.json("/predict", {"text": text}) for text in texts[:20]]

    with ThreadPoolExecutor(30) as pool:
        for found in pool.map(client, range(30)):
            for (status, said), (_, expected) in zip(found, alone[:20], strict=True):
                assert status == 200 and said["scores"] == pytest.approx(expected["scores"], abs=1e-5)


def test_the_key_is_asked_for_everywhere_but_for_health(model: Predictor) -> None:
    with serving(model.folder, key="sesame") as server:
        assert server.ask("/health", method="GET")[0] == 200
        for path, method in (("/", "GET"), ("/model", "GET"), ("/predict", "POST"), ("/search", "POST")):
            for said in ("", "Bearer wrong", basic("wrong"), "Basic !", "Bearer "):
                status, headers, _ = server.ask(path, b"{}", method=method, Authorization=said)
                assert status == 401 and "Basic" in headers["www-authenticate"], (path, said)
        for said in ("Bearer sesame", basic("sesame")):
            assert server.ask("/model", method="GET", Authorization=said)[0] == 200


def test_more_than_can_wait_are_told_at_once_to_come_again(model: Predictor) -> None:
    with serving(model.folder, pause=0.3, waiting=4) as server, ThreadPoolExecutor(40) as pool:

        def client(_: int) -> tuple[int, dict[str, str], float]:
            begin = time.monotonic()
            status, headers, _ = server.ask("/predict", b'{"text": "red"}')
            return status, headers, time.monotonic() - begin

        found = list(pool.map(client, range(40)))
        refused = [one for one in found if one[0] == 429]
        assert {status for status, *_ in found} == {200, 429} and len(refused) >= 20
        assert all("retry-after" in headers for _, headers, _ in refused)
        assert sorted(took for *_, took in refused)[len(refused) // 2] < 0.25  # none waited its turn


def test_who_waits_too_long_or_hangs_up_leaves_the_line(model: Predictor) -> None:
    with serving(model.folder, pause=2.0, waiting=1, answer=1.0) as server, ThreadPoolExecutor(4) as pool:
        first = pool.submit(server.ask, "/predict", b'{"text": "red"}')
        time.sleep(0.4)
        with pytest.raises(TimeoutError):  # the one who waits hangs up
            server.ask("/predict", b'{"text": "red"}', timeout=0.2)
        time.sleep(0.3)
        third = server.ask("/predict", b'{"text": "red"}')  # and has made room
        assert third[0] == 504 and first.result()[0] == 504


def test_slow_clients_are_cut_off_and_hurt_nobody(model: Predictor) -> None:
    import socket

    with serving(model.folder, arrive=1.0) as server:
        begin = time.monotonic()
        head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
        body = head + b"Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
        slow = []
        for i in range(60):
            slow.append(socket.create_connection(("127.0.0.1", server.port), timeout=15))
            slow[-1].sendall((b"", head, body)[i % 3])
        assert server.json("/predict", {"text": "red"})[0] == 200
        last = [one.recv(4096) for one in slow]  # returns when the server has cut the connection
        assert time.monotonic() - begin < 10
        assert all(not said for said in last[0::3] + last[1::3])
        assert all(b" 408 " in said for said in last[2::3])
        for one in slow:
            one.close()


def test_it_answers_whom_it_has_let_in_before_it_ends(model: Predictor) -> None:
    with serving(model.folder, pause=1.0) as server, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.ask, "/predict", b'{"text": "red"}')
        time.sleep(0.4)
        server.process.send_signal(signal.SIGTERM)
        assert asked.result()[0] == 200
        assert server.process.wait(20) == 0


def test_it_stands_beside_other_applications(model: Predictor) -> None:
    """Mounted under a path, where nobody tells it that the server starts."""
    import asyncio

    from starlette.applications import Starlette
    from starlette.routing import Mount

    from motet.serve import make_app

    async def ask(path: str, body: bytes) -> tuple[int, bytes]:
        app = Starlette(routes=[Mount("/feel", make_app(model))])
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
        }
        scope |= {
            "headers": [(b"content-type", b"application/json")],
            "http_version": "1.1",
            "scheme": "http",
        }
        sent: list[dict[str, object]] = []
        asked = iter([{"type": "http.request", "body": body}])

        async def receive() -> dict[str, object]:
            if (message := next(asked, None)) is None:
                await asyncio.Event().wait()  # the client stays
            return message or {}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return int(str(sent[0]["status"])), bytes(sent[1]["body"])  # type: ignore[call-overload]

    status, body = asyncio.run(ask("/feel/predict", b'{"text": "a red thing"}'))
    assert status == 200 and json.loads(body)["label"] == model.predict({"text": "a red thing"})["label"]
