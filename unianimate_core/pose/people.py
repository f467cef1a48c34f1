"""Several people in a motion: one of them chosen, or each kept in a place of their own."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ..errors import InputError
from .checks import check_choice, check_whole
from .tracking import identify, person_box
from .wire_format import FOLLOWED, read_people

Choice = Literal["largest", "leftmost", "rightmost", "highest score", "nearest to point", "index"]
CHOICES: tuple[Choice, ...] = ("largest", "leftmost", "rightmost", "highest score", "nearest to point", "index")

LOST_FRAMES = 15
"""For how many frames somebody who is not found is waited for, unless told otherwise."""

_BODY = slice(0, 18)  # of a person's 134 points


def follow_person(
    frames: Sequence[dict[str, Any]],
    choose: Choice = "largest",
    index: int = 0,
    point: tuple[float, float] = (0.5, 0.5),
    lost_frames: int = LOST_FRAMES,
) -> list[dict[str, Any]]:
    """Choose one of the people in a motion, and follow them through all of it.

    Who is who is told by where people are and how they stand, not by the order in which frames list them; see
    `tracking.identify`. People are chosen

    - by ``largest``: the area of their box, summed up over all frames, so that somebody who passes by early does not
      count for more than the one who stays;
    - by ``highest score``: the mean score of their body's 18 points, summed up likewise;
    - by ``leftmost``, ``rightmost`` or ``nearest to point``: the middle of their box, in the first frame that shows
      enough people (index + 1);
    - by ``index``: their place in the list of the first frame that has one there.

    Args:
        frames: `POSE_KEYPOINT` frames, of any pack; see `MotionTrack.from_pose_keypoints`. They are not changed.
        choose: One of `CHOICES`.
        index: 0 for the first by that choice, 1 for the second largest, the second from the left, …; for ``index`` the
            place in the list, from 0.
        point: x and y for ``nearest to point``, as fractions of the picture.
        lost_frames: For how many frames a person who is not found is waited for, 0 or more.

    Returns:
        As many frames, each with that person as it was, or with no people where they are not found.

    Raises:
        InputError: There is nobody in any frame, or nobody so chosen; a frame cannot be read; an argument is wrong.
    """
    check_choice("choose", choose, CHOICES)
    index = check_whole("index", index, 0)
    middle = _checked_point(point)
    frames, people, numbers = _identified(frames, lost_frames)
    order: Sequence[int | None]
    if choose == "index":
        candidates = [group[index] for group in numbers if index < len(group) and group[index] is not None]
        order, most = [None] * index + candidates, max(map(len, numbers))
    elif choose in ("largest", "highest score"):
        order = _by_sum(people, numbers, _area if choose == "largest" else _score)
        most = len(order)
    else:
        order, most = _by_place(people, numbers, choose, index, middle, _shape(frames))
    if index >= len(order):
        raise InputError(f"There is no person {index} by {choose!r}; give 0 to {most - 1}, the first being 0.")
    return [
        {**frame, "people": [frame["people"][group.index(order[index])]] if order[index] in group else []}
        for frame, group in zip(frames, numbers, strict=True)
    ]


def follow_everyone(frames: Sequence[dict[str, Any]], lost_frames: int = LOST_FRAMES) -> list[dict[str, Any]]:
    """Give everyone in a motion the same place in the list of people of every frame.

    So ``person=k`` is the same person throughout, for `MotionTrack.from_pose_keypoints` and for all else that takes a
    person by number. They are ordered as by ``largest`` of `follow_person`.

    Args:
        frames: `POSE_KEYPOINT` frames, of any pack. They are not changed.
        lost_frames: For how many frames a person who is not found is waited for, 0 or more.

    Returns:
        As many frames, each with as many people: those found as they were, an empty dictionary for the others.

    Raises:
        InputError: There is nobody in any frame, a frame cannot be read, or `lost_frames` is wrong.
    """
    frames, people, numbers = _identified(frames, lost_frames)
    order = _by_sum(people, numbers, _area)
    return [
        {
            **frame,
            "people": [frame["people"][group.index(one)] if one in group else {} for one in order],
            FOLLOWED: True,
        }
        for frame, group in zip(frames, numbers, strict=True)
    ]


def _identified(
    frames: Sequence[dict[str, Any]], lost_frames: int
) -> tuple[list[dict[str, Any]], list[list[np.ndarray]], list[list[int | None]]]:
    """Return the frames, the points of their people (f … 134 3), and the number of each."""
    lost_frames = check_whole("lost_frames", lost_frames, 0)
    frames, people = read_people(frames)
    numbers = identify(people, _shape(frames), lost_frames)
    if not any(number is not None for group in numbers for number in group):
        raise InputError(f"No person has a point in any of {len(frames)} frames; give a motion with someone in it.")
    return frames, people, numbers


def _by_sum(
    people: list[list[np.ndarray]], numbers: list[list[int | None]], weigh: Callable[[np.ndarray], float]
) -> list[int]:
    """Return everyone's number, those first whose weights sum up to most."""
    sums: dict[int, float] = {}
    for group, names in zip(people, numbers, strict=True):
        for table, number in zip(group, names, strict=True):
            if number is not None:
                sums[number] = sums.get(number, 0.0) + weigh(table)
    return sorted(sums, key=lambda number: (-sums[number], number))


def _by_place(
    people: list[list[np.ndarray]],
    numbers: list[list[int | None]],
    choose: Choice,
    index: int,
    point: np.ndarray,
    size: np.ndarray,
) -> tuple[list[int], int]:
    """Return the numbers of those in the first frame that shows enough people, and the most that any frame shows."""

    def key(table: np.ndarray) -> float:
        box = person_box(table)
        middle = (box[:2] + box[2:]) / 2
        if choose == "nearest to point":
            return float(np.linalg.norm((middle - point) * size))
        return float(middle[0]) * (1 if choose == "leftmost" else -1)

    most = 0
    for group, names in zip(people, numbers, strict=True):
        shown = [(table, number) for table, number in zip(group, names, strict=True) if number is not None]
        most = max(most, len(shown))
        if len(shown) > index:
            return [number for _, number in sorted(shown, key=lambda one: key(one[0]))], most
    return [], most


def _area(table: np.ndarray) -> float:
    box = person_box(table)
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _score(table: np.ndarray) -> float:
    return float(table[_BODY, 2].mean())


def _shape(frames: list[dict[str, Any]]) -> np.ndarray:
    """Return the first frame's canvas, in pixels, by which distances along x and y compare."""
    return np.array([frames[0]["canvas_width"], frames[0]["canvas_height"]], np.float64)


def _checked_point(point: Any) -> np.ndarray:
    try:
        x, y = (float(value) for value in point)
    except (TypeError, ValueError):
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InputError(f"point is {point!r}; give x and y, as fractions of the picture.")
    return np.array([x, y])
