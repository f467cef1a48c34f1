"""A motion mirrored, moved, scaled and turned in its canvas."""

from __future__ import annotations

import numpy as np

from ..checks import check_number, check_pair
from ..keypoints import MotionTrack
from ..limbs import MIRRORED
from .points import join_points, join_scores, split_points


def _mirror_order() -> np.ndarray:
    """Which of the 130 points becomes each one in a mirror."""
    order = np.arange(130)
    order[: len(MIRRORED)] = MIRRORED
    hands = ((20 + point, 41 + point) for point in range(21))
    # The 68 points (iBUG 300-W): jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, lips outside 48-59, inside 60-67.
    mouth = ((48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65))
    eyes = ((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46))
    lines = (*((n, 16 - n) for n in range(8)), *((17 + n, 26 - n) for n in range(5)), (31, 35), (32, 34))
    face = ((62 + a, 62 + b) for a, b in (*lines, *eyes, *mouth))
    for a, b in (*hands, *face):
        order[[a, b]] = b, a
    return order


MIRROR_ORDER = _mirror_order()


def mirror(track: MotionTrack) -> MotionTrack:
    """Show a motion as in a mirror: about the canvas's vertical middle line, with left and right exchanged.

    Joints of the body, hands and face points get the names that they have in the mirror, so that a dancer who lifts
    the right arm now lifts the left one. Twice gives the motion back.
    """
    points, scores = join_points(track)[:, MIRROR_ORDER], join_scores(track)[:, MIRROR_ORDER]  # f 130 2, f 130
    points[..., 0] = 1 - points[..., 0]
    return split_points(track, points, scores)


def transform(
    track: MotionTrack,
    *,
    move: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    rotate: float = 0.0,
    pivot: tuple[float, float] = (0.5, 0.5),
) -> MotionTrack:
    """Scale and turn a motion about a point of the canvas, then move it. The canvas stays as it is.

    All is done in pixels, so that nothing is sheared on a canvas that is not square.

    Args:
        track: The motion.
        move: By which fraction of the width to the right, and of the height down.
        scale: Factor, 0.01 to 100.
        rotate: Degrees clockwise.
        pivot: The point that scaling and turning leave in its place, as fractions of the canvas.

    Raises:
        InputError: A number out of range.
    """
    factor = check_number("scale", scale, 0.01, 100)
    angle = np.radians(check_number("rotate", rotate, -36_000, 36_000, "degrees"))
    shift = check_pair("move", move, -100, 100, "canvases")
    centre = check_pair("pivot", pivot, -100, 100, "canvases")
    size = np.array([track.width, track.height], np.float64)
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])  # y points down
    points = join_points(track)  # f 130 2
    # What the points move by: exactly nothing where nothing is asked for.
    moved = ((points - centre) * size) @ (turn - np.eye(2)).T / size + shift
    return split_points(track, points + moved)
