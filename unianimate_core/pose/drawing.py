"""Pose pictures: a motion drawn as the coloured skeletons that the weights were trained on."""

import colorsys
from collections.abc import Iterator

import numpy as np

from ..errors import InputError
from ..optional import require
from .keypoints import MotionTrack

# Limbs as pairs of body joints, in drawing order: later ones cover earlier ones.
LIMBS = np.array(
    [
        *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
        *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17), (13, 18), (10, 19)),
    ]
)
# From the wrist (0) along each finger; finger k has the points 4k + 1 … 4k + 4.
HAND_EDGES = np.array([(0 if n == 0 else a + n - 1, a + n) for a in (1, 5, 9, 13, 17) for n in range(4)])

_OPENPOSE_COLOURS = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0)),
    *((0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255)),
    *((170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85), (170, 255, 255), (255, 255, 0)),
)
# The pictures trained on have red and blue exchanged, so every colour is read backwards.
JOINT_COLOURS = [colour[::-1] for colour in _OPENPOSE_COLOURS]
# Limbs are darkened to 0.6, exactly as if the whole canvas were: nothing but limbs is on it at that moment.
LIMB_COLOURS = [tuple(channel * 3 // 5 for channel in colour) for colour in JOINT_COLOURS[:19]]
# round() takes halves to even, as OpenCV does with colours that are not whole.
HAND_EDGE_COLOURS = [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(e / 20, 1, 1)[::-1]) for e in range(20)]
HAND_JOINT_COLOUR = (255, 0, 0)

_REFERENCE_SIDE = 512  # the shorter side at which a disc's radius is 4 pixels
_FARTHEST = 64.0  # in canvases; keeps OpenCV's whole-number arithmetic far from overflow


def draw_motion(track: MotionTrack, width: int, height: int) -> np.ndarray:
    """Draw every frame of a motion.

    Joints are discs, limbs ellipses and fingers lines; the face is not drawn, as the weights never saw one. Widths and
    radii grow with the shorter side, and are those of the training pictures where it is 512 pixels.

    Args:
        track: The motion; absent joints, and limbs that end in one, are left out.
        width: Width of the pictures, in pixels. Need not be the track's own.
        height: Height of the pictures, in pixels.

    Returns:
        Pictures, uint8 (frames, height, width, 3), RGB on black.

    Raises:
        InputError: A size is not a positive whole number, or OpenCV is not installed.
    """
    cv2 = require("cv2", "the package opencv-python-headless")
    _check_size(width, height)
    pictures = np.zeros((len(track), height, width, 3), np.uint8)  # f H W 3
    for picture, body, hands in zip(pictures, track.body, track.hands, strict=True):
        _draw(cv2, picture, body, hands)
    return pictures


def draw_frames(track: MotionTrack, width: int, height: int) -> Iterator[np.ndarray]:
    """Draw a motion one picture at a time, so that a long one need not be held in memory.

    Args:
        track: The motion.
        width: Width of the pictures, in pixels.
        height: Height of the pictures, in pixels.

    Returns:
        An iterator over the pictures of `draw_motion`: uint8 (height, width, 3), RGB, each an array of its own.

    Raises:
        InputError: A size is not a positive whole number, or OpenCV is not installed.
    """
    cv2 = require("cv2", "the package opencv-python-headless")
    _check_size(width, height)
    blank = (np.zeros((height, width, 3), np.uint8) for _ in range(len(track)))  # H W 3
    return (_draw(cv2, *frame) for frame in zip(blank, track.body, track.hands, strict=True))


def _draw(cv2, picture: np.ndarray, body: np.ndarray, hands: np.ndarray) -> np.ndarray:
    """Draw one frame (body 20 2, hands 2 21 2, fractions) into a black picture (H W 3), and return it."""
    height, width = picture.shape[:2]
    scale = min(width, height) / _REFERENCE_SIDE
    radius, thickness = (max(1, int(size * scale + 0.5)) for size in (4, 2))
    size = np.array((width, height), np.float64)
    body, hands = (np.clip(points, -_FARTHEST, _FARTHEST) * size for points in (body, hands))  # pixels

    _draw_limbs(cv2, picture, body, radius)
    _draw_discs(cv2, picture, body, radius, JOINT_COLOURS)
    for hand in hands:
        present = np.isfinite(hand).all(-1)  # 21
        ends = np.where(present[:, None], hand, 0).astype(int).tolist()
        for (a, b), colour in zip(HAND_EDGES, HAND_EDGE_COLOURS, strict=True):
            if present[a] and present[b]:
                cv2.line(picture, ends[a], ends[b], colour, thickness)
        _draw_discs(cv2, picture, hand, radius, [HAND_JOINT_COLOUR] * len(hand))
    return picture


def _draw_limbs(cv2, picture: np.ndarray, body: np.ndarray, half_width: int) -> None:
    start, end = body[LIMBS[:, 0]], body[LIMBS[:, 1]]  # 19 2
    x, y = (start - end).T
    shape = np.column_stack([(start + end) / 2, np.hypot(x, y) / 2, np.degrees(np.arctan2(y, x))])  # 19 4
    for limb, colour in zip(shape, LIMB_COLOURS, strict=True):
        if np.isfinite(limb).all():
            centre_x, centre_y, half_length, angle = limb.astype(int).tolist()  # truncated towards zero
            outline = cv2.ellipse2Poly((centre_x, centre_y), (half_length, half_width), angle, 0, 360, 1)
            cv2.fillConvexPoly(picture, outline, colour)


def _draw_discs(cv2, picture: np.ndarray, points: np.ndarray, radius: int, colours: list) -> None:
    for point, colour in zip(points, colours, strict=True):
        if np.isfinite(point).all():
            cv2.circle(picture, point.astype(int).tolist(), radius, colour, -1)


def _check_size(width: int, height: int) -> None:
    for name, side in (("width", width), ("height", height)):
        if not isinstance(side, (int, np.integer)) or side < 1:
            raise InputError(f"The {name} to draw at is {side!r}; give a whole number of pixels, 1 or more.")
