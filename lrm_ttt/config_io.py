"""Read nested frozen dataclasses from YAML and plain mappings, strictly, and write them back.

Free of torch. An unknown key is an error that names the nearest known one; a value of the wrong type is an error that
names the place. `inherit: other.yaml` in any mapping takes that file's mapping as defaults, relative to the file that
says so.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lrm_ttt.errors import InvalidConfig

T = TypeVar("T")
INHERIT = "inherit"
# A file that inherits from itself would otherwise be followed for ever.
MAX_INHERITANCE = 8


def load_yaml(path: Path | str, cls: type[T]) -> T:
    """Read a YAML file into the dataclass `cls`; raises `InvalidConfig` with file, key and remedy."""
    data = read_mapping(Path(path))
    try:
        return from_mapping(data, cls)
    except InvalidConfig as error:
        raise InvalidConfig(f"{path}: {error}") from error


def read_mapping(path: Path, depth: int = 0) -> dict[str, Any]:
    """Read a YAML file as a mapping with every `inherit` resolved."""
    if depth > MAX_INHERITANCE:
        raise InvalidConfig(
            f"{path} inherits more than {MAX_INHERITANCE} levels deep: does a file inherit from itself?"
        )
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"The configuration {path} cannot be read: {error}.") from error
    except yaml.YAMLError as error:
        raise InvalidConfig(f"{path} is not valid YAML: {error}") from error
    if not isinstance(data, Mapping):
        raise InvalidConfig(f"{path} must hold a mapping of keys to values, not {type(data).__name__}.")
    return _resolve(data, path.parent, depth)


def from_mapping(data: Any, cls: type[T], where: str = "") -> T:
    """Build the dataclass `cls` from plain data (mappings, lists, numbers, strings)."""
    assert dataclasses.is_dataclass(cls)
    if not isinstance(data, Mapping):
        raise InvalidConfig(f"{where or 'the configuration'} must be a mapping, not {data!r}.")
    hints = typing.get_type_hints(cls)
    known = [field.name for field in dataclasses.fields(cls)]
    for key in data:
        if key not in known:
            nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean '{nearest[0]}'?" if nearest else f"known are {', '.join(known)}."
            raise InvalidConfig(f"Unknown key '{_join(where, key)}': {hint}")
    values = {key: _convert(value, hints[key], _join(where, key)) for key, value in data.items()}
    for field in dataclasses.fields(cls):
        no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if no_default and field.name not in values:
            raise InvalidConfig(f"The key '{_join(where, field.name)}' is missing, and has no default.")
    return cls(**values)


def to_mapping(config: Any) -> Any:
    """Return plain data that `from_mapping` reads back as an equal dataclass; fit for YAML and JSON."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_mapping(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, tuple | list):
        return [to_mapping(item) for item in config]
    return config


def dump_yaml(config: Any) -> str:
    """Return the resolved configuration as YAML."""
    return yaml.safe_dump(to_mapping(config), sort_keys=False)


def _resolve(data: Any, folder: Path, depth: int) -> Any:
    if isinstance(data, Mapping):
        own = {key: _resolve(value, folder, depth) for key, value in data.items() if key != INHERIT}
        if INHERIT not in data:
            return own
        return _merge(read_mapping(folder / str(data[INHERIT]), depth + 1), own)
    return [_resolve(item, folder, depth) for item in data] if isinstance(data, list) else data


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _convert(value: Any, hint: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        if value not in arguments:
            raise InvalidConfig(f"'{where}' is one of {', '.join(map(str, arguments))}, not {value!r}.")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        others = [argument for argument in arguments if argument is not type(None)]
        assert len(others) == 1, f"{where}: only Optional unions can be read from YAML"
        return _convert(value, others[0], where)
    if origin is tuple:
        return _convert_tuple(value, arguments, where)
    if dataclasses.is_dataclass(hint):
        return from_mapping(value, typing.cast(type, hint), where)
    return _convert_scalar(value, hint, where)


def _convert_tuple(value: Any, arguments: tuple[Any, ...], where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise InvalidConfig(f"'{where}' must be a list, not {value!r}.")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise InvalidConfig(f"'{where}' must be a list of {len(arguments)}, not {value!r}.")
    return tuple(
        _convert(item, hint, f"{where}[{i}]") for i, (item, hint) in enumerate(zip(value, arguments, strict=True))
    )


def _convert_scalar(value: Any, hint: type, where: str) -> Any:
    assert hint in (bool, int, float, str), f"{where}: {hint} cannot be read from YAML"
    # True is an int in Python, and 1e-3 without a dot in the mantissa is a string in YAML 1.1.
    if hint is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError as error:
            raise InvalidConfig(f"'{where}' must be a number, not {value!r}.") from error
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InvalidConfig(f"'{where}' must be of type {hint.__name__}, not {value!r}.")
    return value


def _join(where: str, key: Any) -> str:
    return f"{where}.{key}" if where else str(key)
