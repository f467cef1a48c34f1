"""The body's bones: how long they are, and what moves along when their length changes."""

import numpy as np

NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_HIP, LEFT_HIP = 0, 1, 2, 5, 8, 11
WRISTS = (7, 4)  # of the left, then the right hand, as hands are stored
_NOSE_TIP = 30  # among the 68 points of a face

# The joint that each joint hangs on, by joint; the neck hangs on nothing.
PARENTS = np.array([1, 1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15, 13, 10])
# The same joint of the other side, by joint.
MIRRORED = np.array([0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16, 19, 18])
_OUTWARDS = ([0, 2, 5, 8, 11], [3, 6, 9, 12, 14, 15], [4, 7, 10, 13, 16, 17], [18, 19])


def bone_lengths(body: np.ndarray) -> np.ndarray:
    """Return the length of each joint's bone, from its parent to it.

    Args:
        body: Joints, shape (..., 20, 2).

    Returns:
        Lengths in the joints' unit, shape (..., 20); NaN where an end is absent, and for the neck.
    """
    lengths = np.linalg.norm(body - body[..., PARENTS, :], axis=-1)  # … 20
    lengths[..., NECK] = np.nan
    return lengths


def torso_length(body: np.ndarray) -> np.ndarray:
    """Return the distance from the neck, or middle of the shoulders, to the middle of the hips (...), NaN if absent."""
    shoulders, hips = (body[..., list(pair), :].mean(-2) for pair in ((2, 5), (8, 11)))  # … 2
    neck = body[..., NECK, :]
    neck = np.where(np.isfinite(neck), neck, shoulders)
    return np.linalg.norm(neck - hips, axis=-1)


def scale_bones(
    body: np.ndarray,
    hands: np.ndarray,
    face: np.ndarray,
    ratios: np.ndarray,
    lengths: np.ndarray,
    face_ratio: float | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Multiply the length of bones, and move all that hangs on them along, hands and face too. Angles stay.

    Where a joint within a limb is absent, the distance from the last one before it is scaled, by the mean of the ratios
    of the bones between, each weighted with its length. A limb of which no joint nearer to the neck is present stays
    where it is. What stands in for an absent joint: for the neck the middle of the shoulders, or the only one of them;
    for a wrist the root of its hand; for the nose the face's tip of the nose.

    Args:
        body: Joints, shape (frames, 20, 2), in a unit that is the same along both axes or, as the paper has it, not.
        hands: Shape (frames, 2, 21, 2); they follow their wrists.
        face: Shape (frames, 68, 2).
        ratios: New length over old, for the bone that ends in each joint, shape (20,).
        lengths: A weight of each bone, shape (20,), positive.
        face_ratio: What the face is scaled with about the nose that it follows; None leaves the face where it is.

    Returns:
        New body, hands and face; absent points stay absent.
    """
    joints = body.copy()  # f 20 2
    _stand_in(joints, NECK, _either(joints[:, RIGHT_SHOULDER], joints[:, LEFT_SHOULDER]))
    _stand_in(joints, NOSE, face[:, _NOSE_TIP])
    for side, wrist in enumerate(WRISTS):
        _stand_in(joints, wrist, hands[:, side, 0])
    present = np.isfinite(joints).all(-1)  # f 20

    # By joint: the last present one from the neck to it, how far that one moves, and the length between, new and old.
    anchors, shifts = joints.copy(), np.zeros_like(joints)  # f 20 2
    new, old = np.zeros(present.shape), np.zeros(present.shape)  # f 20
    for ends in _OUTWARDS:
        starts = PARENTS[ends]
        new[:, ends] = new[:, starts] + ratios[ends] * lengths[ends]
        old[:, ends] = old[:, starts] + lengths[ends]
        growth = (new[:, ends] / old[:, ends] - 1)[..., None] * (joints[:, ends] - anchors[:, starts])  # f n 2
        shifts[:, ends] = shifts[:, starts] + np.where(np.isfinite(growth), growth, 0)
        here = present[:, ends]  # f n
        anchors[:, ends] = np.where(here[..., None], joints[:, ends], anchors[:, starts])
        new[:, ends], old[:, ends] = (np.where(here, 0, length[:, ends]) for length in (new, old))

    hands = hands + shifts[:, WRISTS, None]
    if face_ratio is not None:
        growth = (face_ratio - 1) * (face - joints[:, None, NOSE])
        face = face + shifts[:, None, NOSE] + np.where(np.isfinite(growth), growth, 0)
    return body + shifts, hands, face


def _stand_in(joints: np.ndarray, joint: int, points: np.ndarray) -> None:
    """Put points (f 2) in the place of a joint (of f 20 2) where it is absent."""
    joints[:, joint] = np.where(np.isnan(joints[:, joint]), points, joints[:, joint])


def _either(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The middle of two points (f 2), or the only one of them that is present."""
    return (np.where(np.isnan(a), b, a) + np.where(np.isnan(b), a, b)) / 2
