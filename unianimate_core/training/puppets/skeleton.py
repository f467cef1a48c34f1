"""Generated motions: a skeleton in three dimensions, moved by its limbs' directions, seen from the front.

Axes: x to the viewer's right, y down, z towards the viewer; lengths in torso lengths. Before it is turned, the person
faces the viewer, so the left arm is on the right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from ...pose.keypoints import BODY_JOINTS

SHOULDER, HIP, UPPER_ARM, FOREARM, THIGH, CALF, FOOT = 0.29, 0.13, 0.47, 0.45, 0.82, 0.74, 0.2
NECK, EYE, EAR = 0.38, 0.085, 0.16

_JOINT = {name: index for index, name in enumerate(BODY_JOINTS)}


@dataclass
class Limbs:
    """How the limbs point over time: directions f 3 (any length; left limbs, mirrored for the right), angles f."""

    left_upper_arm: np.ndarray
    left_forearm: np.ndarray
    right_upper_arm: np.ndarray
    right_forearm: np.ndarray
    left_thigh: np.ndarray
    left_calf: np.ndarray
    right_thigh: np.ndarray
    right_calf: np.ndarray
    spine: np.ndarray
    head_yaw: np.ndarray
    yaw: np.ndarray
    sway: np.ndarray


def random_motion(random: np.random.Generator, frames: int) -> np.ndarray:
    """A walk, a wave, a turn or an improvised dance, drawn from a generator.

    Returns:
        Body joints f 20 2 in the order of `BODY_JOINTS`, in torso lengths, y down. Eyes and nose are NaN where the
        person shows the back.
    """
    kinds = [_walk, _wave, _turn, _improvise]
    limbs = kinds[random.choice(4, p=[0.12, 0.13, 0.1, 0.65])](random, frames)
    return project(limbs)


def project(limbs: Limbs) -> np.ndarray:
    """Directions of limbs into joints f 20 2, in torso lengths; the lower foot stands on y = 0."""
    frames = len(limbs.yaw)
    joints = np.zeros((frames, 20, 3))
    spine = _unit(limbs.spine)
    joints[:, _JOINT["neck"]] = spine
    head = joints[:, _JOINT["neck"]] + NECK * _unit(spine + np.array((0, -1, 0)))
    forward = np.stack((np.sin(limbs.head_yaw), 0 * limbs.head_yaw, np.cos(limbs.head_yaw)), axis=-1)  # f 3
    left = np.stack((np.cos(limbs.head_yaw), 0 * limbs.head_yaw, -np.sin(limbs.head_yaw)), axis=-1)
    joints[:, _JOINT["nose"]] = head + 0.15 * forward
    for side, sign in (("left", 1), ("right", -1)):
        joints[:, _JOINT[f"{side}_eye"]] = head + sign * EYE * left + 0.1 * forward + (0, -0.09, 0)
        joints[:, _JOINT[f"{side}_ear"]] = head + sign * EAR * left + (0, -0.04, 0)
        mirror = np.array((sign, 1, 1))
        chain = [
            ("shoulder", spine + np.array((sign * SHOULDER, 0, 0)), None, 0),
            ("elbow", None, f"{side}_upper_arm", UPPER_ARM),
            ("wrist", None, f"{side}_forearm", FOREARM),
            ("hip", np.array((sign * HIP, 0, 0)), None, 0),
            ("knee", None, f"{side}_thigh", THIGH),
            ("ankle", None, f"{side}_calf", CALF),
        ]
        place = np.zeros((frames, 3))
        for name, start, limb, length in chain:
            place = (
                np.broadcast_to(start, (frames, 3))
                if limb is None
                else (place + length * _unit(getattr(limbs, limb)) * mirror)
            )
            joints[:, _JOINT[f"{side}_{name}"]] = place
        joints[:, _JOINT[f"{side}_toes"]] = place + FOOT * _unit(np.array((0.35 * sign, 0.35, 1.0)))
    cos, sin = np.cos(limbs.yaw)[:, None], np.sin(limbs.yaw)[:, None]
    x, z = joints[..., 0] * cos + joints[..., 2] * sin, joints[..., 2] * cos - joints[..., 0] * sin
    flat = np.stack((x, joints[..., 1]), axis=-1)  # f 20 2
    flat[..., 1] -= flat[:, [_JOINT["left_ankle"], _JOINT["right_ankle"]], 1].max(1)[:, None]
    flat[..., 0] += limbs.sway[:, None]
    away = z[:, _JOINT["nose"]] - z[:, [_JOINT["left_ear"], _JOINT["right_ear"]]].mean(1) < -0.03
    for name in ("nose", "left_eye", "right_eye"):
        flat[away, _JOINT[name]] = np.nan
    return flat


def _improvise(random: np.random.Generator, frames: int) -> Limbs:
    """Smooth ways between random postures."""
    curve = _curves(random, frames, random.uniform(8, 22))

    def arm() -> tuple[np.ndarray, np.ndarray]:
        lift, open_, bend, turn = curve(0.0, 3.0), curve(0.1, 1.3), curve(0.0, 2.2), curve(-1.2, 1.8)
        upper = np.stack((np.sin(lift) * np.sin(open_), np.cos(lift), np.sin(lift) * np.cos(open_)), axis=-1)
        return upper, _bend(upper, bend, turn)

    left_arm, right_arm = arm(), arm()

    def leg() -> tuple[np.ndarray, np.ndarray]:
        side, ahead, bend = curve(-0.08, 0.45), curve(-0.25, 0.6), curve(0.0, 0.6)
        return np.stack((side, 1 + 0 * side, ahead), axis=-1), np.stack((side, 1 + 0 * side, ahead - bend), axis=-1)

    left_leg, right_leg = leg(), leg()
    lean = np.stack((curve(-0.25, 0.25), -1 + curve(0, 0.01), curve(-0.05, 0.2)), axis=-1)
    yaw = curve(-0.9, 0.9) if random.random() < 0.6 else np.full(frames, random.uniform(-0.3, 0.3))
    return Limbs(*left_arm, *right_arm, *left_leg, *right_leg, lean, curve(-0.6, 0.6), yaw, curve(-0.5, 0.5))


def _walk(random: np.random.Generator, frames: int) -> Limbs:
    """Steps on the spot or across the picture, at any angle to the viewer."""
    limbs = _stand(random, frames)
    phase = 2 * np.pi * (np.arange(frames) / random.uniform(18, 32) + random.random())
    stride, swing = random.uniform(0.3, 0.55), random.uniform(0.2, 0.6)
    for side, shift in (("left", 0.0), ("right", np.pi)):
        ahead = stride * np.sin(phase + shift)
        lift = 0.7 * stride * np.clip(np.cos(phase + shift), 0, None)
        getattr(limbs, f"{side}_thigh")[:, 2] = ahead + 0.4 * lift
        getattr(limbs, f"{side}_calf")[:, 2] = ahead - lift * 1.5
        back = -swing * np.sin(phase + shift)
        getattr(limbs, f"{side}_upper_arm")[:, 2] = back
        getattr(limbs, f"{side}_forearm")[:, 2] = back + 0.5 * swing
    limbs.yaw[:] = random.uniform(-np.pi, np.pi)
    limbs.sway[:] = np.sin(limbs.yaw) * np.linspace(-0.5, 0.5, frames) * random.uniform(0, 1.5)
    return limbs


def _wave(random: np.random.Generator, frames: int) -> Limbs:
    """One hand or both wave."""
    limbs = _stand(random, frames)
    phase = 2 * np.pi * np.arange(frames) / random.uniform(10, 24)
    for side in ("left", "right") if random.random() < 0.4 else (str(random.choice(["left", "right"])),):
        height = random.uniform(-0.6, 0.9)
        getattr(limbs, f"{side}_upper_arm")[:] = (1, -height, random.uniform(0, 0.5))
        forearm = getattr(limbs, f"{side}_forearm")
        forearm[:, 0], forearm[:, 1], forearm[:, 2] = 0.1 + 0.8 * np.sin(phase), -1, 0.2
    return limbs


def _turn(random: np.random.Generator, frames: int) -> Limbs:
    """A slow turn on the spot while the limbs improvise a little."""
    limbs = _improvise(random, frames) if random.random() < 0.5 else _stand(random, frames)
    limbs.yaw[:] = random.uniform(-np.pi, np.pi) + np.linspace(0, random.uniform(-2, 2) * np.pi, frames)
    return limbs


def _stand(random: np.random.Generator, frames: int) -> Limbs:
    curve = _curves(random, frames, 25)
    limbs = Limbs(**{field.name: np.zeros((frames, 3)) for field in fields(Limbs)})
    for side in ("left", "right"):
        apart = random.uniform(0.05, 0.5)
        for limb, outwards in (("upper_arm", apart), ("forearm", apart * 0.6), ("thigh", 0.1), ("calf", 0.05)):
            getattr(limbs, f"{side}_{limb}")[:] = (outwards, 1, 0)
    limbs.spine[:, 0], limbs.spine[:, 1] = curve(-0.1, 0.1), -1
    limbs.head_yaw, limbs.sway = curve(-0.5, 0.5), curve(-0.2, 0.2)
    limbs.yaw = np.full(frames, random.uniform(-0.8, 0.8))
    return limbs


def _curves(random: np.random.Generator, frames: int, hold: float) -> Callable[[float, float], np.ndarray]:
    """Makes smooth random curves f between two values, with a new goal about every ``hold`` frames."""

    def curve(low: float, high: float) -> np.ndarray:
        goals = random.uniform(low, high, int(frames / hold) + 3)
        place = np.arange(frames) / hold + random.random()
        index, share = place.astype(int), place % 1
        smooth = share**2 * (3 - 2 * share)
        return goals[index] + smooth * (goals[index + 1] - goals[index])

    return curve


def _bend(upper: np.ndarray, angle: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """A forearm: the upper arm's direction bent by an angle, towards a side that turns round the upper arm."""
    side = _unit(np.cross(upper, (0.3, 0.2, 1.0)))
    other = np.cross(upper, side)
    towards = np.cos(turn)[:, None] * other + np.sin(turn)[:, None] * side
    return np.cos(angle)[:, None] * upper + np.sin(angle)[:, None] * towards


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
