"""Joints that show up for a moment only."""

from __future__ import annotations

import numpy as np

from ..checks import check_whole
from ..keypoints import MotionTrack
from .points import find_runs, is_present, join_points, split_points


def drop_flicker(track: MotionTrack, shortest: int = 3) -> MotionTrack:
    """Make points absent that appear for too few frames in a row, as guesses at a hidden limb do.

    A second pass changes nothing. Do it before `drop_outliers`, which may leave short pieces that are good, and before
    `fill_gaps`, which would bridge from one guess to the next.

    Args:
        track: The motion.
        shortest: Appearances of fewer frames are dropped; in a motion that is shorter itself, those that do not last
            from its beginning to its end.

    Raises:
        InputError: The number is not 1 or more.
    """
    check_whole("shortest", shortest, 1)
    points = join_points(track)  # f 130 2
    present = is_present(points)  # f 130
    begin, end = find_runs(present)  # f 130
    points[present & (end - begin < min(shortest, len(track)))] = np.nan
    return split_points(track, points)
