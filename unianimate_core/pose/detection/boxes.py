"""The person detector (YOLOX, arXiv 2107.08430): what it sees, and boxes from what it answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...optional import OPENCV, require

STRIDES = (8, 16, 32)
GREY = 114
PERSON_SCORE = 0.3
SAME_PERSON_IOU = 0.45
_OBJECTNESS, _PERSON = 4, 5  # columns after a box's four


def count_cells(height: int, width: int) -> int:
    """Rows of the network's answer to a picture of that size."""
    return sum((height // stride) * (width // stride) for stride in STRIDES)


def letterbox(pictures: Sequence[np.ndarray], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Fit pictures into the network's input: to its top left, on grey.

    Args:
        pictures: Each uint8 H W 3, RGB; sizes may differ.
        height: Of the input.
        width: The same.

    Returns:
        The input, float32 n 3 height width, BGR, 0 … 255; and the ratio of sizes, n.
    """
    cv2 = require("cv2", OPENCV)
    boxed = np.full((len(pictures), 3, height, width), GREY, np.float32)  # n 3 h w
    ratios = np.array([min(height / picture.shape[0], width / picture.shape[1]) for picture in pictures])
    for target, picture, ratio in zip(boxed, pictures, ratios.tolist(), strict=True):
        size = [max(1, int(side * ratio)) for side in picture.shape[:2]]
        resized = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
        for channel, plane in enumerate(reversed(cv2.split(resized))):
            target[channel, : size[0], : size[1]] = plane
    return boxed, ratios


def decode_boxes(answers: np.ndarray, ratios: np.ndarray, height: int, width: int) -> list[np.ndarray]:
    """Find the boxes of the people.

    Args:
        answers: Of the network, float32 n cells 85: centre, size, objectness, scores of 80 classes (the first:
            person); cells by stride, then row by row.
        ratios: Of `letterbox`, n.
        height: Of the network's input.
        width: The same.

    Returns:
        For each picture the boxes, float32 k 4 (left, top, right, bottom, in its pixels), best first; k may be 0.
    """
    cells, strides = _grid(height, width)
    scores = answers[..., _OBJECTNESS] * answers[..., _PERSON]  # n cells
    found = []
    for answer, score, ratio in zip(answers, scores, ratios.tolist(), strict=True):
        # A box is only ever left out for a better one, so those that would go in the end need not be compared.
        rows = np.flatnonzero(score > PERSON_SCORE)
        rows = rows[np.argsort(-score[rows], kind="stable")]
        with np.errstate(over="ignore", invalid="ignore"):  # boxes as large as float32 reaches, of a broken network
            size = np.exp(answer[rows, 2:4]) * strides[rows]  # k 2
            centre = (answer[rows, :2] + cells[rows]) * strides[rows]  # k 2
            boxes = np.concatenate([centre - size / 2, centre + size / 2], 1) / np.float32(ratio)  # k 4
            found.append(_leave_out_doubles(boxes[np.isfinite(boxes).all(1)]))
    return found


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of each cell (cells 2), and its stride (cells 1), float32."""
    cells = [np.indices((height // stride, width // stride))[::-1].reshape(2, -1).T for stride in STRIDES]
    strides = [np.full((len(part), 1), stride) for part, stride in zip(cells, STRIDES, strict=True)]
    return np.concatenate(cells).astype(np.float32), np.concatenate(strides).astype(np.float32)


def _leave_out_doubles(boxes: np.ndarray) -> np.ndarray:
    """Of boxes that cover each other, keep the best; given and returned best first, k 4.

    Areas and overlaps count pixels, both edges included.
    """
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    rest, kept = np.arange(len(boxes)), []
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(best)
        corner = np.maximum(boxes[best, :2], boxes[rest, :2])
        shared = np.maximum(np.minimum(boxes[best, 2:], boxes[rest, 2:]) - corner + 1, 0).prod(1)
        rest = rest[shared / (area[best] + area[rest] - shared) <= SAME_PERSON_IOU]
    return boxes[kept]
