"""Another person's build: limbs made longer or shorter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from ...errors import InputError
from ..checks import check_number
from ..keypoints import MotionTrack
from ..limbs import LEFT_HIP, NOSE, RIGHT_HIP, TRUNK, scale_bones
from .skeleton import usual_bone_lengths

# Of the 24 factors: of each joint's bone, left and right hand, face.
_BONE_FACTORS, _HAND_FACTORS, _FACE_FACTOR = slice(0, 21), [21, 22], 23


def _limbs() -> dict[str, tuple[int, ...]]:
    """Of each name, the factors that it stands for."""
    sides = {  # right, left
        "shoulder": ((2,), (5,)),
        "arm": ((3, 4), (6, 7)),
        "upper arm": ((3,), (6,)),
        "forearm": ((4,), (7,)),
        "hand": ((_HAND_FACTORS[1],), (_HAND_FACTORS[0],)),
        "leg": ((9, 10), (12, 13)),
        "thigh": ((9,), (12,)),
        "shin": ((10,), (13,)),
        "foot": ((19,), (18,)),
    }
    limbs = {"torso": (TRUNK,), "hips": (RIGHT_HIP, LEFT_HIP), "neck": (NOSE,), "head": (*range(14, 18), _FACE_FACTOR)}
    for name, (right, left) in sides.items():
        limbs["feet" if name == "foot" else f"{name}s"] = right + left
        limbs[f"right {name}"], limbs[f"left {name}"] = right, left
    return limbs


LIMBS = _limbs()
"""Limbs that `scale_limbs` knows, both sides together and each by itself."""


def scale_limbs(track: MotionTrack, factors: Mapping[str, float]) -> MotionTrack:
    """Make limbs longer or shorter; all that hangs on them moves along, and the neck stays in its place.

    Within a limb an absent joint is passed over, see `limbs.scale_bones`: without an elbow, the way from the shoulder
    to the wrist gets longer by the factors of upper arm and forearm.

    Args:
        track: The motion.
        factors: Factor, 0.1 to 10, by the name of a limb, see `LIMBS`: "forearms", "left thigh", "torso" (neck to the
            middle of the hips), "hips" (their width), "neck" (to the nose), "head" (the face about the nose) …
            Factors of a limb that is named in several ways are multiplied.

    Raises:
        InputError: An unknown limb, or a factor out of range.
    """
    scale = np.ones(24)
    for name, factor in factors.items():
        if name not in LIMBS:
            raise InputError(f"There is no limb {name!r}: choose from {', '.join(LIMBS)}")
        scale[list(LIMBS[name])] *= check_number(name, factor, 0.1, 10)
    lengths = usual_bone_lengths(track)
    body, hands, face = scale_bones(
        track.body, track.hands, track.face, scale[_BONE_FACTORS], lengths, scale[_FACE_FACTOR]
    )
    growth = (scale[_HAND_FACTORS, None, None] - 1) * (hands - hands[:, :, :1])  # f 2 21 2, about the hand's own root
    return replace(track, body=body, hands=hands + np.where(np.isfinite(growth), growth, 0), face=face)
