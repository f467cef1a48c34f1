"""A motion, again and again."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...errors import InputError
from ..checks import check_choice, check_whole
from ..keypoints import MotionTrack
from .points import MOST_FRAMES, join_points, join_scores, split_points

Loop = Literal["repeat", "ping-pong"]
LOOPS: tuple[Loop, ...] = ("repeat", "ping-pong")


def loop(track: MotionTrack, times: int, mode: Loop = "repeat", *, blend: int = 0) -> MotionTrack:
    """Play a motion several times.

    Args:
        track: The motion, of n frames.
        times: How often. 1 returns it as it is.
        mode: ``repeat`` starts again from the first frame; ``ping-pong`` goes forwards and backwards by turns (each
            counts as one time), showing the frame at which it turns once.
        blend: For ``repeat``: the last frames of each time pass into the first of the next while both play, over so
            many frames, at most n / 2. A point is absent there where it is absent in either. 0 jumps. A ping-pong has
            no seam.

    Returns:
        ``repeat``: times · n − (times − 1) · blend frames; ``ping-pong``: times · (n − 1) + 1.

    Raises:
        InputError: A number out of range, an unknown mode, or a result of more than a million frames.
    """
    check_whole("times", times, 1)
    check_choice("mode", mode, LOOPS)
    check_whole("blend", blend, 0)
    frames = len(track)
    if mode == "ping-pong":
        there, back = np.arange(frames), np.arange(frames - 1, -1, -1)
        _check_length(times * (frames - 1) + 1, times)
        order = np.concatenate([there[:1], *((back if turn % 2 else there)[1:] for turn in range(times))])
        return split_points(track, join_points(track)[order], join_scores(track)[order])
    if blend > frames // 2:
        raise InputError(f"blend is {blend}, but the motion has {frames} frames: give at most half, {frames // 2}")
    _check_length(times * frames - (times - 1) * blend, times)
    points, scores = join_points(track), join_scores(track)  # f 130 2, f 130
    if times == 1:
        return track
    share = (np.arange(blend) + 1) / (blend + 1)
    share = share**2 * (3 - 2 * share)  # it starts and ends without a jerk
    seam_points, seam_scores = (
        np.clip(a + w * (b - a), np.minimum(a, b), np.maximum(a, b))
        for a, b, w in (
            (points[frames - blend :], points[:blend], share[:, None, None]),
            (scores[frames - blend :], scores[:blend], share[:, None]),
        )
    )
    middle = slice(blend, frames - blend)
    looped = [
        np.concatenate([whole[:blend], *[whole[middle], seam] * (times - 1), whole[middle], whole[frames - blend :]])
        for whole, seam in ((points, seam_points), (scores, seam_scores))
    ]
    return split_points(track, *looped)


def _check_length(frames: int, times: int) -> None:
    if frames > MOST_FRAMES:
        raise InputError(f"times is {times}, which makes {frames} frames: give fewer, for {MOST_FRAMES} at most")
