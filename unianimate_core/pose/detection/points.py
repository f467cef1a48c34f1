"""The keypoint network (DWPose, arXiv 2307.15880): what it sees, and points from what it answers."""

from __future__ import annotations

import numpy as np

from ...optional import OPENCV, require
from ..wire_format import PRESENT_SCORE

POINTS = 133
"""Points that the network answers with: those of COCO-WholeBody."""

_PADDING = 1.25

# In the networks' order of channels, blue first; the numbers are those of red first, and so it was trained.
_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)
_NORMALISED = (np.arange(256, dtype=np.float32) - _MEAN[:, None]) * (1 / _DEVIATION[:, None])  # 3 256, by pixel value

_SHOULDERS, _NECK = [5, 6], 17
# Rows of OpenPose's body, and which of COCO's (the neck in among them) they are.
_OPENPOSE = [1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17]
_COCO = [17, 6, 8, 10, 7, 9, 12, 14, 16, 13, 15, 2, 1, 4, 3]


def frame_people(boxes: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Widen boxes to what the network sees of each person: with some room, in its aspect.

    Args:
        boxes: n 4: left, top, right, bottom.
        height: Of the network's input.
        width: The same.

    Returns:
        Centres and sizes (x, y), each float32 n 2.
    """
    boxes = boxes.astype(np.float32)
    centres = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)
    wide, high = np.maximum((boxes[:, 2:] - boxes[:, :2]) * np.float32(_PADDING), np.float32(1e-3)).T
    aspect = np.float32(width / height)
    by_width = wide > high * aspect
    sizes = np.stack([np.where(by_width, wide, high * aspect), np.where(by_width, wide / aspect, high)], 1)
    return centres, sizes


def crop_person(picture: np.ndarray, centre: np.ndarray, size: np.ndarray, out: np.ndarray) -> None:
    """Cut one person out of a picture, black beyond its edges, and normalise.

    Args:
        picture: uint8 H W 3, RGB.
        centre: Of what is cut out, x and y.
        size: The same.
        out: Where it goes: float32 3 h w, BGR.
    """
    cv2 = require("cv2", OPENCV)
    height, width = out.shape[1:]
    # The third point from the rounded first two, as the public code does: where two places score nearly the same, the
    # last bit of the transform decides between them.
    top = centre - np.array([0, size[0] / 2], np.float32)
    source = np.stack([centre, top, top - (centre - top)[1] * np.array([1, 0], np.float32)])  # 3 2
    middle = np.array([width, height], np.float32) / 2
    target = middle - np.array([(0, 0), (0, middle[0]), (middle[0], middle[0])], np.float32)  # 3 2
    transform = cv2.getAffineTransform(source, target)
    person = cv2.warpAffine(picture, transform, (width, height), flags=cv2.INTER_LINEAR)
    for channel, plane in enumerate(reversed(cv2.split(person))):
        out[channel] = cv2.LUT(plane, _NORMALISED[channel])


def find_best(columns: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the best place of each point in the network's answer.

    Args:
        columns: Scores of each place from left to right, n 133 x.
        rows: The same from top to bottom, n 133 y.

    Returns:
        Points as fractions of what the network saw, float64 n 133 2, and their scores, float64 n 133.
    """
    best = np.stack([columns.argmax(-1), rows.argmax(-1)], -1)  # n 133 2
    highest = [np.take_along_axis(s, best[..., [i]], -1)[..., 0] for i, s in enumerate((columns, rows))]
    scores = np.minimum(*highest).astype(np.float64)  # n 133
    best[scores <= 0] = -1
    return best / (columns.shape[-1], rows.shape[-1]), scores


def place_points(
    points: np.ndarray, scores: np.ndarray, centres: np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Place the points in the picture, in OpenPose order.

    Args:
        points: Of `find_best`, n 133 2.
        scores: The same, n 133.
        centres: Of what the network saw, n 2.
        sizes: The same.

    Returns:
        Points in the picture's pixels, float64 n 134 2, and their scores, float64 n 134.
    """
    sizes, centres = sizes[:, None].astype(np.float64), centres[:, None].astype(np.float64)
    return _openpose_order(points * sizes + centres - sizes / 2, scores)


def _openpose_order(points: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Insert the neck, middle of the shoulders, and put the body's points in OpenPose order: n 134 2, n 134."""
    neck = points[:, _SHOULDERS].mean(1)
    neck_score = (scores[:, _SHOULDERS] > PRESENT_SCORE).all(1)
    points, scores = np.insert(points, _NECK, neck, 1), np.insert(scores, _NECK, neck_score, 1)
    points[:, _OPENPOSE], scores[:, _OPENPOSE] = points[:, _COCO], scores[:, _COCO]
    return points, scores
