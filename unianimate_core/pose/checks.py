"""Numbers and choices, checked before any work starts."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

from ..errors import InputError

FPS_RANGE = (0.1, 1000.0)


def check_number(name: str, value: Any, lowest: float, highest: float, unit: str = "") -> float:
    """A number in a range, as a float.

    Raises:
        InputError: It is none, or lies outside.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not lowest <= number <= highest:
        raise InputError(f"{name} is {value!r}: give a number{unit and f' of {unit}'} from {lowest:g} to {highest:g}")
    return number


def check_whole(name: str, value: Any, lowest: int, highest: int | None = None) -> int:
    """A whole number in a range; no upper end where `highest` is None.

    Raises:
        InputError: It is none, or lies outside.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = lowest - 1
    if number < lowest or (highest is not None and number > highest):
        wanted = f"{lowest} or more" if highest is None else f"from {lowest} to {highest}"
        raise InputError(f"{name} is {value!r}: give a whole number, {wanted}")
    return number


def check_odd(name: str, value: Any, highest: int) -> int:
    """An odd number from 1.

    Raises:
        InputError: It is none, or larger than the highest.
    """
    if check_whole(name, value, 1, highest) % 2 == 0:
        raise InputError(f"{name} is {value}: give an odd number, so that it has a middle")
    return value


def check_pair(name: str, value: Any, lowest: float, highest: float, unit: str) -> tuple[float, float]:
    """Two numbers in a range, for x and y.

    Raises:
        InputError: They are not two, or one lies outside.
    """
    try:
        x, y = value
    except (TypeError, ValueError):
        raise InputError(f"{name} is {value!r}: give two numbers, (x, y)") from None
    return check_number(f"{name}'s x", x, lowest, highest, unit), check_number(f"{name}'s y", y, lowest, highest, unit)


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """One of some words.

    Raises:
        InputError: It is another.
    """
    choices = tuple(choices)
    if value not in choices:
        raise InputError(f"{name} is {value!r}: choose one of {', '.join(choices)}")
