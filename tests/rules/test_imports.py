"""The table of rooms: which part may import which, held against every import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "motet"

GROUND = {"errors"}
BASE = GROUND | {"types", "config"}
MODEL_TIER = {"model", "losses", "metrics", "checkpoint"}
JOB_TIER = {"predictor", "train", "tasks", "index", "explain"}

MAY_IMPORT = {
    "errors": set(),
    "types": GROUND,
    "config": GROUND,
    "data": BASE | {"data"},
    "nn": BASE | {"nn"},
    **{room: BASE | {"nn", "data"} | MODEL_TIER for room in MODEL_TIER},
    **{room: BASE | {"nn", "data"} | MODEL_TIER | JOB_TIER for room in JOB_TIER},
    "cli": BASE | {"nn", "data"} | MODEL_TIER | JOB_TIER | {"serve", "cli"},
    "serve": BASE | {"nn", "data"} | MODEL_TIER | JOB_TIER | {"serve"},
    "__main__": {"cli"},
}


def room_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """The rooms of motet that a file imports, at the top or within a function."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = node.module == "motet"
            names = [f"motet.{alias.name}" if whole else str(node.module) for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("motet.")}
    return rooms - {"__version__"}


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_only_what_it_may(path):
    room = room_of(path)
    assert room in MAY_IMPORT, f"{room} has no row in the table"
    assert imported(path) <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_is_unpickled_evaluated_or_swallowed(path):
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            )
            assert not broad or any(isinstance(n, ast.Raise) for n in ast.walk(node)), f"line {node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", "") or ""]
            assert not {"pickle", "dill", "joblib", "shelve"} & set(names), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec", "__import__"), f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            words = {k.arg: k.value for k in node.keywords}
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "torch":
                only = words.get("weights_only")
                assert isinstance(only, ast.Constant) and only.value is True, f"line {node.lineno}"
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "np":
                pickled = words.get("allow_pickle")
                assert isinstance(pickled, ast.Constant) and pickled.value is False, f"line {node.lineno}"
