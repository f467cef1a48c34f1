"""Reads a run's configuration from its TOML file."""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..optional import TRAIN_EXTRA, require
from .config import RunConfig, Span


def read_config(path: str | Path) -> RunConfig:
    """Read a run's configuration; paths in it are relative to its folder.

    Raises:
        InputError: The file is missing or no TOML, or a key is unknown, missing, of the wrong type or out of range; the
            message names it.
    """
    path = Path(path)
    toml = require("tomllib" if sys.version_info >= (3, 11) else "tomli", TRAIN_EXTRA)
    try:
        content = toml.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): give a run's TOML file") from error
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not TOML ({error}): mend it") from error
    try:
        return _table(RunConfig, content, "", path.parent)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _table(kind: Any, content: dict[str, Any], section: str, base: Path) -> Any:
    prefix = f"[{section}] " if section else ""
    hints = typing.get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}
    for key in content:
        if key not in fields:
            near = difflib.get_close_matches(key, fields, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(fields)}"
            raise InputError(f"{prefix}{key}: unknown; {hint}")
    for name, item in fields.items():
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if needed and name not in content:
            what = f"the section [{name}]" if dataclasses.is_dataclass(hints[name]) else f"{prefix}{name}"
            raise InputError(f"{what} is missing: give {_expected(hints[name])}")
    values = {}
    for key, value in content.items():
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise InputError(f"{key} is {value!r}: write a section [{key}]")
            values[key] = _table(hints[key], value, key, base)
        else:
            try:
                values[key] = _value(hints[key], value, base)
            except TypeError:
                raise InputError(f"{prefix}{key} is {value!r}: give {_expected(hints[key])}") from None
    return kind(**values)


def _value(hint: Any, value: Any, base: Path) -> Any:
    """A value as its annotation wants it; TypeError where it cannot be."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _value(arguments[0], value, base)  # T | None: TOML knows no None
    if origin is Literal:
        if value not in arguments or not isinstance(value, str):
            raise TypeError
        return value
    if hint is Span:
        numbers = value if isinstance(value, list) else [value, value]
        if len(numbers) != 2:
            raise TypeError
        return Span(*(_value(int, number, base) for number in numbers))
    if origin is tuple:
        if arguments[0] is Path and isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or (arguments[-1] is not ... and len(value) != len(arguments)):
            raise TypeError
        return tuple(_value(arguments[0], item, base) for item in value)
    if hint is Path and isinstance(value, str) and value:
        return (base / Path(value).expanduser()).resolve()
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise TypeError
    return value


def _expected(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return "it"
    if origin in (types.UnionType, typing.Union):
        return _expected(arguments[0])
    if origin is Literal:
        return f"one of {', '.join(arguments)}"
    if hint is Span:
        return "a whole number, or a list of two"
    if origin is tuple:
        items = {int: "whole numbers", float: "numbers", bool: "true and false", Path: "paths, or one path"}
        count = "" if arguments[-1] is ... else f"{len(arguments)} "
        return f"a list of {count}{items[arguments[0]]}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path"}[hint]
