"""ComfyUI's `POSE_KEYPOINT` frames, and OpenPose's, to arrays and back."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError

if TYPE_CHECKING:
    from .keypoints import MotionTrack

PRESENT_SCORE = 0.3
"""A point scored under this is absent."""

# Points that a list may hold, by its name; rows of the internal table of 134 points (OpenPose order) that they fill.
_COUNTS = {
    "pose_keypoints_2d": (18, 25),
    "foot_keypoints_2d": (6,),
    "face_keypoints_2d": (68, 70),
    "hand_left_keypoints_2d": (21,),
    "hand_right_keypoints_2d": (21,),
}
_ROWS = {
    "pose_keypoints_2d": slice(0, 18),
    "foot_keypoints_2d": slice(18, 24),
    "face_keypoints_2d": slice(24, 92),
    "hand_left_keypoints_2d": slice(92, 113),
    "hand_right_keypoints_2d": slice(113, 134),
}
# BODY_25 has the middle of the hips at 8, which the 18 joints lack, and both feet at its end, left first.
_BODY_25_TO_18_AND_FEET = [*range(8), *range(9, 25)]
_TOES = ((18, 19), (21, 22))  # big and small toe of the left, then the right foot
_RIGHT_WRIST, _LEFT_WRIST = 4, 7

# Coordinates are fractions already, not pixels, if all lie in this range and spread over more than this, on a canvas
# of more than so many pixels: in pixels, that would be a person of two pixels in the picture's corner.
_FRACTION_RANGE = (-1.0, 2.0)
_FRACTION_SPREAD = 0.05
_FRACTION_CANVAS = 8


FOLLOWED = "people_followed"
"""A frame's key, true where everyone has the same place in the list of people of every frame."""


def decode_frames(frames: Sequence[dict[str, Any]], person: int) -> dict[str, Any]:
    """Read one person of `POSE_KEYPOINT` frames; see `MotionTrack.from_pose_keypoints`.

    Returns:
        The fields of a `MotionTrack`: body, hands, face, width, height and the three arrays of scores.
    """
    return decode_person(*read_people(frames), person)


def decode_person(frames: list[dict[str, Any]], tables: list[list[np.ndarray]], person: int) -> dict[str, Any]:
    """As `decode_frames`, from what `read_people` returned."""
    canvas = _canvases(frames)  # f 2
    most = max(map(len, tables))
    if not 0 <= person < most:
        raise InputError(f"There is no person {person}: frames have at most {most} people; give 0 to {most - 1}.")
    nobody = np.full((134, 3), (np.nan, np.nan, 0))
    table = np.stack([group[person] if person < len(group) else nobody for group in tables])  # f 134 3
    if np.isnan(table[..., 0]).all():
        raise InputError(
            f"Person {person} has no point in any of {len(frames)} frames: every one is missing or scored under "
            f"{PRESENT_SCORE}; give a motion with someone in it."
        )

    toes = np.stack([table[:, pair] for pair in _TOES], 1)  # f 2 2 3
    middle = np.concatenate([toes[..., :2].mean(2), toes[..., 2:].min(2)], -1)  # f 2 3
    body = np.concatenate([table[:, :18], middle], 1)  # f 20 3
    hands = _hands_to_wrists(table[:, 92:].reshape(-1, 2, 21, 3), body, canvas)
    parts = {"body": body, "hands": hands, "face": table[:, 24:92]}
    points = {name: part[..., :2] for name, part in parts.items()}
    scores = {f"{name}_scores": part[..., 2] for name, part in parts.items()}
    return {**points, **scores, "width": canvas[0, 0], "height": canvas[0, 1]}


def read_people(frames: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[list[np.ndarray]]]:
    """Read all points of all people of `POSE_KEYPOINT` frames; see `MotionTrack.from_pose_keypoints`.

    Returns:
        The frames, each with a list of people and a canvas (where it names none, that of the first that does); and for
        each frame its people in their order, each 134 3: x and y as fractions of the frame's canvas, and score, in
        OpenPose order (18 body, 6 foot, 68 face, 21 and 21 hand); NaN, NaN, 0 where absent.

    Raises:
        InputError: No frame, no person in any frame, no canvas, or a list of the wrong length.
    """
    frames = _checked_frames(frames)
    people = [_people(frame, number) for number, frame in enumerate(frames)]
    if not any(people):
        raise InputError(f"There is no person in any of {len(frames)} frames; give a motion with someone in it.")
    canvas = _canvases(frames)  # f 2
    tables = [[_points(someone, number) for someone in group] for number, group in enumerate(people)]
    if not _are_fractions([table for group in tables for table in group], canvas):
        tables = [[table / [*size, 1] for table in group] for group, size in zip(tables, canvas, strict=True)]
    whole = []
    for frame, group, (width, height) in zip(frames, people, canvas.tolist(), strict=True):
        given = {key: value for key, value in frame.items() if value is not None}
        whole.append({"canvas_width": round(width), "canvas_height": round(height), **given, "people": group})
    return whole, tables


def encode_frames(track: "MotionTrack") -> list[dict[str, Any]]:
    """Write `POSE_KEYPOINT` frames; see `MotionTrack.to_pose_keypoints`."""
    size = (track.width, track.height)

    def table(name: str) -> np.ndarray:
        points, scores = getattr(track, name), getattr(track, f"{name}_scores")
        present = np.isfinite(points).all(-1)
        scores = np.ones(present.shape) if scores is None else scores
        return np.where(present[..., None], np.concatenate([points * size, scores[..., None]], -1), 0.0)  # f … 3

    body, hands, face = table("body"), table("hands"), table("face")
    foot = np.zeros((len(track), 6, 3))
    for side, (big, small) in enumerate(_TOES):
        foot[:, [big - 18, small - 18]] = body[:, None, 18 + side]
    points = np.concatenate([body[:, :18], foot, face, hands[:, 0], hands[:, 1]], 1)  # f 134 3
    frames = []
    for person in points:
        people = [person_lists(person)] if person.any() else []
        frames.append({"canvas_width": track.width, "canvas_height": track.height, "people": people})
    return complete_frames(frames)


def person_lists(points: np.ndarray) -> dict[str, list[float]]:
    """The flat lists of x, y, score of one person's 134 points (134 3, OpenPose order), by their names."""
    return {name: points[rows].ravel().tolist() for name, rows in _ROWS.items()}


def complete_frames(frames: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """`POSE_KEYPOINT` frames with all that ComfyUI's own pose nodes expect of them, whoever wrote them.

    Every person gets all five lists, absent points as 0, 0, 0, and the face 70 points: its 68 and the pupils, which are
    the body's right and left eye. Nothing that is there is changed.
    """
    complete = []
    for number, frame in enumerate(_checked_frames(frames)):
        people = []
        for someone in _people(frame, number):
            lists = {key: list(someone.get(key) or [0.0] * 3 * counts[0]) for key, counts in _COUNTS.items()}
            if len(lists["face_keypoints_2d"]) == 3 * 68:
                lists["face_keypoints_2d"] += lists["pose_keypoints_2d"][3 * 14 : 3 * 16]
            people.append({**someone, **lists})
        complete.append({**frame, "people": people})
    return complete


def _checked_frames(frames: Any) -> list[dict[str, Any]]:
    frames = [frames] if isinstance(frames, dict) else frames
    if not isinstance(frames, Sequence) or isinstance(frames, (str, bytes)):
        raise InputError(f"Pose keypoints are {type(frames).__name__}; give a list of dictionaries, one a frame.")
    if not frames:
        raise InputError("Pose keypoints hold no frame; give one dictionary a frame.")
    for number, frame in enumerate(frames):
        if not isinstance(frame, (dict, type(None))):
            raise InputError(f"Frame {number} is {type(frame).__name__}; give a dictionary with people and a canvas.")
    return [frame or {} for frame in frames]


def _people(frame: dict[str, Any], number: int) -> list[dict[str, Any]]:
    people = frame.get("people") or []
    if not isinstance(people, Sequence) or not all(isinstance(someone, (dict, type(None))) for someone in people):
        raise InputError(f"Frame {number}: people is not a list of dictionaries; give one dictionary a person.")
    return [someone or {} for someone in people]


def _canvases(frames: list[dict[str, Any]]) -> np.ndarray:
    """Return each frame's canvas, f 2; a frame that names none has that of the first frame that does."""
    sizes = [(frame.get("canvas_width"), frame.get("canvas_height")) for frame in frames]
    known = next((size for size in sizes if None not in size), None)
    if known is None:
        raise InputError("No frame has canvas_width and canvas_height; add them, in pixels.")
    for number, size in enumerate(sizes):
        sizes[number] = known if None in size else size
        try:
            usable = all(np.isfinite(float(side)) and float(side) >= 1 for side in sizes[number])
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise InputError(f"Frame {number}: the canvas is {size[0]!r} × {size[1]!r}; give pixels, 1 or more.")
    return np.array(sizes, np.float64)


def _points(someone: dict[str, Any], number: int) -> np.ndarray:
    """Return a person's points in OpenPose order, 134 3: x, y, score as written; NaN, NaN, 0 where absent."""
    table = np.zeros((134, 3))
    for key, counts in _COUNTS.items():
        points = _list_points(someone.get(key), counts, f"Frame {number}: {key}")
        if len(points) == 0:
            continue
        if len(points) == 25:
            table[:24] = points[_BODY_25_TO_18_AND_FEET]
        else:
            rows = _ROWS[key]
            table[rows] = points[: rows.stop - rows.start]  # a face of 70 ends in two pupils
    table[~(np.isfinite(table).all(-1) & (table[:, 2] >= PRESENT_SCORE))] = (np.nan, np.nan, 0)
    return table


def _list_points(values: Any, counts: tuple[int, ...], where: str) -> np.ndarray:
    try:
        flat = np.asarray([] if values is None else values, np.float64).ravel()
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is not a list of numbers ({error}); give x, y, score for each point.") from error
    wanted = " or ".join(map(str, counts))
    if len(flat) % 3:
        raise InputError(f"{where} has {len(flat)} numbers, not a multiple of 3; give x, y, score for {wanted} points.")
    if len(flat) // 3 not in (0, *counts):
        raise InputError(f"{where} has {len(flat) // 3} points; give {wanted}.")
    return flat.reshape(-1, 3)


def _are_fractions(tables: list[np.ndarray], canvas: np.ndarray) -> bool:
    points = np.concatenate(tables)[:, :2]
    points = points[np.isfinite(points[:, 0])]  # n 2
    if len(points) == 0 or canvas.min() <= _FRACTION_CANVAS:
        return False
    lowest, highest = points.min(0), points.max(0)
    low, high = _FRACTION_RANGE
    return lowest.min() >= low and highest.max() <= high and (highest - lowest).max() > _FRACTION_SPREAD


def _hands_to_wrists(hands: np.ndarray, body: np.ndarray, canvas: np.ndarray) -> np.ndarray:
    """Exchange the hands (f 2 21 3: named left, right) in the frames where they lie on each other's wrist.

    A frame decides for itself where one way brings the hands nearer to their wrists by more than their own size. In
    the others, where wrists are close together, the median of all frames decides, so that hands do not flip.
    """
    points = hands[..., :2] * canvas[:, None, None]  # f 2 21 2, pixels
    wrists = body[:, [_LEFT_WRIST, _RIGHT_WRIST], :2] * canvas[:, None]  # f 2 2, pixels
    seen = np.isfinite(points[..., :1])
    highest = np.where(seen, points, -np.inf).max(2)
    lowest = np.where(seen, points, np.inf).min(2)
    size = np.linalg.norm(np.maximum(highest - lowest, 0), axis=-1)  # f 2
    # An absent wrist counts as a hand's size away: a hand nearer than that to the other wrist belongs there.
    own, other = (np.linalg.norm(points[:, :, 0] - place, axis=-1) for place in (wrists, wrists[:, ::-1]))  # f 2
    own, other = (np.where(np.isnan(distance), size, distance) for distance in (own, other))
    gain = np.where(np.isfinite(points[:, :, 0, 0]), own - other, 0).sum(1)  # f, what exchanging brings hands nearer
    exchange = gain > 0
    if gain.any():
        doubtful = abs(gain) <= size.sum(1)
        exchange[doubtful] = np.median(gain[gain != 0]) > 0
    return np.where(exchange[:, None, None, None], hands[:, ::-1], hands)
