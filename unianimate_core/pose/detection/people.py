"""The people in a picture, and the `POSE_KEYPOINT` frame that passes them on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..wire_format import PRESENT_SCORE, complete_frames, person_lists

_BODY, _NECK, _NOSE_AND_HIPS = slice(0, 18), 1, [0, 8, 11]


class People(NamedTuple):
    """The n people found in a picture, best first; all arrays float64.

    Attributes:
        boxes: Left, top, right and bottom edge, shape (n, 4), in pixels; not clipped to the picture.
        keypoints: x and y, shape (n, 134, 2), in pixels, in OpenPose order: 18 body joints, 6 of the feet, 68 of the
            face, 21 of the left and 21 of the right hand.
        scores: Confidence of each point, shape (n, 134), mostly 0 … 1; under 0.3 a point counts as absent. The neck's
            is exactly 1 or 0.
    """

    boxes: np.ndarray
    keypoints: np.ndarray
    scores: np.ndarray

    @property
    def found(self) -> bool:
        """Whether the detector found anyone."""
        return True


class NobodyFound(People):
    """The whole picture, taken for one person's box where the detector found none, as the public code does."""

    @property
    def found(self) -> bool:
        """Always False."""
        return False


def people_to_frame(people: People, width: int, height: int) -> dict[str, Any]:
    """Write a `POSE_KEYPOINT` frame, with the scores as they are.

    A point scored 0 or less, which has no place, is written as 0, 0, 0. People without any body
    point scored 0.3 or more are left out; where nobody was found, so is the person seen in the whole picture, unless
    neck and nose, or neck and a hip, are: stray points are nobody.

    Args:
        people: Of one picture.
        width: Of the picture, in pixels.
        height: The same.

    Returns:
        A dictionary with canvas_width, canvas_height and people: for each the flat lists of x, y, score of 18 body
        points, 6 of the feet, 70 of the face (its 68 and the pupils, which are the body's eyes), 21 of either hand.
    """
    table = np.concatenate([people.keypoints, people.scores[..., None]], -1)  # n 134 3
    table = np.where(people.scores[..., None] > 0, table, 0.0)
    sure = people.scores >= PRESENT_SCORE  # n 134
    shown = sure[:, _BODY].any(1)  # n
    if not people.found:
        shown &= sure[:, _NECK] & sure[:, _NOSE_AND_HIPS].any(1)
    table = table[shown]
    lists = [person_lists(points) for points in table]
    return complete_frames([{"canvas_width": int(width), "canvas_height": int(height), "people": lists}])[0]
