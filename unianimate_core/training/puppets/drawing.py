"""Draws a synthetic person on a skeleton, frame by frame; the skeleton is the ground truth of every pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...pose.keypoints import BODY_JOINTS, MotionTrack
from .painting import Canvas, Paint
from .people import Person
from .scenes import Scene

PARTS = (
    *("background", "hair", "face", "neck", "torso", "skirt"),
    *("left_upper_arm", "left_forearm", "left_hand", "right_upper_arm", "right_forearm", "right_hand"),
    *("left_thigh", "left_calf", "left_foot", "right_thigh", "right_calf", "right_foot"),
)
"""Names of the labels in `Drawn.labels`."""

_LABEL = {name: index for index, name in enumerate(PARTS)}
_JOINT = {name: index for index, name in enumerate(BODY_JOINTS)}


@dataclass(frozen=True)
class Drawn:
    """A drawn clip.

    Attributes:
        frames: uint8 f H W 3, RGB.
        labels: uint8 f H W; index into `PARTS`.
        background: uint8 H W 3; the scene without the person and the shadow.
    """

    frames: np.ndarray
    labels: np.ndarray
    background: np.ndarray


def draw_person(person: Person, scene: Scene, track: MotionTrack) -> Drawn:
    """Draw a person moving through a scene.

    Args:
        person: From `random_person`.
        scene: From `random_scene`; its size is the pictures'.
        track: The person's own joints: what a perfect detector finds in these pictures. Limbs with an absent joint are
            not drawn.
    """
    height, width = scene.background.shape[:2]
    body = (track.body * (width, height)).astype(np.float32)  # f 20 2, pixels
    unit = torso_length(body)
    frames, labels = [], []
    for joints in body:
        canvas = Canvas(scene.background.copy(), np.zeros((height, width), np.uint8), unit, scene.light)
        _draw_frame(canvas, person, {name: joints[index] for name, index in _JOINT.items()})
        frames.append(scene.photograph(canvas.colours))
        labels.append(canvas.labels)
    return Drawn(np.stack(frames), np.stack(labels), scene.photograph(scene.background))


def torso_length(body: np.ndarray) -> float:
    """Median length from neck to the middle of the hips, of joints f 20 2; in their unit, 1 where none is seen."""
    hips = (body[:, _JOINT["right_hip"]] + body[:, _JOINT["left_hip"]]) / 2
    lengths = np.linalg.norm(hips - body[:, _JOINT["neck"]], axis=-1)  # f
    lengths = lengths[lengths > 0]
    return float(np.median(lengths)) if len(lengths) else 1.0


def _draw_frame(canvas: Canvas, person: Person, joint: dict[str, np.ndarray]) -> None:
    _draw_shadow(canvas, joint)
    facing = joint["left_shoulder"][0] >= joint["right_shoulder"][0]  # the viewer sees the chest
    _draw_back_hair(canvas, person, joint, facing)
    # The arm of the shoulder that lies deeper cannot be told in two dimensions: legs, then body, then arms.
    for side in ("right", "left"):
        _draw_leg(canvas, person, joint, side)
    _draw_torso(canvas, person, joint)
    _draw_head(canvas, person, joint, facing)
    for side in ("right", "left"):
        _draw_arm(canvas, person, joint, side)


def _draw_leg(canvas: Canvas, person: Person, joint: dict[str, np.ndarray], side: str) -> None:
    unit = canvas.unit
    hip, knee, ankle, toes = (joint[f"{side}_{name}"] for name in ("hip", "knee", "ankle", "toes"))
    upper = person.trousers if person.legwear in ("trousers", "shorts") else person.skin
    lower = person.trousers if person.legwear == "trousers" else person.skin
    thigh, calf, foot = person.thigh * unit, person.calf * unit, person.foot * unit
    canvas.capsule(ankle, toes, (foot, foot * 0.8), person.shoes, _LABEL[f"{side}_foot"])
    canvas.capsule(knee, ankle, (calf, calf * 0.6), lower, _LABEL[f"{side}_calf"])
    canvas.capsule(hip, knee, (thigh, calf * 1.05), upper, _LABEL[f"{side}_thigh"])
    canvas.ellipse(ankle, np.array((0.0, 1.0)), (foot * 1.05, foot * 1.05), person.shoes, _LABEL[f"{side}_foot"])


def _draw_arm(canvas: Canvas, person: Person, joint: dict[str, np.ndarray], side: str) -> None:
    unit = canvas.unit
    shoulder, elbow, wrist = (joint[f"{side}_{name}"] for name in ("shoulder", "elbow", "wrist"))
    upper = person.skin if person.sleeves == "none" else _plain(person.shirt)
    lower = _plain(person.shirt) if person.sleeves == "long" else person.skin
    arm, forearm = person.upper_arm * unit, person.forearm * unit
    canvas.capsule(shoulder, elbow, (arm, arm * 0.85), upper, _LABEL[f"{side}_upper_arm"])
    canvas.capsule(elbow, wrist, (forearm, forearm * 0.75), lower, _LABEL[f"{side}_forearm"])
    along = (wrist - elbow) / max(float(np.hypot(*(wrist - elbow))), 1e-6)
    hand = wrist + along * forearm * 0.9
    canvas.ellipse(hand, along, (forearm * 0.95, forearm * 1.25), person.skin, _LABEL[f"{side}_hand"])


def _draw_torso(canvas: Canvas, person: Person, joint: dict[str, np.ndarray]) -> None:
    unit, chest = canvas.unit, person.chest * canvas.unit
    neck, head = joint["neck"], _head_centre(joint)
    canvas.capsule(neck, neck + 0.7 * (head - neck), (person.neck * unit,) * 2, person.skin, _LABEL["neck"])
    hips = np.stack((joint["right_hip"], joint["left_hip"]))
    shoulders = np.stack((joint["right_shoulder"], joint["left_shoulder"]))
    middle = hips.mean(0)
    down = (middle - neck) / max(float(np.hypot(*(middle - neck))), 1e-6)
    if person.legwear in ("skirt", "dress"):
        side = np.array((-down[1], down[0]))
        knees = np.stack((joint["right_knee"], joint["left_knee"]))
        hem = hips + 0.75 * (knees - hips)
        flare = np.stack(
            (middle + 0.5 * unit * down + 0.3 * unit * side, middle + 0.5 * unit * down - 0.3 * unit * side)
        )
        paint = person.shirt if person.legwear == "dress" else person.trousers
        canvas.hull(np.concatenate((hips, hem, flare)), chest * 0.7, _plain(paint), _LABEL["skirt"])
    elif np.isfinite(middle).all():
        canvas.hull(
            np.concatenate((hips, hips - down * 0.2 * unit)), person.thigh * unit, person.trousers, _LABEL["torso"]
        )
    canvas.hull(np.concatenate((shoulders, hips - down * 0.1 * unit)), chest, person.shirt, _LABEL["torso"])


def _head_centre(joint: dict[str, np.ndarray]) -> np.ndarray:
    """The middle of the ears, else of the eyes, else the nose; NaN where none is there."""
    for names in (("left_ear", "right_ear"), ("left_eye", "right_eye")):
        points = np.stack([joint[name] for name in names])
        if np.isfinite(points).all():
            return points.mean(0)
    return joint["nose"]


def _head_up(joint: dict[str, np.ndarray]) -> np.ndarray:
    up = _head_centre(joint) - joint["neck"]
    return up / max(float(np.hypot(*up)), 1e-6)


def _draw_back_hair(canvas: Canvas, person: Person, joint: dict[str, np.ndarray], facing: bool) -> None:
    if person.hair_style not in ("long", "bob") or not facing:
        return
    centre, up, radius = _head_centre(joint), _head_up(joint), person.head * canvas.unit
    length = 2.2 if person.hair_style == "long" else 1.1
    canvas.capsule(centre, centre - up * radius * length, (radius * 1.12, radius * 0.95), person.hair, _LABEL["hair"])


def _draw_head(canvas: Canvas, person: Person, joint: dict[str, np.ndarray], facing: bool) -> None:
    centre, up, radius = _head_centre(joint), _head_up(joint), person.head * canvas.unit
    back = not facing and not np.isfinite(joint["nose"]).all()
    hair = person.hair if person.hair_style != "cap" else person.shoes
    covered = person.hair_style != "bald"
    if covered:
        canvas.ellipse(centre + up * radius * 0.12, up, (radius * 1.0, radius * 1.22), hair, _LABEL["hair"])
    if person.hair_style == "bun":
        canvas.ellipse(centre + up * radius * 1.35, up, (radius * 0.42, radius * 0.42), hair, _LABEL["hair"])
    if back and covered:
        if person.hair_style in ("long", "bob"):
            length = 2.2 if person.hair_style == "long" else 1.1
            end = centre - up * radius * length
            canvas.capsule(centre, end, (radius * 1.05, radius * 0.95), hair, _LABEL["hair"])
        return
    ahead = joint["nose"] - centre
    ahead = np.where(np.isfinite(ahead), ahead, 0) * 0.5
    ahead -= up * float(ahead @ up)
    face = centre + ahead - up * radius * (0.12 if covered else -0.05)
    size = (radius * 0.88, radius * (1.0 if covered else 1.15))
    canvas.ellipse(face, up, size, person.skin, _LABEL["face"])
    for name in ("left_eye", "right_eye"):
        canvas.ellipse(joint[name], up, (radius * 0.13, radius * 0.13), person.eyes, _LABEL["face"])
    side = np.array((-up[1], up[0]))
    mouth = face + ahead * 0.6 - up * radius * 0.52
    canvas.capsule(
        mouth - side * radius * 0.22, mouth + side * radius * 0.22, (radius * 0.09,) * 2, person.lips, _LABEL["face"]
    )


def _draw_shadow(canvas: Canvas, joint: dict[str, np.ndarray]) -> None:
    """A soft dark ellipse on the ground under the lower foot."""
    ankles = np.stack((joint["right_ankle"], joint["left_ankle"]))
    if not np.isfinite(ankles).all():
        return
    height, width = canvas.labels.shape
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    middle, low = ankles[:, 0].mean(), ankles[:, 1].max() + 0.1 * canvas.unit
    spread = np.ptp(ankles[:, 0]) / 2 + 0.45 * canvas.unit
    dark = 0.3 * np.exp(-(((x - middle) / spread) ** 2) - ((y - low) / (0.13 * canvas.unit)) ** 2)
    canvas.colours[...] *= (1 - dark)[..., None].astype(np.float32)


def _plain(paint: Paint) -> Paint:
    """Sleeves and skirts take the first colour alone."""
    return replace(paint, pattern=None)
