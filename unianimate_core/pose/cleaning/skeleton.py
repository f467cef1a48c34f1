"""How long the parts of a person usually are, and how tall the person stands in the picture."""

from __future__ import annotations

import numpy as np

from ..keypoints import MotionTrack
from ..limbs import LEFT_HIP, NOSE, PARENTS, RIGHT_HIP, TRUNK, WRISTS, bone_lengths, with_trunk
from .points import PARTS, join_points

_HANDS = (range(20, 41), range(41, 62))  # left, right
_FACE = range(PARTS["face"].start, PARTS["face"].stop)

# Lengths of bones in body heights, by the joints that they end in, right and left: limbs by Drillis & Contini (1966),
# as in Winter's Biomechanics and Motor Control of Human Movement, figure 4.1; those of head, hands and feet, which the
# figure has between other points, are generous.
_TRUNK, _HALF_HIPS = 0.818 - 0.530, 0.191 / 2
_BONES = {
    **{2: 0.129, 3: 0.186, 4: 0.146, 5: 0.129, 6: 0.186, 7: 0.146},  # shoulders, upper arms, forearms
    **{8: float(np.hypot(_TRUNK, _HALF_HIPS)), 9: 0.245, 10: 0.246},  # from between the shoulders, thigh, shin
    **{11: float(np.hypot(_TRUNK, _HALF_HIPS)), 12: 0.245, 13: 0.246},
}
_ENDS = {NOSE: 0.936 - 0.818, **dict.fromkeys(range(14, 18), 0.1), 18: 0.152, 19: 0.152}
_HAND_POINT, _FACE_POINT = 0.108, 0.1

EDGES = np.array(
    [
        *((int(PARENTS[joint]), joint) for joint in (*_BONES, *_ENDS)),
        *((NOSE, point) for point in _FACE),
        *((wrist, point) for wrist, hand in zip(WRISTS, _HANDS, strict=True) for point in hand),
    ]
)
"""Parent and child of everything but the neck, e 2, as numbers of `points`; parents come before their children."""

LENGTHS = np.array([*_BONES.values(), *_ENDS.values(), *[_FACE_POINT] * len(_FACE), *[_HAND_POINT] * 42])
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


def usual_bone_lengths(track: MotionTrack) -> np.ndarray:
    """The median length of a person's bones over all frames, 21, pixels, above 0; see `limbs.with_trunk`.

    A bone that is never to be seen, or has no length, is as long as a person of this height has it; the neck's is 1.
    """
    usual = np.ones(TRUNK + 1)
    usual[[*_BONES, *_ENDS]] = [*_BONES.values(), *_ENDS.values()]
    usual[[RIGHT_HIP, LEFT_HIP, TRUNK]] = _HALF_HIPS, _HALF_HIPS, _TRUNK
    usual *= body_height(track)
    lengths = bone_lengths(with_trunk(track.body * (track.width, track.height)))  # f 21
    seen = np.isfinite(lengths).any(0)
    usual[seen] = np.where((medians := np.nanmedian(lengths[:, seen], 0)) > 0, medians, usual[seen])
    return usual
