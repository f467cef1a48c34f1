"""What was measured, to look at: videos side by side, curves over the frames, a contact sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ..figures import draw_figure, new_figure
from ..optional import EVALUATE_EXTRA
from .report import COLUMNS, ROWS

STRIP = 18  # pixels; height of a line of captions
CURVES = ("psnr_star", "ssim", "l1", "lpips", "limb_iou", "person_iou", "identity")


def side_by_side(panels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Videos beside each other, with their names above.

    Args:
        panels: uint8 f H W 3 by name, all of one length and height; one frame (1 H W 3) stands still.

    Returns:
        uint8 f (H + 18) ΣW 3.
    """
    frames = max(len(video) for video in panels.values())
    columns = []
    for name, video in panels.items():
        strip = np.broadcast_to(caption(name, video.shape[2]), (frames, STRIP, video.shape[2], 3))
        columns.append(np.concatenate((strip, np.broadcast_to(video, (frames, *video.shape[1:]))), axis=1))
    return np.concatenate(columns, axis=2)


def caption(text: str, width: int) -> np.ndarray:
    """A line of light text on dark ground, cut at the width: uint8 18 width 3."""
    line = np.full((STRIP, width, 3), 32, np.uint8)
    # OpenCV's fonts have plain ASCII alone.
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(line, plain, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (235, 235, 235), 1, cv2.LINE_AA)
    return line


def plot_curves(rows: Mapping[str, Mapping[str, np.ndarray]], title: str) -> np.ndarray:
    """Every metric over the frames, a small diagram for each and a line for each row.

    Args:
        rows: Of each row (see `report.ROWS`), numbers f by the keys of `report.COLUMNS`.
        title: Above them.

    Returns:
        uint8 H W 3.

    Raises:
        InputError: matplotlib is missing.
    """
    keys = [key for key in CURVES if any(key in row for row in rows.values())]
    columns = min(2, len(keys))
    lines = math.ceil(len(keys) / columns)
    figure = new_figure(5.5 * columns, 2.6 * lines + 0.8, f"matplotlib, or {EVALUATE_EXTRA}")
    axes = np.atleast_1d(figure.subplots(lines, columns, squeeze=False).ravel())
    names = [name for name in ROWS if name in rows] + [name for name in rows if name not in ROWS]
    for axis, key in zip(axes, keys, strict=False):
        for number, name in enumerate(names):
            values = rows[name].get(key)
            if values is not None:
                marker = "." if len(values) == 1 else None
                label = ROWS.get(name, name).partition(" (")[0]
                axis.plot(values, color=f"C{number}", marker=marker, label=label, linewidth=1.4)
        axis.set_title(f"{COLUMNS[key].title} {COLUMNS[key].better}", fontsize=10)
        axis.grid(alpha=0.3)
        axis.margins(x=0.01)
    for axis in axes[len(keys) :]:
        axis.set_axis_off()
    for axis in axes[max(0, len(keys) - columns) : len(keys)]:
        axis.set_xlabel("frame")
    found = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=min(len(found), 3), fontsize=9)
    figure.suptitle(title)
    return draw_figure(figure)


def mean_curves(videos: Sequence[Mapping[str, Mapping[str, np.ndarray]]]) -> dict[str, dict[str, np.ndarray]]:
    """The mean over videos, frame by frame, of what `plot_curves` takes; shorter videos end earlier."""
    means: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for video in videos for name in video):
        rows = [video[name] for video in videos if name in video]
        for key in dict.fromkeys(key for row in rows for key in row):
            curves = [row[key] for row in rows if key in row]
            table = np.full((len(curves), max(map(len, curves))), np.nan)  # video f
            for line, curve in zip(table, curves, strict=True):
                line[: len(curve)] = curve
            known = np.isfinite(table)
            totals, counts = np.where(known, table, 0).sum(0), known.sum(0)
            means.setdefault(name, {})[key] = np.where(counts, totals / np.maximum(counts, 1), np.nan)
    return means


def contact_strip(
    name: str, reference: np.ndarray, truth: np.ndarray, made: np.ndarray, columns: int = 8, height: int = 128
) -> np.ndarray:
    """A clip at a glance: the reference picture, then equally spaced frames, the true ones above the made ones.

    Args:
        name: Of the clip.
        reference: uint8 H W 3.
        truth: uint8 f H W 3.
        made: The same.
        columns: How many frames.
        height: Of each, pixels.

    Returns:
        uint8, 18 + 2 · height high; clips of one size give strips of one size.
    """
    chosen = np.linspace(0, len(truth) - 1, columns).round().astype(int)
    width = max(1, round(height * truth.shape[2] / truth.shape[1]))

    def small(picture: np.ndarray) -> np.ndarray:
        way = cv2.INTER_AREA if picture.shape[0] > height else cv2.INTER_CUBIC
        return cv2.resize(picture, (width, height), interpolation=way)

    lines = [
        np.concatenate([first, *(small(video[index]) for index in chosen)], axis=1)
        for first, video in ((small(reference), truth), (np.full((height, width, 3), 32, np.uint8), made))
    ]
    title = caption(f"{name}: reference picture; truth above, made below", lines[0].shape[1])
    return np.concatenate([title, *lines])
