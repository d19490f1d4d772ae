"""Pickles of arrays are read without unpickling; whatever else stands in one is refused by name."""

import contextlib
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest

from motet.data import pickled
from motet.data.pickled import read_pickled
from motet.errors import DataError

CONTENT = {
    "train": {
        "text": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
        "swapped": np.arange(6, dtype=">f8").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "raw_text": ["good", "schön 😀"],
        "id": np.array(["a$_$1", "b$_$2"]),
        "objects": np.array(["x", None, 3], dtype=object),
        "labels": [np.float32(0.5), np.int64(-2), 3, 2**80, True, None, 1.5],
        "empty": np.zeros((0, 5), np.float32),
        "bytes": b"\x00\xff",
        ("flag" if os.name else ""): (np.bool_(True), (), (1, 2, 3, 4)),
    },
}


def equal(a, b):
    if isinstance(b, np.ndarray) and b.dtype == object:
        return a == b.tolist()
    if isinstance(b, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and (a == b).all()
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in b)
    if isinstance(b, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("protocol", range(6))
def test_it_gives_what_unpickling_gives(tmp_path, protocol):
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(CONTENT, protocol))
    assert equal(read_pickled(path), CONTENT)


def test_an_array_that_stands_in_two_places_is_read_once(tmp_path):
    path, shared = tmp_path / "data.pkl", np.arange(5.0)
    path.write_bytes(pickle.dumps([shared, {"again": shared}]))
    first, second = read_pickled(path)
    assert first is second["again"]


def test_names_of_older_numpy_and_python_2_are_known(tmp_path):
    path = tmp_path / "data.pkl"
    raw = pickle.dumps(np.arange(3.0), 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    path.write_bytes(raw)
    assert read_pickled(path).tolist() == [0, 1, 2]
    path.write_bytes(b"\x80\x02U\x03abcq\x00.")  # SHORT_BINSTRING
    assert read_pickled(path) == "abc"


class Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


HOSTILE = {
    "posix.system|nt.system": pickle.dumps(Evil(os.system, "touch was_here")),
    "subprocess.Popen": pickle.dumps({"train": Evil(subprocess.Popen, ["touch", "was_here"])}),
    "builtins.eval": pickle.dumps([Evil(eval, "1")]),
    "builtins.getattr": pickle.dumps(Evil(getattr, "a", "upper")),
    "os.system": b"cos\nsystem\n(S'touch was_here'\ntR.",
    "INST": b"(S'touch was_here'\nios\nsystem\n.",
    "OBJ": b"(cnumpy\nndarray\nS'x'\no.",
    "PERSID": b"Pid\n.",
    "EXT1": b"\x82\x01.",
    "NEWOBJ": b"\x80\x02cnumpy\nndarray\n)\x81.",
    "a state": b"}}b.",
    "call of _reconstruct": b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I99\ntS'b'\ntR.",
    "numpy.fromfile": b"cnumpy\nfromfile\n(S'/etc/passwd'\ntR.",
}


@pytest.mark.parametrize("named", HOSTILE)
def test_code_is_refused_by_name_and_never_runs(tmp_path, monkeypatch, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pkl").write_bytes(HOSTILE[named])
    with pytest.raises(DataError, match=named):
        read_pickled(tmp_path / "evil.pkl")
    assert not (tmp_path / "was_here").exists()


def test_bombs_take_no_memory(tmp_path):
    """Lengths that lie, a billion references to one list, keys whose hash never ends."""
    lists = b"]" + b"".join(b"q%c(" % i + b"h%c" % i * 10 + b"l" for i in range(30)) + b"."
    keys = b"K\x01q\x00" + b"".join(b"h%cq%ch%c\x86q%c" % (i, i, i, i + 1) for i in range(60)) + b"0."
    hostile = {
        "length": b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",
        "lists": lists,
        "keys": b"\x80\x02}" + keys,
        "tuple": b"\x80\x02}K\x01\x85q\x00K\x01s.",
        "shape": pickle.dumps(np.arange(4, dtype=np.uint8)).replace(b"\x04\x85", b"\x7f\x85"),
        "no end": b"\x80\x02]" * 100,
        "nothing": b"",
        "number": b"L" + b"9" * 60_000 + b"L\n.",
        "underflow": b"\x80\x02t.",
        "memo": b"\x80\x02j\xff\xff\xff\xff.",
    }
    for name, data in hostile.items():
        (tmp_path / name).write_bytes(data)
    script = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from motet.data.pickled import read_pickled\n"
        "from motet.errors import DataError\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))\n"
        "for name in sys.argv[2:]:\n"
        "    try:\n"
        "        read_pickled(Path(sys.argv[1]) / name)\n"
        "    except DataError as error:\n"
        "        print(name, error.rule)\n"
        "    else:\n"
        "        print(name, 'read')\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *hostile], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    said = dict(line.rsplit(" ", 1) for line in ran.stdout.splitlines())
    assert set(said) == set(hostile)
    assert {name for name, rule in said.items() if rule == "read"} <= {"lists"}, said


def test_every_cut_and_flip_is_an_answer(tmp_path):
    whole = pickle.dumps(CONTENT, 4)
    path = tmp_path / "data.pkl"
    draw = np.random.default_rng(0)
    for cut in draw.integers(0, len(whole), 60):
        path.write_bytes(whole[:cut])
        with pytest.raises(DataError):
            read_pickled(path)
    for place in draw.integers(0, len(whole), 300):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(changed)
        with contextlib.suppress(DataError):
            read_pickled(path)


def test_instructions_that_call_or_import_are_refused(tmp_path):
    """Every one that Python has, but for those that build lists, dicts, tuples, texts, numbers and arrays."""
    building = {
        *pickled._VALUES,
        *pickled._CONSTANTS,
        *pickled._IGNORED,
        *("STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"),
        *("GET", "BINGET", "LONG_BINGET", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "TUPLE1", "TUPLE2"),
        *("TUPLE3", "LIST", "TUPLE", "DICT", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
        *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    }
    others = {opcode.name for opcode in pickletools.opcodes} - building
    assert {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4"} <= others
    for name in others:
        with pytest.raises(DataError, match=name):
            pickled._Reader(tmp_path, 0)._step(name, None)
