"""Another person's build: limbs made longer or shorter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...errors import InputError
from ..keypoints import MotionTrack
from ..limbs import NECK, NOSE
from .checks import check_number
from .points import is_present, join_points, split_points
from .skeleton import EDGES, FACE, LEFT_HAND, RIGHT_HAND

_HIPS = 130  # one more point: the middle of the hips, by which the trunk's length is told from the hips' width


def _limbs() -> dict[str, tuple[int, ...]]:
    """Of each name, the points whose distance from the one that they hang on is scaled."""
    sides = {  # right, left
        "shoulder": ((2,), (5,)),
        "arm": ((3, 4), (6, 7)),
        "upper arm": ((3,), (6,)),
        "forearm": ((4,), (7,)),
        "hand": (tuple(RIGHT_HAND[1:]), tuple(LEFT_HAND[1:])),
        "leg": ((9, 10), (12, 13)),
        "thigh": ((9,), (12,)),
        "shin": ((10,), (13,)),
        "foot": ((19,), (18,)),
    }
    limbs = {"torso": (_HIPS,), "hips": (8, 11), "neck": (NOSE,), "head": (*range(14, 18), *FACE)}
    for name, (right, left) in sides.items():
        limbs["feet" if name == "foot" else f"{name}s"] = right + left
        limbs[f"right {name}"], limbs[f"left {name}"] = right, left
    return limbs


LIMBS = _limbs()
"""Limbs that `scale_limbs` knows, both sides together and each by itself."""

_PARENTS = {
    **{int(child): int(parent) for parent, child in EDGES},
    **{_HIPS: NECK, 8: _HIPS, 11: _HIPS},
    **{point: hand[0] for hand in (LEFT_HAND, RIGHT_HAND) for point in hand[1:]},  # not of the wrist: hands keep shape
}
_ORDER = (_HIPS, *(int(child) for child in EDGES[:, 1]))  # parents first


def scale_limbs(track: MotionTrack, factors: Mapping[str, float]) -> MotionTrack:
    """Make limbs longer or shorter; all that hangs on them moves along, and the neck stays in its place.

    A joint whose neighbour towards the trunk is absent moves as that one's neighbour does.

    Args:
        track: The motion.
        factors: Factor, 0.1 to 10, by the name of a limb, see `LIMBS`: "forearms", "left thigh", "torso" (neck to the
            middle of the hips), "hips" (their width), "neck" (to the nose), "head" (the face about the nose) …
            Factors of a limb that is named in several ways are multiplied.

    Raises:
        InputError: An unknown limb, or a factor out of range.
    """
    scale = np.ones(_HIPS + 1)  # 131
    for name, factor in factors.items():
        if name not in LIMBS:
            raise InputError(f"There is no limb {name!r}: choose from {', '.join(LIMBS)}")
        scale[list(LIMBS[name])] *= check_number(name, factor, 0.1, 10)
    points = join_points(track)  # f 130 2
    hips = points[:, [8, 11]]  # f 2 2
    hips = np.where(is_present(hips)[..., None], hips, hips[:, ::-1])  # one hip alone is the middle
    nodes = np.concatenate([points, hips.mean(1, keepdims=True)], 1)  # f 131 2
    moved = np.zeros_like(nodes)  # f 131 2; by how much
    for child in _ORDER:
        parent = _PARENTS[child]
        bone = nodes[:, child] - nodes[:, parent]  # f 2
        moved[:, child] = moved[:, parent] + np.where(np.isfinite(bone), (scale[child] - 1) * bone, 0.0)
    return split_points(track, points + moved[:, :_HIPS])
