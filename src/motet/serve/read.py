"""What a request holds: texts, uploaded files and numbers, never the name of a file of this machine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from motet.data.columns import modality_name
from motet.data.processor import Processor
from motet.errors import ConfigError
from motet.predictor import Entry
from motet.predictor.batches import BATCH
from motet.predictor.inputs import entry_of
from motet.serve.limits import Limits, Refused, too_large

FILES, FIELDS = 32, 64  # parts of a form
TEXT = 1 << 20  # bytes of a part that is no file
ANY = "file"  # the name of a part whose modality its content says

Row = Mapping[str, Any]


@asynccontextmanager
async def rows_in(request: Request, limits: Limits) -> AsyncIterator[tuple[list[Row], bool]]:
    """The rows of a request, and whether they were a list: column or modality -> text, Path or numbers.

    Uploaded files stand in a folder that is gone afterwards.

    Raises:
        Refused: 400, 408, 413 or 415: not a body that can be read.
    """
    said = request.headers.get("content-length", "0")
    if said.isdigit() and int(said) > limits.upload:
        raise too_large(limits.upload)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    with TemporaryDirectory(prefix="motet-") as folder:
        match kind:
            case "application/json":
                yield _rows_of(await _json(request, limits.json))
            case "multipart/form-data" | "application/x-www-form-urlencoded":
                yield [await _form(request, Path(folder))], False
            case "":
                yield [{}], False
            case _:
                raise Refused(415, f"a body of {kind!r} is not read. Send JSON or multipart/form-data.")


def entry_in(row: Row, processors: Mapping[str, Processor]) -> Entry:
    """A row as the model sees it.

    Raises:
        ConfigError: no modality for a part, or a text where a file belongs.
        DataError: a file that cannot be used.
    """
    for name, value in row.items():
        if isinstance(value, str) and value.strip():
            _check_text(name, processors)
    whole = dict(row)
    file = whole.pop(ANY, None)
    entry = entry_of({k: v for k, v in whole.items() if v is not None}, processors, where="the request")
    if file is None:
        return entry
    return replace(entry, cells={**entry_of(file, processors).cells, **entry.cells})


def _check_text(name: str, processors: Mapping[str, Processor]) -> None:
    """A text must be meant for words: anywhere else it would be taken for the path of a file here."""
    kin = [p for p in processors.values() if p.kind == name]
    takes = processors.get(modality_name(name)) or (kin[0] if len(kin) == 1 else None)
    if takes is None or takes.kind != "text":
        has = ", ".join(f"{m} ({p.kind})" for m, p in processors.items())
        raise ConfigError(
            f"{name!r}: a text cannot stand there. This model has {has}; files are sent as "
            "multipart/form-data, numbers as lists in JSON."
        )


def _rows_of(body: Any) -> tuple[list[Row], bool]:
    rows = body.get("rows") if isinstance(body, dict) and set(body) == {"rows"} else [body]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Refused(400, 'the JSON must be an object of modalities, or {"rows": [such objects]}.')
    if len(rows) > BATCH:
        raise Refused(400, f"{len(rows)} rows; at most {BATCH} a request.")
    for row in rows:
        wrong = [k for k, v in row.items() if not isinstance(v, str | list | None)]
        if wrong:
            raise Refused(400, f"{wrong[0]!r}: must be a text, a list of numbers, or null.")
    return rows, isinstance(body, dict) and set(body) == {"rows"}


async def _json(request: Request, most: int) -> Any:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large(most)
    try:
        return json.loads(body or b"{}")
    except RecursionError:
        raise Refused(400, "the JSON is nested too deeply.") from None
    except ValueError as error:
        raise Refused(400, f"the body is not JSON: {error}.") from None


async def _form(request: Request, folder: Path) -> Row:
    row: dict[str, Any] = {}
    parser = request.form(max_files=FILES, max_fields=FIELDS, max_part_size=TEXT)
    try:
        async with parser as form:
            for i, (name, value) in enumerate(form.multi_items()):
                if name in row:
                    raise Refused(400, f"{name!r} is given twice.")
                if not isinstance(value, UploadFile):
                    row[name] = value
                elif value.filename or value.size:  # a browser sends an empty part for no file
                    path = folder / f"upload{i}{_ending(value.filename or '')}"
                    await run_in_threadpool(_keep, value, path)
                    row[name] = path
    except HTTPException as error:
        raise Refused(400, f"the form cannot be read: {error.detail}") from None
    except FormParserError as error:
        raise Refused(400, f"the form cannot be read: {error}") from None
    return row


def _keep(upload: UploadFile, path: Path) -> None:
    with path.open("wb") as file:
        while chunk := upload.file.read(1 << 20):
            file.write(chunk)


def _ending(name: str) -> str:
    """Of a file's name, as far as it is harmless; the content decides where it can."""
    ending = Path(name).suffix
    return ending if ending[1:].isalnum() and len(ending) <= 9 and ending.isascii() else ""
