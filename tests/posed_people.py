"""A person of known bones, motions of theirs, and the paper's alignment written out: for the tests of alignment."""

from pathlib import Path

import numpy as np

from unianimate_core.pose import MotionTrack
from unianimate_core.pose.alignment import MODES

GOLDEN = np.load(Path(__file__).parent / "golden_data" / "pose_alignment.npz")
DANCE = Path(__file__).parents[1] / "samples" / "dance.json"
PARTS = ("body", "hands", "face")
SIZE = (512, 768)
NEARER = [mode for mode in MODES if mode != "none"]

# The paper's bones in its order, with the body joints and the hand (0 left, 1 right) that move along.
PAPER_BONES = (
    *((1, 0, (14, 15, 16, 17), None), (1, 2, (3, 4), 1), (1, 5, (6, 7), 0), (2, 3, (4,), 1), (3, 4, (), 1)),
    *((5, 6, (7,), 0), (6, 7, (), 0), (0, 14, (16,), None), (0, 15, (17,), None), (14, 16, (), None)),
    *(
        (15, 17, (), None),
        (8, 9, (10, 19), None),
        (9, 10, (19,), None),
        (11, 12, (13, 18), None),
        (12, 13, (18,), None),
    ),
)
# Mirrored joints, and a person in pixels of a 512 x 768 canvas, who is the same on both sides.
MIRROR = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16, 19, 18]
X = [0, 0, -50, -75, -100, 50, 75, 100, -30, -30, -30, 30, 30, 30, -10, 10, -20, 20, 40, -40]
Y = [75, 150, 150, 265, 380, 150, 265, 380, 400, 540, 690, 400, 540, 690, 62, 62, 70, 70, 720, 720]
PERSON = np.column_stack([np.add(X, 256), Y]).astype(float)


def golden_track(name="driving"):
    arrays = [GOLDEN[f"{name}.{part}"] for part in PARTS]
    frames = arrays if name != "reference" else [array[None] for array in arrays]
    return MotionTrack(*frames, width=512, height=768)


def track(*bodies, size=SIZE, **fields):
    """A track of bodies in pixels."""
    return MotionTrack(np.stack(bodies) / size, width=size[0], height=size[1], **fields)


def pixels(motion, part="body"):
    return getattr(motion, part) * (motion.width, motion.height)


def length(body, a, b):
    return np.linalg.norm(body[..., a, :] - body[..., b, :], axis=-1)


def stretched(body, factors):
    """A body with some bones longer: {(parent, child): factor}."""
    body = body.copy()
    for parent, child, rest, _ in PAPER_BONES:
        if (parent, child) in factors:
            way = (factors[parent, child] - 1) * (body[child] - body[parent])
            for joint in (child, *rest):
                body[joint] += way
    return body


def turning(body, frames=9):
    """A motion whose bones keep their lengths: after the first frame every limb turns at its root, by any angle.

    The shoulders turn together: the neck stays in their middle.
    """
    random = np.random.default_rng(3)
    motion = [body]
    for _ in range(frames - 1):
        turned = body.copy()
        for parent, child, rest, _ in PAPER_BONES:
            if (parent, child) != (1, 5):
                angle = random.uniform(-1, 1)
            matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            for joint in (child, *rest):
                turned[joint] = turned[parent] + matrix @ (turned[joint] - turned[parent])
        motion.append(turned)
    return motion


def without(body, *joints):
    body = body.copy()
    body[..., list(joints), :] = np.nan
    return body


def random_person(seed, frames=1):
    """A complete person with hands and a face, no two of whose bones have the same length."""
    random = np.random.default_rng(seed)
    body = PERSON / SIZE + random.normal(0, 0.02, (frames, 20, 2))
    wrists = body[:, [7, 4], None]
    hands = wrists + random.normal(0, 0.02, (frames, 2, 21, 2))
    face = body[:, None, 0] + random.normal(0, 0.02, (frames, 68, 2))
    return MotionTrack(body, hands, face, width=512, height=768)


def as_in_paper(driving, reference):
    """The paper's algorithm for complete skeletons, bone after bone: spec/pose.md, written out."""
    target = reference.body[0]
    body, hands, face = driving.body.copy(), driving.hands.copy(), driving.face.copy()
    first = body[0]
    ratio_x = (target[5, 0] - target[2, 0]) / (first[5, 0] - first[2, 0])
    heights = [(p[8, 1] + p[11, 1]) / 2 - (p[2, 1] + p[5, 1]) / 2 for p in (target, first)]
    for points in (body, hands, face):
        points *= (ratio_x, heights[0] / heights[1])
    ratios = [length(target, a, b) / length(body[0], a, b) for a, b, _, _ in PAPER_BONES]
    for ratio, (parent, child, rest, hand) in zip(ratios, PAPER_BONES, strict=True):
        way = (ratio - 1) * (body[:, child] - body[:, parent])
        body[:, [child, *rest]] += way[:, None]
        if hand is not None:
            hands[:, hand] += way[:, None]
    way = target[1] - body[0, 1]
    return body + way, hands + way, face + way


def same(a, b, atol=1e-9):
    for part in PARTS:
        np.testing.assert_allclose(getattr(a, part), getattr(b, part), rtol=0, atol=atol)
