"""Where points are between the frames that show them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...optional import require
from .points import is_present

Interpolation = Literal["pchip", "linear"]
INTERPOLATIONS: tuple[Interpolation, ...] = ("pchip", "linear")
SCIPY = "the package scipy, or choose linear interpolation"


def interpolate(points: np.ndarray, times: np.ndarray, method: Interpolation) -> np.ndarray:
    """The course of every point through the frames in which it is present, read at other times.

    Args:
        points: F n 2.
        times: T, in frames, ascending.
        method: ``linear``, or ``pchip``, piecewise cubic with continuous speed, which never leaves the range of the
            two frames around it (Fritsch & Butland 1984).

    Returns:
        T n 2; a point before its first and after its last frame stays where it is in that one. NaN for points that
        are nowhere.

    Raises:
        InputError: scipy is missing, for ``pchip``.
    """
    result = np.full((len(times), *points.shape[1:]), np.nan)  # t n 2
    present = is_present(points)  # f n
    curve = require("scipy.interpolate", SCIPY).PchipInterpolator if method == "pchip" else None
    for number in np.flatnonzero(present.any(0)):
        knots = np.flatnonzero(present[:, number])
        values = points[knots, number]  # k 2
        if curve is not None and len(knots) > 1:
            result[:, number] = curve(knots, values)(np.clip(times, knots[0], knots[-1]))
        else:
            for axis in (0, 1):
                result[:, number, axis] = np.interp(times, knots, values[:, axis])
    return result
