"""A part of a motion, and another frame rate."""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from ..checks import FPS_RANGE, check_choice, check_number, check_whole
from ..keypoints import MotionTrack
from .interpolation import INTERPOLATIONS, Interpolation, interpolate
from .points import MOST_FRAMES, is_present, join_points, join_scores, split_points


def trim(track: MotionTrack, start: int = 0, frames: int | None = None) -> MotionTrack:
    """Cut a part out of a motion.

    Args:
        track: The motion.
        start: Its first frame, from 0.
        frames: How many; None takes all to the end.

    Raises:
        InputError: The motion does not have these frames.
    """
    check_whole("start", start, 0)
    if start >= len(track):
        raise InputError(f"start is {start}, but the motion has {len(track)} frames: give 0 to {len(track) - 1}")
    left = len(track) - start
    if frames is None:
        return track[start:]
    check_whole("frames", frames, 1)
    if frames > left:
        raise InputError(f"frames is {frames}, but only {left} are left from frame {start} on: give {left} or fewer")
    return track[start : start + frames]


def retime(track: MotionTrack, from_fps: float, to_fps: float, *, method: Interpolation = "pchip") -> MotionTrack:
    """Give a motion another frame rate, at the same speed.

    The first frame stays the first; the last lies at the end of the old motion, or less than one new frame before it.
    A point that lies between two frames is absent where it is absent in either, and its score lies between theirs.
    Retiming back from a whole multiple of the rate gives the motion back.

    Args:
        track: The motion.
        from_fps: Its frames a second.
        to_fps: Those of the result. To change the speed, give rates of that ratio.
        method: ``pchip`` (smooth, without overshoot) or ``linear``.

    Raises:
        InputError: A rate out of range, a result of more than a million frames, an unknown method, or scipy is missing
            for ``pchip``.
    """
    step = check_number("from_fps", from_fps, *FPS_RANGE) / check_number("to_fps", to_fps, *FPS_RANGE)
    check_choice("method", method, INTERPOLATIONS)
    if step == 1:
        return track
    last = len(track) - 1
    # Rates such as 23.976 are rounded: a time that misses a frame by less than that is meant to hit it.
    count = int(last / step * (1 + 1e-9)) + 1
    if count > MOST_FRAMES:
        raise InputError(
            f"{len(track)} frames from {from_fps} to {to_fps} frames a second make {count}: give a lower to_fps, so "
            f"that there are at most {MOST_FRAMES}"
        )
    times = np.minimum(np.arange(count) * step, last)  # t
    near = np.rint(times)
    times = np.where(abs(times - near) < 1e-6, near, times)
    before, after = np.floor(times).astype(int), np.ceil(times).astype(int)  # t
    points, scores = join_points(track), join_scores(track)  # f 130 2, f 130
    present = is_present(points)  # f 130
    absent = ~(present[before] & present[after])  # t 130
    moved = interpolate(points, times, method)  # t 130 2
    moved[absent] = np.nan
    low, high = scores[before], scores[after]  # t 130
    between = low + (times - before)[:, None] * (high - low)
    return split_points(track, moved, np.clip(between, np.minimum(low, high), np.maximum(low, high)))
