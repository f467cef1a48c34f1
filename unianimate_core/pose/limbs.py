"""The body's bones: what hangs on what, how long they are, and what moves along when their length changes."""

import numpy as np

NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER, RIGHT_HIP, LEFT_HIP = 0, 1, 2, 5, 8, 11
WRISTS = (7, 4)  # of the left, then the right hand, as hands are stored
_NOSE_TIP = 30  # among the 68 points of a face

# The joint that each joint hangs on, by joint; the neck hangs on nothing.
PARENTS = np.array([1, 1, 1, 2, 3, 1, 5, 6, 1, 8, 9, 1, 11, 12, 0, 0, 14, 15, 13, 10])
# The same joint of the other side, by joint.
MIRRORED = np.array([0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16, 19, 18])
# One joint more, where the trunk's length is told from the hips' width: it ends in the middle of the hips.
TRUNK = 20
TRUNK_PARENTS = np.append(PARENTS, NECK)
TRUNK_PARENTS[[RIGHT_HIP, LEFT_HIP]] = TRUNK


def _levels(parents: np.ndarray) -> list[np.ndarray]:
    """The joints but the neck in groups: those that hang on the neck, those that hang on these, and so on."""
    levels, found = [], {NECK}
    while len(found) < len(parents):
        level = [joint for joint, parent in enumerate(parents) if joint not in found and parent in found]
        levels.append(np.array(level))
        found.update(level)
    return levels


_OUTWARDS = {len(parents): _levels(parents) for parents in (PARENTS, TRUNK_PARENTS)}


def bone_lengths(body: np.ndarray) -> np.ndarray:
    """Return the length of each joint's bone, from its parent to it.

    Args:
        body: Joints, shape (..., 20, 2), or (..., 21, 2) as `with_trunk` gives them.

    Returns:
        Lengths in the joints' unit, shape (..., 20) or (..., 21); NaN where an end is absent, and for the neck.
    """
    lengths = np.linalg.norm(body - body[..., _parents(body.shape[-2]), :], axis=-1)  # … 20
    lengths[..., NECK] = np.nan
    return lengths


def torso_length(body: np.ndarray) -> np.ndarray:
    """Return the distance from the neck, or middle of the shoulders, to the middle of the hips (...), NaN if absent."""
    shoulders, hips = (body[..., list(pair), :].mean(-2) for pair in ((2, 5), (8, 11)))  # … 2
    neck = body[..., NECK, :]
    neck = np.where(np.isfinite(neck), neck, shoulders)
    return np.linalg.norm(neck - hips, axis=-1)


def with_trunk(body: np.ndarray) -> np.ndarray:
    """Joints (f 20 2) with one more, the middle of the hips or the only one of them: f 21 2."""
    return np.concatenate([body, _either(body[:, RIGHT_HIP], body[:, LEFT_HIP])[:, None]], 1)


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
        ratios: New length over old, for the bone that ends in each joint, shape (20,): the hips hang on the neck, as
            the paper has it. Or shape (21,), that of the trunk last: it ends in the middle of the hips, and they hang
            on that.
        lengths: A weight of each bone, of the same shape, positive.
        face_ratio: What the face is scaled with about the nose that it follows; None leaves the face where it is.

    Returns:
        New body, hands and face; absent points stay absent.
    """
    joints = body.copy()  # f 20 2
    _stand_in(joints, NECK, _either(joints[:, RIGHT_SHOULDER], joints[:, LEFT_SHOULDER]))
    _stand_in(joints, NOSE, face[:, _NOSE_TIP])
    for side, wrist in enumerate(WRISTS):
        _stand_in(joints, wrist, hands[:, side, 0])
    if len(ratios) > TRUNK:
        joints = with_trunk(joints)  # f 21 2
    present = np.isfinite(joints).all(-1)  # f n
    parents = _parents(len(ratios))

    # By joint: the last present one from the neck to it, how far that one moves, and the length between, new and old.
    anchors, shifts = joints.copy(), np.zeros_like(joints)  # f n 2
    new, old = np.zeros(present.shape), np.zeros(present.shape)  # f n
    for ends in _OUTWARDS[len(ratios)]:
        starts = parents[ends]
        new[:, ends] = new[:, starts] + ratios[ends] * lengths[ends]
        old[:, ends] = old[:, starts] + lengths[ends]
        growth = (new[:, ends] / old[:, ends] - 1)[..., None] * (joints[:, ends] - anchors[:, starts])  # f e 2
        shifts[:, ends] = shifts[:, starts] + np.where(np.isfinite(growth), growth, 0)
        here = present[:, ends]  # f e
        anchors[:, ends] = np.where(here[..., None], joints[:, ends], anchors[:, starts])
        new[:, ends], old[:, ends] = (np.where(here, 0, length[:, ends]) for length in (new, old))

    hands = hands + shifts[:, WRISTS, None]
    if face_ratio is not None:
        growth = (face_ratio - 1) * (face - joints[:, None, NOSE])
        face = face + shifts[:, None, NOSE] + np.where(np.isfinite(growth), growth, 0)
    return body + shifts[:, : body.shape[1]], hands, face


def _parents(joints: int) -> np.ndarray:
    return TRUNK_PARENTS if joints > TRUNK else PARENTS


def _stand_in(joints: np.ndarray, joint: int, points: np.ndarray) -> None:
    """Put points (f 2) in the place of a joint (of f 20 2) where it is absent."""
    joints[:, joint] = np.where(np.isnan(joints[:, joint]), points, joints[:, joint])


def _either(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The middle of two points (f 2), or the only one of them that is present."""
    return (np.where(np.isnan(a), b, a) + np.where(np.isnan(b), a, b)) / 2
