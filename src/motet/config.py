"""JSON/YAML <-> frozen dataclasses, and dotted overrides.

A config is a frozen dataclass that stands in the file it configures. Unknown keys, duplicate
keys, NaN and infinite numbers, and values of the wrong type are errors.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError

from motet.errors import ConfigError

C = TypeVar("C")
MAX_BYTES = 4 * 2**20
MAX_YAML = 256 * 2**10  # the parser takes seconds for more
MAX_DEPTH = 32


@functools.cache
def _adapter(cls: type) -> TypeAdapter[Any]:
    _forbid_extra(cls, set())
    return TypeAdapter(cls)


def _forbid_extra(cls: Any, seen: set[Any]) -> None:
    """Every dataclass reachable from `cls` refuses keys that it does not have."""
    if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls not in seen:
        seen.add(cls)
        if "__pydantic_config__" not in cls.__dict__:
            cls.__pydantic_config__ = ConfigDict(extra="forbid", strict=False)  # type: ignore[attr-defined]
        import typing

        for hint in typing.get_type_hints(cls).values():
            for inner in _parts(hint):
                _forbid_extra(inner, seen)


def _parts(hint: Any) -> Iterable[Any]:
    yield hint
    for inner in getattr(hint, "__args__", ()):
        yield from _parts(inner)


def from_dict(cls: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Build the dataclass `cls` from plain values. `where` names their source in errors.

    Raises:
        ConfigError: an unknown key, a wrong type, a NaN; each named with its dotted path.
    """
    _refuse_non_finite(values, where)
    try:
        return _adapter(cast(Hashable, cls)).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "(top)"
        names = ", ".join(f.name for f in dataclasses.fields(cls))  # type: ignore[arg-type]
        what = "unknown key" if first["type"] == "unexpected_keyword_argument" else first["msg"]
        raise ConfigError(f"{where}: {key}: {what}. Keys here: {names}.") from None


def to_dict(config: Any) -> dict[str, Any]:
    """Plain JSON values of a config; `from_dict` of the result gives an equal config."""
    return _adapter(cast(Hashable, type(config))).dump_python(config, mode="json")


def override(values: Mapping[str, Any], settings: Iterable[str], *, where: str = "--set") -> dict[str, Any]:
    """`values` with each "dotted.key=value" put in; the value is read as YAML (1, 1e-3, [a, b], text)."""
    result = json.loads(json.dumps(values))
    for setting in settings:
        key, equals, text = setting.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            raise ConfigError(f"{where} {setting!r}: expected key=value, such as train.epochs=5.")
        here = result
        for part in path[:-1]:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise ConfigError(f"{where} {setting!r}: {part!r} is a value, not a group of keys.")
        here[path[-1]] = _scalar(text, where=f"{where} {setting!r}")
    return result


def read(path: str | Path) -> dict[str, Any]:
    """The mapping in a JSON or YAML file. Tags, aliases, duplicate keys, NaN are refused."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES >> 20} MiB, too large for a config.")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}.") from None
    values = parse_json(text, where=str(path)) if path.suffix == ".json" else _parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values at the top, found {type(values).__name__}.")
    _refuse_non_finite(values, str(path))
    return values


def parse_json(text: str, *, where: str) -> Any:
    """JSON with duplicate keys, NaN, infinities and deep nesting refused."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(pairs)
        if len(out) != len(pairs):
            raise ConfigError(f"{where}: the key {_twice([key for key, _ in pairs])!r} stands twice.")
        return out

    def refuse(constant: str) -> Any:
        raise ConfigError(f"{where}: {constant} is not a number that can be used here.")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}, line {error.lineno}: not valid JSON: {error.msg}.") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply.") from None
    except ValueError as error:  # an integer of thousands of digits
        raise ConfigError(f"{where}: {error}.") from None


def _twice(keys: Sequence[Any]) -> Any:
    """The first key that was there before, or None."""
    seen: set[Any] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader without aliases, and with unique keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = _twice([key for key in keys if isinstance(key, Hashable)])  # others are refused below
        if twice is not None:
            raise yaml.YAMLError(f"the key {twice!r} stands twice")
        return super().construct_mapping(node, deep=deep)


def _parse_yaml(text: str, where: str) -> Any:
    if len(text) > MAX_YAML:
        raise ConfigError(f"{where}: more than {MAX_YAML >> 10} KiB of YAML. Write it as JSON.")
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not valid YAML: {str(error).splitlines()[0]}.") from None
    except (ValueError, TypeError, OverflowError) as error:  # dates and numbers that there are not
        raise ConfigError(f"{where}: not a value that can be used: {error}.") from None
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply.") from None


def _scalar(text: str, *, where: str) -> Any:
    value = _parse_yaml(text, where)
    if isinstance(value, str):
        try:
            value = float(value)  # YAML 1.1 reads 1e-3 as text
        except ValueError:
            return value
    _refuse_non_finite(value, where)
    return value


def _refuse_non_finite(value: Any, where: str, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ConfigError(f"{where}: nested more than {MAX_DEPTH} deep.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{where}: {value} is not a number that can be used here.")
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    for item in inner:
        _refuse_non_finite(item, where, depth + 1)


def plain(value: Any) -> Any:
    """JSON values; numbers that JSON lacks are null."""
    match value:
        case Mapping():
            return {str(key): plain(inner) for key, inner in value.items()}
        case str() | bool() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case list() | tuple():
            return [plain(inner) for inner in value]
        case _ if hasattr(value, "tolist"):  # numpy
            return plain(value.tolist())
        case _:
            return str(value)
