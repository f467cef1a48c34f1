"""What hangs on what in a person, how long it is, and how tall the person stands in the picture."""

from __future__ import annotations

import numpy as np

from ..keypoints import MotionTrack
from ..limbs import NECK, NOSE
from .points import PARTS, join_points

LEFT_HAND, RIGHT_HAND = range(20, 41), range(41, 62)
FACE = range(PARTS["face"].start, PARTS["face"].stop)

# Lengths in body heights: limbs by Drillis & Contini (1966), as in Winter's Biomechanics and Motor Control of Human
# Movement, figure 4.1; those of head, hands and feet, which the figure has between other points, are generous.
_SHOULDER, _UPPER_ARM, _FOREARM, _THIGH, _SHIN = 0.129, 0.186, 0.146, 0.245, 0.246
_TRUNK = float(np.hypot(0.818 - 0.530, 0.191 / 2))  # from between the shoulders to one hip
_BONES = {
    (NECK, 2): _SHOULDER,
    (2, 3): _UPPER_ARM,
    (3, 4): _FOREARM,
    (NECK, 5): _SHOULDER,
    (5, 6): _UPPER_ARM,
    (6, 7): _FOREARM,
    (NECK, 8): _TRUNK,
    (8, 9): _THIGH,
    (9, 10): _SHIN,
    (NECK, 11): _TRUNK,
    (11, 12): _THIGH,
    (12, 13): _SHIN,
}
_ATTACHED = {
    (NECK, NOSE): 0.936 - 0.818,
    **{(NOSE, point): 0.1 for point in (*range(14, 18), *FACE)},
    (13, 18): 0.152,
    (10, 19): 0.152,
    **{(wrist, point): 0.108 for wrist, hand in ((7, LEFT_HAND), (4, RIGHT_HAND)) for point in hand},
}

EDGES = np.array([*_BONES, *_ATTACHED])
"""Parent and child of everything but the neck, e 2, as numbers of `points`; parents come before their children."""

LENGTHS = np.array([*_BONES.values(), *_ATTACHED.values()])
"""How long each edge is, e, in body heights."""

BONES = slice(0, len(_BONES))
"""The edges whose share of the body height is known well: shoulders, arms, trunk, legs."""


def edge_lengths(pixels: np.ndarray) -> np.ndarray:
    """The length of every edge in every frame, from points f 130 2 in pixels: f e, NaN where an end is absent."""
    return np.linalg.norm(pixels[:, EDGES[:, 1]] - pixels[:, EDGES[:, 0]], axis=-1)


def body_height(track: MotionTrack) -> float:
    """How tall the person would stand, in pixels: a measure of size that does not change with the pose.

    Every limb tells a height by its usual share of it; the median of them is taken. A limb is as long as it is in the
    longest tenth of its frames, since it looks shorter when it points at the camera. Where no limb is to be seen, the
    head is measured instead, and where nothing has a length, the canvas's shorter side.

    Returns:
        Pixels, above 0.
    """
    points = join_points(track) * (track.width, track.height)  # f 130 2
    lengths = edge_lengths(points)  # f e
    for edges in (BONES, slice(BONES.stop, None)):
        seen = np.isfinite(lengths[:, edges]).any(0)
        if seen.any():
            heights = np.nanpercentile(lengths[:, edges][:, seen], 90, axis=0) / LENGTHS[edges][seen]
            height = float(np.median(heights))
            if height > 0:
                return height
    return float(min(track.width, track.height))
