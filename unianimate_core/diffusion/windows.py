"""Sliding windows over the frames of a long video."""

from __future__ import annotations

from ..errors import InputError


def window_starts(frames: int, size: int, overlap: int) -> list[int]:
    """First frames of the windows; the last window is the last ``size`` frames, so that none wraps.

    20 frames in windows of 8 with overlap 2 start at 0, 6, 12; as many frames as fit one window make one.

    Raises:
        InputError: The size is below 1, or the overlap not in 0 to size - 1.
    """
    if size < 1 or not 0 <= overlap < size:
        raise InputError(f"window {size} with overlap {overlap}: the overlap must be at least 0 and below the window")
    if frames <= size:
        return [0]
    return [min(start, frames - size) for start in range(0, frames - overlap, size - overlap)]
