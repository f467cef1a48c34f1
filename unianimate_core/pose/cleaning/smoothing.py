"""Jitter taken out of a motion, without the lag."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ...errors import InputError
from ..checks import FPS_RANGE, check_choice, check_number, check_odd, check_whole
from ..keypoints import MotionTrack
from .points import find_runs, is_present, join_points, split_points, used_points
from .skeleton import body_height

Smoothing = Literal["one euro", "savitzky-golay"]
SMOOTHINGS: tuple[Smoothing, ...] = ("one euro", "savitzky-golay")


def smooth(
    track: MotionTrack,
    method: Smoothing = "one euro",
    *,
    fps: float = 30.0,
    min_cutoff: float = 2.0,
    beta: float = 15.0,
    derivative_cutoff: float = 5.0,
    both_ways: bool = True,
    window: int = 7,
    order: int = 2,
) -> MotionTrack:
    """Smooth the course of every joint.

    Each run of frames between absences is smoothed by itself, and absent points stay absent: `fill_gaps` first, where
    gaps are to be closed. Scores are kept.

    ``one euro`` is the filter of Casiez, Roussel & Vogel (CHI 2012), a low-pass whose cutoff rises with speed: what is
    still is held still, what is fast does not lag. Speed is measured in body heights per second, so that settings mean
    the same at every resolution and distance. ``savitzky-golay`` (1964) puts a polynomial through each window, and so
    smooths rest and motion alike.

    Args:
        track: The motion.
        method: One of `SMOOTHINGS`. The others' settings are checked, and not used.
        fps: Frames a second. One euro.
        min_cutoff: Cutoff at rest, in Hz; lower for less jitter. One euro.
        beta: By how many Hz the cutoff rises with one body height a second; higher for less lag. One euro.
        derivative_cutoff: Cutoff for the speed itself, in Hz. One euro.
        both_ways: Filter forwards, then what came of it backwards, by which lags cancel out. Else forwards only, as
            for live pictures. One euro.
        window: Odd number of frames; runs that are shorter are smoothed in the longest odd window that fits.
            Savitzky-Golay.
        order: Degree of the polynomial, less than the window. Savitzky-Golay.

    Raises:
        InputError: A number out of range, or an unknown method.
    """
    check_choice("method", method, SMOOTHINGS)
    check_number("fps", fps, *FPS_RANGE)
    check_number("min_cutoff", min_cutoff, 0.001, 1000, "Hz")
    check_number("beta", beta, 0, 10_000)
    check_number("derivative_cutoff", derivative_cutoff, 0.001, 1000, "Hz")
    check_odd("window", window, 101)
    check_whole("order", order, 0, 10)
    if method == "savitzky-golay" and order >= window:
        raise InputError(f"order is {order}, and window {window}: give a window of more frames than the order")
    points = join_points(track)  # f 130 2
    used = used_points(points)
    course = points[:, used]  # f n 2
    if method == "savitzky-golay":
        points[:, used] = _savitzky_golay(course, window, order)
    else:
        unit = body_height(track) / np.array([track.width, track.height])  # one body height, in fractions of the canvas
        settings = (fps, min_cutoff, beta, derivative_cutoff)
        filtered = _both_ways(course / unit, *settings) if both_ways else _one_euro(course / unit, *settings)
        points[:, used] = filtered * unit
    return split_points(track, points)


def _both_ways(course: np.ndarray, *settings: float) -> np.ndarray:
    """Filter every run of f n 2 forwards, and the result backwards.

    A run is lengthened beyond its ends by itself turned round them, as `scipy.signal.filtfilt` does it: else the last
    frames would lag, which have no later ones to be pulled by.
    """
    fps, min_cutoff, *_ = settings
    result = np.full_like(course, np.nan)  # f n 2
    begin, end = find_runs(is_present(course))  # f n
    first, point = np.nonzero(is_present(course) & (begin == np.arange(len(course))[:, None]))  # r
    length = end[first, point] - first  # r
    extra = np.minimum(length - 1, int(np.ceil(fps / (2 * min_cutoff))))  # r; about three time constants
    size = np.ceil(np.log2(length)).astype(int)  # r
    for group in (np.flatnonzero(size == n) for n in np.unique(size)):  # of like lengths, so that no memory is wasted
        start, stop, column = first[group], (first + length - 1)[group], point[group]  # g
        place = np.arange(-extra[group].max(), (length + extra)[group].max())[:, None] + start  # t g; frames
        inside = np.where(place < start, 2 * start - place, np.where(place > stop, 2 * stop - place, place))
        pivot = np.clip(place, start, stop)  # t g
        runs = course[np.clip(inside, start, stop), column]  # t g 2
        runs = np.where((inside != place)[..., None], 2 * course[pivot, column] - runs, runs)
        runs[(place < start - extra[group]) | (place > stop + extra[group])] = np.nan
        runs = _one_euro(_one_euro(runs, *settings)[::-1], *settings)[::-1]
        own = (place >= start) & (place <= stop)  # t g
        result[place[own], np.broadcast_to(column, place.shape)[own]] = runs[own]
    return result


def _one_euro(course: np.ndarray, fps: float, min_cutoff: float, beta: float, derivative_cutoff: float) -> np.ndarray:
    """Filter f n 2, in body heights, coordinate by coordinate (Casiez et al. 2012, algorithms 1 to 3)."""

    def alpha(cutoff):
        return 1 / (1 + fps / (2 * np.pi * cutoff))

    result = np.empty_like(course)  # f n 2
    last = np.full(course.shape[1:], np.nan)  # n 2
    speed = np.zeros(course.shape[1:])  # n 2
    for place, out in zip(course, result, strict=True):
        first = np.isnan(last)  # of its run
        speed += alpha(derivative_cutoff) * ((place - last) * fps - speed)
        speed[first] = 0
        out[:] = last + alpha(min_cutoff + beta * abs(speed)) * (place - last)
        out[first] = place[first]
        last = out
    return result


def _savitzky_golay(course: np.ndarray, window: int, order: int) -> np.ndarray:
    """Smooth f n 2; within half a window of a run's ends, the polynomial of the window that ends there is read."""
    result = course.copy()
    present = is_present(course)  # f n
    begin, end = find_runs(present)  # f n
    longest = end - begin
    own = np.minimum(window, longest - (longest % 2 == 0))  # f n; the window of each point
    for width in range(order + 1 + order % 2, window + 1, 2):  # narrower ones change nothing
        frame, point = np.nonzero(present & (own == width))
        if len(frame) == 0:
            continue
        start = np.clip(frame - width // 2, begin[frame, point], end[frame, point] - width)
        powers = np.vander(np.linspace(-1, 1, width), order + 1)  # w order+1
        weights = powers @ np.linalg.pinv(powers)  # w w; row: place in the window, column: frame of it
        smoothed = np.zeros((len(frame), 2))
        for offset in range(width):
            smoothed += weights[frame - start, offset, None] * course[start + offset, point]
        result[frame, point] = smoothed
    return result
