"""Arrays, texts and numbers out of a `.pkl` file, without unpickling it.

A pickle is a program. This reads its instructions one by one and carries out those that build lists,
dicts, tuples, texts, numbers and numpy arrays; any other instruction, and any name but numpy's own
makers of arrays, is refused where it stands. Nothing is imported or called.
"""

from __future__ import annotations

import math
import pickletools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from motet.errors import DataError

MAX_LINE = 1 << 16  # bytes of an instruction that is a line of text
_MAKERS = {
    f"{package}.{name}": name
    for package in (
        "numpy.core.multiarray",
        "numpy._core.multiarray",
        "numpy.core.numeric",
        "numpy._core.numeric",
    )
    for name in ("_reconstruct", "scalar", "_frombuffer")
}
_NAMES = {
    **_MAKERS,
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",  # bytes, as protocols up to 2 write them
    "builtins.bytes": "bytes",
    "__builtin__.bytes": "bytes",
}
_DTYPE = re.compile(r"(?:[fiu][1248]|b1|[SU]\d{1,6}|O8?|f16)")
_IGNORED = ("PROTO", "FRAME")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "FLOAT", "BINFLOAT", "UNICODE"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}


@dataclass(eq=False)
class _Name:
    """One of numpy's makers, by its short name."""

    name: str


@dataclass(eq=False)
class _Unbuilt:
    """An array or dtype before its BUILD; `code` is the dtype's, `keys` where it is remembered."""

    what: str
    code: str = ""
    keys: list[int] = field(default_factory=list)


class _Mark:
    pass


def read_pickled(path: Path) -> Any:
    """What the file holds: dicts, lists, tuples, texts, bytes, numbers and arrays.

    Arrays of objects become lists. Arrays are views of the file's own bytes: read-only.

    Raises:
        DataError: anything else is in it, naming it; damaged or cut off.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, path.stat().st_size).run(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from None


class _Bounded:
    """A file that never allocates more than it holds, whatever lengths stand in it."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size

    def read(self, n: int) -> bytes:
        data = self.file.read(min(n, self.left))
        self.left -= len(data)
        return data

    def readline(self) -> bytes:
        line = self.file.readline(min(MAX_LINE, self.left))
        self.left -= len(line)
        return line

    def tell(self) -> int:
        return self.file.tell()


class _Reader:
    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.at = 0

    def run(self, file: IO[bytes]) -> Any:
        try:
            source: Any = _Bounded(file, self.size)  # all that genops uses of a file
            for opcode, argument, position in pickletools.genops(source):
                self.at = position or 0
                if opcode.name == "STOP":
                    return self._finished()
                self._step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError) as error:
            raise self._damaged(str(error).splitlines()[0][:200] if str(error) else "cut off?") from None
        raise self._damaged("it has no end")

    def _finished(self) -> Any:
        value = self.stack.pop()
        if self.stack or isinstance(value, _Name | _Unbuilt | _Mark):
            raise ValueError("more or less than one value")
        return value

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self.stack.append(bytes(argument) if isinstance(argument, bytearray) else argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _IGNORED or self._memory(name, argument) or self._container(name):
            pass
        elif not self._maker(name, argument):
            raise self._refused(f"the instruction {name}")

    def _memory(self, name: str, argument: Any) -> bool:
        """Whether the instruction was one of these; so with the next two."""
        match name:
            case "MEMOIZE" | "PUT" | "BINPUT" | "LONG_BINPUT":
                key = len(self.memo) if name == "MEMOIZE" else int(argument)
                self.memo[key] = value = self.stack[-1]
                if isinstance(value, _Unbuilt):
                    value.keys.append(key)
            case "GET" | "BINGET" | "LONG_BINGET":
                self.stack.append(self.memo[int(argument)])
            case "MARK":
                self.stack.append(_Mark())
            case "POP":
                self.stack.pop()
            case "POP_MARK":
                self._since_mark()
            case _:
                return False
        return True

    def _container(self, name: str) -> bool:
        match name:
            case "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_TUPLE":
                self.stack.append({"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}[name]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.stack.append(tuple([self._pop() for _ in range(int(name[-1]))][::-1]))
            case "LIST" | "TUPLE" | "DICT":
                values = self._since_mark()
                self.stack.append(
                    {"LIST": list, "TUPLE": tuple}[name](values) if name != "DICT" else _pairs(values)
                )
            case "APPEND" | "APPENDS" | "SETITEM" | "SETITEMS":
                self._fill(name)
            case _:
                return False
        return True

    def _maker(self, name: str, argument: Any) -> bool:
        match name:
            case "GLOBAL":
                self.stack.append(self._named(str(argument).replace(" ", ".", 1)))
            case "STACK_GLOBAL":
                last, first = self._pop(), self._pop()
                self.stack.append(self._named(f"{_text(first)}.{_text(last)}"))
            case "REDUCE":
                arguments, maker = self._pop(), self._pop()
                self.stack.append(self._made(maker, arguments))
            case "BUILD":
                self._build(self._pop())
            case _:
                return False
        return True

    def _pop(self) -> Any:
        value = self.stack.pop()
        if isinstance(value, _Mark):
            raise ValueError("a mark where a value should be")
        return value

    def _since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if isinstance(self.stack[place], _Mark):
                values = self.stack[place + 1 :]
                del self.stack[place:]
                return values
        raise ValueError("no mark where one should be")

    def _fill(self, name: str) -> None:
        single = {"APPEND": 1, "SETITEM": 2}.get(name)
        values = self._since_mark() if single is None else [self._pop() for _ in range(single)][::-1]
        target = self.stack[-1]
        if name.startswith("APPEND") and isinstance(target, list):
            target.extend(values)
        elif name.startswith("SETITEM") and isinstance(target, dict):
            target.update(_pairs(values))
        else:
            raise ValueError(f"{name} on what is no {'list' if name.startswith('APPEND') else 'dict'}")

    def _named(self, name: str) -> _Name:
        if name not in _NAMES:
            raise self._refused(name)
        return _Name(_NAMES[name])

    def _made(self, maker: Any, arguments: Any) -> Any:
        """What numpy's makers give, for the arguments that numpy itself writes."""
        match (maker.name if isinstance(maker, _Name) else None), arguments:
            case "_reconstruct", (_Name("ndarray"), (0,), b"b" | "b"):
                return _Unbuilt("array")
            case "dtype", (str() as code, *_) if _DTYPE.fullmatch(code):
                return _Unbuilt("dtype", code)
            case "scalar", (np.dtype() as dtype, bytes() | str() as raw) if not dtype.hasobject:
                return _array(dtype, (), _bytes(raw)).item()
            case "_frombuffer", (bytes() as raw, np.dtype() as dtype, tuple() as shape, "C" | "F" as order):
                return _array(dtype, shape, raw, fortran=order == "F")
            case "encode", (str() as text, "latin1" | "latin-1"):
                return text.encode("latin-1")
            case "bytes", ():
                return b""
        raise self._refused(f"a call of {maker.name if isinstance(maker, _Name) else 'what is no maker'}")

    def _build(self, state: Any) -> None:
        """Give an array or dtype its content; whoever remembered it remembers the finished one."""
        unbuilt = self._pop()
        finished: Any
        match unbuilt, state:
            case _Unbuilt(what="dtype"), (_, "<" | ">" | "|" | "=" as order, None, None, None, *_):
                finished = np.dtype(unbuilt.code).newbyteorder(order)
            case _Unbuilt(what="array"), (_, tuple() as shape, np.dtype() as dtype, fortran, content):
                finished = (
                    _objects(shape, content)
                    if dtype.hasobject
                    else _array(dtype, shape, _bytes(content), fortran=bool(fortran))
                )
            case _:
                raise self._refused("a state for what is no array")
        self.stack.append(finished)
        for key in unbuilt.keys:
            self.memo[key] = finished

    def _refused(self, what: str) -> DataError:
        return DataError(
            f"{self.path}, byte {self.at}: holds {what[:200]}, and only arrays, texts and numbers are read "
            "from a pickle, because other content can run code. Save the arrays as .npz with what wrote "
            "this file.",
            rule="pickled code",
        )

    def _damaged(self, why: str) -> DataError:
        return DataError(f"{self.path}, byte {self.at}: not a whole pickle of arrays: {why}.", rule="damaged")


def _pairs(values: list[Any]) -> dict[Any, Any]:
    keys = values[::2]
    if len(values) % 2 or not all(isinstance(key, str | int | float | bytes) for key in keys):
        raise ValueError("keys must be texts or numbers, and have values")
    return dict(zip(keys, values[1::2], strict=True))


def _array(dtype: np.dtype[Any], shape: Any, raw: bytes, *, fortran: bool = False) -> np.ndarray:
    if dtype.hasobject or not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 8:
        raise ValueError("an array of impossible shape or kind")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and kind {dtype} with {len(raw)} bytes")
    if not raw:
        return np.zeros(shape, dtype)
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")


def _objects(shape: Any, content: Any) -> list[Any]:
    if len(shape) != 1 or not isinstance(content, list) or len(content) != shape[0]:
        raise ValueError("an array of objects that is no plain list")
    return content


def _bytes(raw: Any) -> bytes:
    made = raw.encode("latin-1") if isinstance(raw, str) else raw
    if not isinstance(made, bytes):
        raise ValueError("content that is no bytes")
    return made


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a name that is no text")
    return value
