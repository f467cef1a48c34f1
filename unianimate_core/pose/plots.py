"""A motion at a glance: the course of its joints, which of them are seen when, and a sheet of its skeletons."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Callable, Sequence

import numpy as np

from ..errors import InputError
from ..figures import draw_figure, new_figure
from ..optional import EVALUATE_EXTRA, OPENCV, require
from .checks import check_choice
from .cleaning.points import PARTS, join_scores
from .drawing import draw_motion
from .keypoints import BODY_JOINTS, MotionTrack

REMEDY = f"matplotlib, or {EVALUATE_EXTRA}"
MAIN_JOINTS = ("nose", "right_wrist", "left_wrist", "right_ankle", "left_ankle")
_HANDS_AND_FACE = {"left hand": slice(20, 41), "right hand": slice(41, 62), "face": PARTS["face"]}
_DARK = 32
_LIGHT = (235, 235, 235)


def plot_tracks(
    track: MotionTrack,
    joints: Sequence[str] | None = None,
    *,
    before: MotionTrack | None = None,
    fps: float | None = None,
) -> np.ndarray:
    """The course of joints over time, x above y, in pixels.

    Args:
        track: The motion. Lines break where a joint is absent.
        joints: Names of `BODY_JOINTS`; None shows `MAIN_JOINTS`.
        before: The same motion before it was cleaned, drawn thin beneath.
        fps: Frames a second, for an axis in seconds; None counts frames.

    Returns:
        uint8 H W 3, RGB.

    Raises:
        InputError: An unknown joint or none, fps is not above 0, or matplotlib is missing.
    """
    joints = MAIN_JOINTS if joints is None else joints
    unknown = [joint for joint in joints if joint not in BODY_JOINTS]
    if unknown or not joints:
        wrong = f"There is no joint {', '.join(map(repr, unknown))}" if unknown else "no joint is chosen"
        raise InputError(f"{wrong}: give some of {', '.join(BODY_JOINTS)}")
    if fps is not None and not 0 < fps < math.inf:
        raise InputError(f"fps is {fps}: give the frames a second, above 0")
    figure = new_figure(11, 6.4, REMEDY)
    axes = figure.subplots(2, 1, sharex=True)
    for coordinate, axis in enumerate(axes):
        for number, joint in enumerate(joints):
            colour = f"C{number}" if len(joints) <= 10 else colorsys.hsv_to_rgb(number / len(joints), 0.9, 0.8)
            label = joint.replace("_", " ")
            for motion, name, width, alpha in ((before, None, 0.8, 0.45), (track, label, 1.6, 1.0)):
                if motion is None:
                    continue
                side = (motion.width, motion.height)[coordinate]
                values = motion.body[:, BODY_JOINTS.index(joint), coordinate] * side
                times = np.arange(len(motion)) / (fps or 1)
                axis.plot(times, values, color=colour, linewidth=width, alpha=alpha, label=name)
                alone = _stand_alone(values)  # no line goes through these
                axis.plot(times[alone], values[alone], ".", color=colour, markersize=4, alpha=alpha)
        axis.set_ylabel(f"{'xy'[coordinate]} in pixels")
        axis.grid(alpha=0.3)
        axis.margins(x=0.01)
    axes[1].invert_yaxis()  # up in the picture is up here
    axes[1].set_xlabel("frame" if fps is None else "seconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(len(joints), 6))
    figure.suptitle("Joints over time" + ("; thin: before" if before is not None else ""))
    return draw_figure(figure)


def plot_visibility(track: MotionTrack, *, before: MotionTrack | None = None) -> np.ndarray:
    """Which joints are seen in which frames, and how sure they are: a matrix of joints and frames.

    Hands and face have one row each, the mean score of their points.

    Args:
        track: The motion. Where scores are not known, points that are present count as sure.
        before: The same motion before it was cleaned, shown above.

    Returns:
        uint8 H W 3, RGB.

    Raises:
        InputError: matplotlib is missing.
    """
    motions = {"before": before, "after": track} if before is not None else {"": track}
    figure = new_figure(11, 0.7 + 4.4 * len(motions), REMEDY)
    axes = figure.subplots(len(motions), 1, squeeze=False)[:, 0]
    names = [*(joint.replace("_", " ") for joint in BODY_JOINTS), *_HANDS_AND_FACE]
    for axis, (title, motion) in zip(axes, motions.items(), strict=True):
        scores = join_scores(motion)  # f 130
        rows = [scores[:, :20], *(scores[:, part].mean(1, keepdims=True) for part in _HANDS_AND_FACE.values())]
        matrix = np.concatenate(rows, 1).T  # 23 f
        image = axis.imshow(matrix, aspect="auto", vmin=0, vmax=1, cmap="magma")
        axis.set_yticks(range(len(names)), names, fontsize=8)
        axis.set_yticks(np.arange(1, len(names)) - 0.5, minor=True)
        axis.grid(which="minor", axis="y", color="0.4", linewidth=0.5)
        axis.tick_params(which="minor", length=0)
        axis.set_title(title, fontsize=10)
    axes[-1].set_xlabel("frame")
    figure.colorbar(image, ax=list(axes), label="score; black is absent", pad=0.01)
    figure.suptitle("Joints seen")
    return draw_figure(figure)


def skeleton_sheet(
    track: MotionTrack, columns: int = 8, size: int = 160, *, rows: int = 3, before: MotionTrack | None = None
) -> np.ndarray:
    """A sheet of skeletons: equally spaced frames, each with its number.

    Args:
        track: The motion.
        columns: Pictures beside each other.
        size: Longer side of a picture, pixels.
        rows: Lines of pictures; fewer where the motion has fewer frames.
        before: The same motion before it was cleaned, of as many frames: each line of it stands above the line of the
            cleaned one.

    Returns:
        uint8 H W 3, RGB.

    Raises:
        InputError: A number below 1, motions of different lengths, or OpenCV is missing.
    """
    for name, value in (("columns", columns), ("size", size), ("rows", rows)):
        if not isinstance(value, (int, np.integer)) or not 1 <= value <= 4096:
            raise InputError(f"{name} is {value!r}: give a whole number from 1 to 4096")
    if before is not None and len(before) != len(track):
        raise InputError(f"before has {len(before)} frames, and the motion {len(track)}: give both with as many frames")
    cv2 = require("cv2", OPENCV)
    count = min(len(track), columns * rows)
    chosen = np.linspace(0, len(track) - 1, count).round().astype(int)
    columns = min(columns, count)
    scale = size / max(track.width, track.height)
    width, height = (max(1, round(side * scale)) for side in (track.width, track.height))
    motions = {"after": track} if before is None else {"before": before, "after": track}
    sheet = []
    for start in range(0, count, columns):
        for title, motion in motions.items():
            line = np.full((height + 2, columns * (width + 2), 3), _DARK, np.uint8)
            for column, frame in enumerate(chosen[start : start + columns].tolist()):
                picture = draw_motion(motion[frame], width, height)[0]
                text = f"{frame} {title}" if before is not None and column == 0 else str(frame)
                cv2.putText(picture, text, (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, _LIGHT, 1, cv2.LINE_AA)
                line[1:-1, column * (width + 2) + 1 :][:, :width] = picture
            sheet.append(line)
    return np.concatenate(sheet)


PLOTS: dict[str, Callable[..., np.ndarray]] = {
    "skeletons": skeleton_sheet,
    "tracks": plot_tracks,
    "visibility": plot_visibility,
}
"""By name: functions from a motion, and the one `before` it was cleaned, to a picture."""


def check_plot(name: str) -> None:
    """Raise InputError where a plot is unknown, or its package missing; before work that it is to show."""
    check_choice("plot", name, PLOTS)
    if name != "skeletons":
        require("matplotlib.figure", REMEDY)


def _stand_alone(values: np.ndarray) -> np.ndarray:
    """Which numbers have no number before and none after them: bool f."""
    there = np.concatenate([[False], np.isfinite(values), [False]])
    return there[1:-1] & ~there[:-2] & ~there[2:]
