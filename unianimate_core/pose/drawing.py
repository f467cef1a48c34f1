"""Pose pictures: a motion drawn as the coloured skeletons that the weights were trained on."""

import colorsys
import logging
import math
from collections.abc import Iterator, Sequence

import numpy as np

from ..errors import InputError
from ..optional import OPENCV, require
from .keypoints import MotionTrack

logger = logging.getLogger(__name__)

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
FACE_COLOUR = (255, 255, 255)

_REFERENCE_SIDE = 512  # the shorter side at which a disc's radius is 4 pixels
_FARTHEST = 64.0  # in canvases; keeps OpenCV's whole-number arithmetic far from overflow


def draw_motion(
    track: MotionTrack | Sequence[MotionTrack],
    width: int,
    height: int,
    *,
    hands: bool = True,
    face: bool = False,
    line_width: float = 1.0,
) -> np.ndarray:
    """Draw every frame of a motion, of one person or of several.

    Joints are discs, limbs ellipses and fingers lines. Widths and radii grow with the shorter side, and are those of
    the training pictures where it is 512 pixels and `line_width` is 1. Several people share the picture as in
    OpenPose's drawings: limb by limb, each of everybody; then joint by joint; then left hands, right hands and faces.
    So no body covers another.

    Args:
        track: The motion; absent joints, and limbs that end in one, are left out. Of several people, a track each, all
            of one length; each is stretched from its own canvas to the pictures.
        width: Width of the pictures, in pixels. Need not be the track's own.
        height: Height of the pictures, in pixels.
        hands: Whether to draw them, as the training pictures do.
        face: Whether to draw its points, as white discs. The public weights never saw any: only for others, or to look
            at.
        line_width: Factor on all widths and radii, 0.1 to 10; no line gets thinner than a pixel.

    Returns:
        Pictures, uint8 (frames, height, width, 3), RGB on black.

    Raises:
        InputError: A size is not a positive whole number, line_width is out of range, the tracks are none, of several
            lengths or something else, or OpenCV is not installed.
    """
    painter = _Painter(track, width, height, hands, face, line_width)
    pictures = np.zeros((painter.frames, height, width, 3), np.uint8)  # f H W 3
    for index, picture in enumerate(pictures):
        painter.draw(picture, index)
    return pictures


def draw_frames(
    track: MotionTrack | Sequence[MotionTrack],
    width: int,
    height: int,
    *,
    hands: bool = True,
    face: bool = False,
    line_width: float = 1.0,
) -> Iterator[np.ndarray]:
    """Draw a motion one picture at a time, so that a long one need not be held in memory.

    Args:
        track: As `draw_motion`, and so are the others.
        width: Width of the pictures, in pixels.
        height: Height of the pictures, in pixels.
        hands: Whether to draw them.
        face: Whether to draw its points.
        line_width: Factor on all widths and radii.

    Returns:
        An iterator over the pictures of `draw_motion`: uint8 (height, width, 3), RGB, each an array of its own.

    Raises:
        InputError: As `draw_motion`, at once.
    """
    painter = _Painter(track, width, height, hands, face, line_width)
    return (painter.draw(np.zeros((height, width, 3), np.uint8), index) for index in range(painter.frames))


class _Painter:
    """What is to be drawn, checked and in pixels; see `draw_motion`."""

    def __init__(
        self,
        track: MotionTrack | Sequence[MotionTrack],
        width: int,
        height: int,
        hands: bool,
        face: bool,
        line_width: float,
    ) -> None:
        self._cv2 = require("cv2", OPENCV)
        _check_size(width, height)
        if not (math.isfinite(line_width) and 0.1 <= line_width <= 10):
            raise InputError(f"The line width is {line_width!r}; give a factor from 0.1 to 10.")
        tracks = _check_tracks(track)
        if face:
            logger.warning("the face is drawn: the public weights never saw one, and may make worse videos from it")
        self.frames = len(tracks[0])
        scale = min(width, height) / _REFERENCE_SIDE * line_width
        self._radius, self._face_radius, self._thickness = (max(1, int(size * scale + 0.5)) for size in (4, 3, 2))

        def pixels(part: str) -> np.ndarray:
            points = np.stack([getattr(track, part) for track in tracks])  # p f … 2
            return np.clip(points, -_FARTHEST, _FARTHEST) * np.array((width, height), np.float64)

        self._body = pixels("body")  # p f 20 2
        self._hands = pixels("hands") if hands else None  # p f 2 21 2
        self._face = pixels("face") if face else None  # p f 68 2

    def draw(self, picture: np.ndarray, index: int) -> np.ndarray:
        """Draw a frame into a black picture (H W 3), and return it."""
        bodies = self._body[:, index]  # p 20 2
        self._draw_limbs(picture, bodies)
        for joint, colour in enumerate(JOINT_COLOURS):
            self._draw_discs(picture, bodies[:, joint], colour, self._radius)
        if self._hands is not None:
            for hand in self._hands[:, index].swapaxes(0, 1).reshape(-1, 21, 2):  # left ones, then right ones
                self._draw_hand(picture, hand)
        if self._face is not None:
            self._draw_discs(picture, self._face[:, index].reshape(-1, 2), FACE_COLOUR, self._face_radius)
        return picture

    def _draw_limbs(self, picture: np.ndarray, bodies: np.ndarray) -> None:
        start, end = bodies[:, LIMBS[:, 0]], bodies[:, LIMBS[:, 1]]  # p 19 2
        x, y = np.moveaxis(start - end, -1, 0)  # p 19
        centre, angle = (start + end) / 2, np.degrees(np.arctan2(y, x))
        shape = np.concatenate([centre, np.stack([np.hypot(x, y) / 2, angle], -1)], -1)  # p 19 4
        present = np.isfinite(shape).all(-1)  # p 19
        whole = np.where(present[..., None], shape, 0).astype(int)  # truncated towards zero
        for limb, colour in enumerate(LIMB_COLOURS):
            for centre_x, centre_y, half_length, angle in whole[present[:, limb], limb].tolist():
                axes = (half_length, self._radius)
                outline = self._cv2.ellipse2Poly((centre_x, centre_y), axes, angle, 0, 360, 1)
                self._cv2.fillConvexPoly(picture, outline, colour)

    def _draw_hand(self, picture: np.ndarray, hand: np.ndarray) -> None:
        present = np.isfinite(hand).all(-1)  # 21
        ends = np.where(present[:, None], hand, 0).astype(int).tolist()
        for (a, b), colour in zip(HAND_EDGES, HAND_EDGE_COLOURS, strict=True):
            if present[a] and present[b]:
                self._cv2.line(picture, ends[a], ends[b], colour, self._thickness)
        self._draw_discs(picture, hand, HAND_JOINT_COLOUR, self._radius)

    def _draw_discs(self, picture: np.ndarray, points: np.ndarray, colour: tuple[int, int, int], radius: int) -> None:
        for centre in points[np.isfinite(points).all(-1)].astype(int).tolist():
            self._cv2.circle(picture, centre, radius, colour, -1)


def _check_size(width: int, height: int) -> None:
    for name, side in (("width", width), ("height", height)):
        if not isinstance(side, (int, np.integer)) or side < 1:
            raise InputError(f"The {name} to draw at is {side!r}; give a whole number of pixels, 1 or more.")


def _check_tracks(track: MotionTrack | Sequence[MotionTrack]) -> list[MotionTrack]:
    tracks = [track] if isinstance(track, MotionTrack) else list(track)
    strange = [type(one).__name__ for one in tracks if not isinstance(one, MotionTrack)]
    if strange or not tracks:
        found = strange[0] if strange else "nothing"
        raise InputError(f"There is {found} to draw; give a MotionTrack, or a list of them for several people.")
    lengths = [len(one) for one in tracks]
    if len(set(lengths)) > 1:
        raise InputError(f"The people's motions have {', '.join(map(str, lengths))} frames; give all as many.")
    return tracks
