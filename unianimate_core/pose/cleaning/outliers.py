"""Joints that a detector put in a wrong place."""

from __future__ import annotations

import numpy as np

from ..checks import check_number, check_odd
from ..keypoints import MotionTrack
from ..limbs import NECK
from .points import is_present, join_points, split_points, used_points
from .skeleton import BONES, EDGES, LENGTHS, body_height, edge_lengths

_TO_DEVIATION = 1.4826  # a normal distribution's standard deviation over its median absolute deviation


def drop_outliers(
    track: MotionTrack, *, window: int = 7, jump: float = 0.06, deviations: float = 3.0, stretch: float = 1.8
) -> MotionTrack:
    """Make points absent that jump away and back, or that lie too far from the joint that they hang on.

    Jumps are found by Hampel's filter (Hampel 1974): every point is compared with the median of the frames around it.
    Lengths are compared from the trunk outwards, so that a wrong elbow does not cost the wrist. A limb may look as
    short as it likes, and all may grow together as a person comes nearer.

    Args:
        track: The motion.
        window: Odd number of frames, with the one in question in their middle; jumps of fewer frames than half of it
            are found. 1 looks for none.
        jump: How far from the median a point may always be, in body heights.
        deviations: How far it may be where the window is restless all over, in standard deviations as estimated from
            the median distance to the median.
        stretch: How many times as long as usual a limb may be: as its median over the motion, or as a person of this
            height has it if that is more. 0 does not look at lengths.

    Raises:
        InputError: A number out of range.
    """
    check_odd("window", window, 101)
    check_number("jump", jump, 0, 10, "body heights")
    check_number("deviations", deviations, 0, 1000)
    check_number("stretch", stretch, 0, 1000)
    size = (track.width, track.height)
    height = body_height(track)  # pixels
    points = join_points(track)  # f 130 2
    if window > 1:
        for number in used_points(points):
            pixels = points[:, number] * size  # f 2
            points[_jumps(pixels, window, jump * height, deviations), number] = np.nan
    if stretch:
        points[_far_from_parent(points * size, height, stretch)] = np.nan
    return split_points(track, points)


def _jumps(pixels: np.ndarray, window: int, least: float, deviations: float) -> np.ndarray:
    """Where one joint (f 2) jumps: bool f."""
    padded = np.pad(pixels, ((window // 2, window // 2), (0, 0)), constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, window, 0)  # f 2 w
    median = _median(around)  # f 2
    spread = _median(np.linalg.norm(around - median[..., None], axis=1))  # f
    limit = np.maximum(least, deviations * _TO_DEVIATION * spread)
    # Of two points, neither is the odd one.
    return (np.linalg.norm(pixels - median, axis=-1) > limit) & (is_present(around.swapaxes(1, 2)).sum(1) > 2)


def _far_from_parent(pixels: np.ndarray, height: float, stretch: float) -> np.ndarray:
    """Which points lie too far from the one that they hang on: bool f 130, from pixels f 130 2."""
    lengths = edge_lengths(pixels)  # f e
    usual = np.fmax(_median(lengths.T), LENGTHS * height)  # e
    nearer = np.fmax(_median(lengths[:, BONES] / usual[BONES]), 1)  # f; by how much all limbs are longer than usual
    long = lengths > stretch * usual * nearer[:, None]  # f e
    wrong = np.zeros(pixels.shape[:2], bool)  # f 130
    # The neck has no parent: it is wrong itself where most that hangs on it is far away.
    at_neck = EDGES[:, 0] == NECK
    wrong[:, NECK] = 2 * long[:, at_neck].sum(1) > np.maximum(np.isfinite(lengths[:, at_neck]).sum(1), 2)
    for edge, (parent, child) in enumerate(EDGES):
        wrong[:, child] = long[:, edge] & ~wrong[:, parent]
    return wrong


def _median(values: np.ndarray) -> np.ndarray:
    """The median along the last axis of the numbers that are there; NaN where none is."""
    ordered = np.sort(values, axis=-1)  # NaN at the end
    count = np.isfinite(values).sum(-1)
    middle = np.stack([(np.maximum(count, 1) - 1) // 2, count // 2], -1)
    return np.take_along_axis(ordered, middle, -1).mean(-1)
