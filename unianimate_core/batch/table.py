"""Reads a table of jobs, CSV or JSON: one video a row, its columns the options of a command."""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import InputError

LARGEST_TABLE = 64 << 20  # bytes; a million jobs


@dataclass(frozen=True)
class Job:
    """One video to make.

    Attributes:
        row: In the table, from 1.
        output: The video.
        options: Of the command, as its options class takes them; None where they cannot be used.
        problem: Why they cannot.
    """

    row: int
    output: Path
    options: Any
    problem: str = ""


def read_jobs(path: str | Path, kind: type, common: Mapping[str, Any]) -> list[Job]:
    """Read a table.

    Args:
        path: ``.csv`` with a line of column names, or ``.json``, a list of objects. An empty cell, or null, leaves an
            option to its default. Files are relative to the table's folder.
        kind: The dataclass of the command's options; its fields are the columns, dashes or underscores alike. It has
            ``output``.
        common: Fields that are the same for all jobs, and no columns.

    Returns:
        The jobs in the table's order. One whose values cannot be used, or whose files are missing, is among them and
        says so.

    Raises:
        InputError: The table cannot be read, has a column that is no option, lacks one that must be there, or names
            one output twice.
    """
    path = Path(path)
    rows = _rows(path)
    if not rows:
        raise InputError(f"{path} has no jobs: give one a row, under the names of their columns")
    hints = get_type_hints(kind)
    known = {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.name not in common}
    needed = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    _check_columns({name for _, row in rows for name in row}, known, needed, path)
    jobs = [_job(number, row, kind, known, needed, common, path.parent) for number, row in rows]
    rows_by_output: dict[str, int] = {}
    for job in jobs:
        if job.output == Path():
            continue
        place = os.path.normcase(os.path.abspath(job.output))
        if (other := rows_by_output.setdefault(place, job.row)) != job.row:
            raise InputError(f"{path}: jobs {other} and {job.row} have one output, {job.output}: give each its own")
    return jobs


def _rows(path: Path) -> list[tuple[int, dict[str, Any]]]:
    if path.suffix.lower() not in (".csv", ".json"):
        raise InputError(f"{path} must end in .csv or .json")
    try:
        if path.stat().st_size > LARGEST_TABLE:
            raise InputError(f"{path} has {path.stat().st_size >> 20} MiB: a table has at most {LARGEST_TABLE >> 20}")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise InputError(f"cannot read {path} ({reason}): give a CSV or JSON table") from error
    return _csv_rows(text, path) if path.suffix.lower() == ".csv" else _json_rows(text, path)


def _csv_rows(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = [
            cells
            for cells in csv.reader(io.StringIO(text, newline=""), strict=True)
            if any(cell.strip() for cell in cells)
        ]
    except csv.Error as error:
        raise InputError(f"{path} is no CSV ({error}): look for a quote that is not closed") from error
    if not lines:
        return []
    names = [_name(cell) for cell in lines[0]]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path} has the column {twice[0]!r} twice: keep one")
    rows = []
    for number, cells in enumerate(lines[1:], start=1):
        if len(cells) > len(names):
            raise InputError(
                f"{path}: job {number} has {len(cells)} cells, there are {len(names)} columns: "
                "put a value that has a comma in it between quotes"
            )
        rows.append((number, {name: cell.strip() for name, cell in zip(names, cells, strict=False)}))
    return rows


def _json_rows(text: str, path: Path) -> list[tuple[int, dict[str, Any]]]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON ({error})") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f'{path} must be a list of objects: [{{"reference": …, "motion": …, "output": …}}, …]')
    for row in rows:
        if len({_name(name) for name in row}) < len(row):
            raise InputError(f"{path} names an option twice in one job, with dash and underscore: keep one")
    return [(number, {_name(name): row[name] for name in row}) for number, row in enumerate(rows, start=1)]


def _name(column: str) -> str:
    return column.strip().lstrip("-").replace("-", "_")


def _check_columns(names: Iterable[str], known: Mapping[str, Any], needed: Iterable[str], path: Path) -> None:
    for name in sorted(names):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]!r}?" if near else f"choose of {', '.join(known)}"
            raise InputError(f"{path} has a column {name!r}, which is no option of a job: {advice}")
    if missing := [name for name in needed if name not in names]:
        raise InputError(f"{path} has no column {missing[0]!r}: every job needs {', '.join(needed)}")


def _job(
    number: int,
    row: Mapping[str, Any],
    kind: type,
    known: Mapping[str, Any],
    needed: Iterable[str],
    common: Mapping[str, Any],
    folder: Path,
) -> Job:
    given = {name: value for name, value in row.items() if value is not None and value != ""}
    output = folder / given["output"] if isinstance(given.get("output"), str) else Path()
    try:
        if missing := [name for name in needed if name not in given]:
            raise InputError(f"{missing[0]} is empty: every job needs {', '.join(needed)}")
        options = {name: _value(name, value, known[name], folder) for name, value in given.items()}
        for name, value in options.items():
            if isinstance(value, Path) and name != "output" and not value.exists():
                raise InputError(f"{name}: there is no {value}: check the path, which is relative to the table")
        options["output"].exists()  # a name that the system cannot have is told here
    except (InputError, OSError) as error:
        return Job(number, output, None, str(error))
    return Job(number, output, kind(**common, **options))


def _value(name: str, value: Any, hint: Any, folder: Path) -> Any:
    """A cell as its option takes it."""
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    refused = InputError(f"{name} is {value!r}: give {_wanted(hint)}")
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise refused
    try:
        if issubclass(hint, Enum):
            return hint(value)
        if issubclass(hint, Path):
            if not isinstance(value, str) or "\0" in value:
                raise refused
            return folder / value
        if hint is int and isinstance(value, float) and not value.is_integer():
            raise refused
        return hint(value)
    except (ValueError, OverflowError):
        raise refused from None


def _wanted(hint: Any) -> str:
    if issubclass(hint, Enum):
        return " or ".join(str(choice.value) for choice in hint)
    return {int: "a whole number", float: "a number"}.get(hint, "a text")
