"""How much a long video shows where it was put together, and how far it drifts.

*Seam*: the mean jump (mean absolute difference of successive frames, grey levels) across borders over the mean jump
elsewhere. Borders are where a segment follows another, or where the set of windows that a frame is in changes.
*Drift*: how the distance from the truth grows over the segments.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from unianimate_core.diffusion import window_starts


def segments(frames: int, size: int) -> list[tuple[int, int]]:
    """First frame and the one behind the last of each segment; each begins with the last frame of the one before."""
    return [(start, min(start + size, frames)) for start in range(0, frames - 1, size - 1)]


def segment_borders(frames: int, size: int) -> list[int]:
    """The first new frame of each segment but the first."""
    return [stop for _, stop in segments(frames, size)[:-1]]


def window_borders(frames: int, size: int, overlap: int) -> list[int]:
    """The frames that are not in the same windows as the one before."""
    starts = window_starts(frames, size, overlap)
    return sorted({*starts[1:], *(start + size for start in starts[:-1])} - {frames})


def jumps(video: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame from the one before, grey levels: uint8 f H W 3 → float64 f - 1."""
    return np.array([np.abs(b.astype(np.int16) - a).mean() for a, b in itertools.pairwise(video)])


def seam(video: np.ndarray, borders: list[int]) -> float:
    """The mean jump onto the frames at borders over the mean jump onto all others; NaN where nothing moves."""
    jump = jumps(video)
    at_border = np.isin(np.arange(1, len(video)), borders)
    within = jump[~at_border].mean()
    return float(jump[at_border].mean() / within) if within else math.nan


def by_segment(values: np.ndarray, borders: list[int]) -> list[float | None]:
    """The mean of numbers f over the frames of each segment; None where there are none."""
    parts = (part[np.isfinite(part)] for part in np.split(values, borders))
    return [float(part.mean()) if len(part) else None for part in parts]


def growth(values: np.ndarray) -> float | None:
    """Slope of the line through numbers f, over 100 frames."""
    frames = np.flatnonzero(np.isfinite(values))
    return float(100 * np.polyfit(frames, values[frames], 1)[0]) if len(frames) > 1 else None
