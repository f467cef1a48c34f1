"""All points of a motion in one array, which most operations work on, and the runs of frames in which they are seen."""

from __future__ import annotations

import numpy as np

from ..keypoints import MotionTrack

PARTS = {"body": slice(0, 20), "hands": slice(20, 62), "face": slice(62, 130)}
"""Where the parts of a track lie among the 130 points: body, left hand, right hand, face."""

MOST_FRAMES = 1_000_000
"""Longer motions are not made; one of so many frames takes 2 GB."""


def join_points(track: MotionTrack) -> np.ndarray:
    """All points, f 130 2, in fractions of the canvas: a new array."""
    return np.concatenate([getattr(track, part).reshape(len(track), -1, 2) for part in PARTS], axis=1)


def join_scores(track: MotionTrack) -> np.ndarray:
    """All scores, f 130; 1 for points that are present with a score that is not known, 0 for absent ones."""
    scores = is_present(join_points(track)).astype(np.float64)  # f 130
    for part, where in PARTS.items():
        known = getattr(track, f"{part}_scores")
        if known is not None:
            scores[:, where] = known.reshape(len(track), -1)
    return scores


def split_points(track: MotionTrack, points: np.ndarray, scores: np.ndarray | None = None) -> MotionTrack:
    """A track with other points on the same canvas.

    Args:
        track: Gives the canvas, and says of which parts the scores are known.
        points: F 130 2, fractions; the number of frames may be another.
        scores: F 130; None keeps the track's, with 0 where a point is absent now.
    """
    scores = join_scores(track) if scores is None else scores
    scores = np.where(is_present(points), scores, 0.0)
    fields = {}
    for part, where in PARTS.items():
        shape = getattr(track, part).shape[1:-1]
        fields[part] = points[:, where].reshape(len(points), *shape, 2)
        if getattr(track, f"{part}_scores") is not None:
            fields[f"{part}_scores"] = scores[:, where].reshape(len(points), *shape)
    return MotionTrack(**fields, width=track.width, height=track.height)


def is_present(points: np.ndarray) -> np.ndarray:
    """Whether each point is there: bool, of the shape of points (… 2) without the last axis."""
    return np.isfinite(points).all(-1)


def find_runs(present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame and point, the run of frames in which the point stays as it is there: present, or absent.

    Args:
        present: Bool f n.

    Returns:
        The run's first frame and the one after its last, each int f n.
    """
    frames = len(present)
    numbers = np.arange(frames)[:, None]  # f 1
    change = present[1:] != present[:-1]
    border = np.ones((1, *present.shape[1:]), bool)
    begins, ends = np.concatenate([border, change]), np.concatenate([change, border])  # f n
    first = np.maximum.accumulate(np.where(begins, numbers, 0))
    last = np.minimum.accumulate(np.where(ends, numbers, frames)[::-1])[::-1]
    return first, last + 1


def used_points(points: np.ndarray) -> np.ndarray:
    """The numbers of the points that are present in any frame: operations leave the others out."""
    return np.flatnonzero(is_present(points).any(0))
