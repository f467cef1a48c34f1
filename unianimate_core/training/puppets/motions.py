"""From a driving motion to a person's own joints in a picture: variations, proportions, camera."""

from __future__ import annotations

import numpy as np

from ...pose.keypoints import BODY_JOINTS, MotionTrack
from .drawing import torso_length
from .people import Person

_JOINT = {name: index for index, name in enumerate(BODY_JOINTS)}
_SIDES = [(_JOINT[name], _JOINT[name.replace("left", "right")]) for name in BODY_JOINTS if name.startswith("left")]
_UPPER = [
    _JOINT[f"{side}_{name}"] for side in ("left", "right") for name in ("shoulder", "elbow", "wrist", "eye", "ear")
]
_UPPER += [_JOINT["nose"], _JOINT["neck"]]

# Bones from parent to child in the order in which the tree grows from the neck, and the proportion that scales each.
_BONES = [
    ("neck", "nose", "neck"),
    *(("nose", f"{side}_{name}", "face") for side in ("left", "right") for name in ("eye", "ear")),
    *(("neck", f"{side}_shoulder", "shoulders") for side in ("left", "right")),
    *((f"{side}_shoulder", f"{side}_elbow", "arms") for side in ("left", "right")),
    *((f"{side}_elbow", f"{side}_wrist", "arms") for side in ("left", "right")),
    *((f"{side}_hip", f"{side}_knee", "legs") for side in ("left", "right")),
    *((f"{side}_knee", f"{side}_ankle", "legs") for side in ("left", "right")),
    *((f"{side}_ankle", f"{side}_toes", "legs") for side in ("left", "right")),
]


def vary(body: np.ndarray, random: np.random.Generator, frames: int) -> np.ndarray:
    """A stretch of a motion, mirrored, retimed, or with the arms of another stretch, drawn from a generator.

    Args:
        body: Joints n 20 2; x and y in the same unit.
        random: Decides.
        frames: Of the result.

    Returns:
        Joints f 20 2.
    """
    speed = random.uniform(0.5, 3.0)
    part = _stretch(body, random, frames, speed)
    if random.random() < 0.4:
        other = _stretch(body, random, frames, speed)
        moved = other[:, _UPPER] - other[:, [_JOINT["neck"]]] + part[:, [_JOINT["neck"]]]
        part[:, _UPPER] = moved
    return mirror(part) if random.random() < 0.5 else part


def mirror(body: np.ndarray) -> np.ndarray:
    """Joints f 20 2 seen in a mirror: x turned round, left and right exchanged."""
    body = body * (-1, 1)
    for left, right in _SIDES:
        body[:, [left, right]] = body[:, [right, left]]
    return body


def with_proportions(body: np.ndarray, person: Person) -> np.ndarray:
    """Joints f 20 2 with a person's bone lengths; every bone keeps its direction."""
    result = body.copy()
    factor = person.proportions
    hips = [_JOINT["right_hip"], _JOINT["left_hip"]]
    neck = body[:, [_JOINT["neck"]]]  # f 1 2
    middle = body[:, hips].mean(1, keepdims=True)
    new_middle = neck + factor["torso"] * (middle - neck)
    result[:, hips] = new_middle + factor["hips"] * (body[:, hips] - middle)
    # Where the nose is hidden, the face hangs on the neck.
    hidden = ~np.isfinite(body[:, _JOINT["nose"]]).all(-1)
    for parent, child, name in _BONES:
        a, b = _JOINT[parent], _JOINT[child]
        result[:, b] = result[:, a] + factor[name] * (body[:, b] - body[:, a])
        if parent == "nose":
            result[hidden, b] = result[hidden, _JOINT["neck"]] + factor["neck"] * (
                body[hidden, b] - body[hidden, _JOINT["neck"]]
            )
    return result


def frame(body: np.ndarray, random: np.random.Generator, width: int, height: int) -> MotionTrack:
    """Put joints f 20 2 in front of a random camera: heads stay in the picture, hands and feet may leave it.

    Returns:
        The track on a canvas of width x height pixels.
    """
    unit = torso_length(body)
    scale = height * random.uniform(0.26, 0.35) / unit
    points = body[np.isfinite(body).all(-1)] * scale  # n 2, pixels
    top = points[:, 1].min() - 0.45 * unit * scale
    bottom = points[:, 1].max() + 0.15 * unit * scale
    room = height - (bottom - top)
    y = (random.uniform(0.1, 0.9) * room if room > 0 else random.uniform(0, 0.05) * height) - top
    neck = body[:, _JOINT["neck"], 0] * scale
    left, right = np.nanmin(neck) - 0.35 * unit * scale, np.nanmax(neck) + 0.35 * unit * scale
    x = random.uniform(0.25, 0.75) * (width - (right - left)) - left
    angle = random.uniform(-0.05, 0.05)
    turn = np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
    size = np.array((width, height))
    pixels = (body * scale + (x, y) - size / 2) @ turn.T + size / 2  # f 20 2
    return MotionTrack(pixels / size, width=width, height=height)


def _stretch(body: np.ndarray, random: np.random.Generator, frames: int, speed: float) -> np.ndarray:
    """``frames`` frames from a random place, at a speed, to and fro where the motion is too short."""
    last = len(body) - 1
    place = random.uniform(0, last) + speed * np.arange(frames)
    place = last - np.abs(place % (2 * last) - last) if last else 0 * place
    index = np.clip(place.astype(int), 0, max(last - 1, 0))
    share = (place - index)[:, None, None]
    return body[index] + share * (body[np.minimum(index + 1, last)] - body[index])
