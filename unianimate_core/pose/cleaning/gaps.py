"""Frames in which a joint, or the whole person, was not found."""

from __future__ import annotations

import numpy as np

from ..checks import check_choice, check_whole
from ..keypoints import MotionTrack
from .interpolation import INTERPOLATIONS, Interpolation, interpolate
from .points import find_runs, is_present, join_points, join_scores, split_points


def fill_gaps(track: MotionTrack, longest: int = 10, *, method: Interpolation = "pchip", hold: int = 0) -> MotionTrack:
    """Fill short gaps, joint by joint.

    A filled point has the lower score of the two on either side of its gap. Frames without anybody are gaps like all
    others, see also `hold_pose`. Points that are present are left as they are, and a second pass changes nothing.

    Args:
        track: The motion.
        longest: Gaps of more frames stay open.
        method: ``pchip`` (smooth, without overshoot) or ``linear``.
        hold: At the motion's ends, where there is nothing to interpolate, gaps of at most this many frames are filled
            with the nearest position.

    Raises:
        InputError: A number out of range, an unknown method, or scipy is missing for ``pchip``.
    """
    check_whole("longest", longest, 0)
    check_whole("hold", hold, 0)
    check_choice("method", method, INTERPOLATIONS)
    points, scores = join_points(track), join_scores(track)  # f 130 2, f 130
    present = is_present(points)  # f 130
    begin, end = find_runs(present)  # f 130
    opened, closed = begin > 0, end < len(track)  # whether the joint is seen before, and after
    limit = np.where(opened & closed, longest, np.where(opened | closed, hold, 0))
    fill = ~present & (end - begin <= limit)  # f 130
    if not fill.any():
        return track
    columns = np.flatnonzero(fill.any(0))
    points[:, columns] = np.where(
        fill[:, columns, None],
        interpolate(points[:, columns], np.arange(len(track)), method),
        points[:, columns],
    )
    before = np.take_along_axis(scores, np.where(opened, begin - 1, end % len(track)), 0)
    after = np.take_along_axis(scores, np.where(closed, end, begin - 1), 0)
    return split_points(track, points, np.where(fill, np.minimum(before, after), scores))


def hold_pose(track: MotionTrack) -> MotionTrack:
    """Give frames without a person the last pose before them; those before the first, the first.

    A frame is without a person where no body joint is present; what it has of hands and face is replaced too. A motion
    without a person in any frame is returned as it is.
    """
    numbers = np.where(track.present, np.arange(len(track)), -1)  # f
    shown = np.maximum.accumulate(numbers)
    shown[shown < 0] = max(0, int(track.present.argmax()))
    return split_points(track, join_points(track)[shown], join_scores(track)[shown])
