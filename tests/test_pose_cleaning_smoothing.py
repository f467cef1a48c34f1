"""Smoothing: the one euro filter against a plain loop, Savitzky-Golay against SciPy, both on a dance with noise."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_tracks import all_points, presence, random_track, tracks
from scipy.signal import savgol_filter

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, read_motion
from unianimate_core.pose.cleaning import smooth, transform
from unianimate_core.pose.cleaning.skeleton import body_height

DANCE = read_motion(Path(__file__).parent.parent / "samples" / "dance.json")
SIZE = np.array([DANCE.width, DANCE.height])


class OneEuroFilter:
    """Algorithms 1 to 3 of Casiez, Roussel & Vogel, "1 € Filter", CHI 2012, for one number at a time."""

    def __init__(self, rate, mincutoff, beta, dcutoff):
        self.rate, self.mincutoff, self.beta, self.dcutoff = rate, mincutoff, beta, dcutoff
        self.first_time, self.hatxprev, self.hatdxprev = True, None, None

    def alpha(self, cutoff):
        tau = 1 / (2 * np.pi * cutoff)
        te = 1 / self.rate
        return 1 / (1 + tau / te)

    def filter(self, x):
        dx = 0.0 if self.first_time else (x - self.hatxprev) * self.rate
        edx = dx if self.first_time else self.low_pass(dx, self.hatdxprev, self.alpha(self.dcutoff))
        cutoff = self.mincutoff + self.beta * abs(edx)
        hatx = x if self.first_time else self.low_pass(x, self.hatxprev, self.alpha(cutoff))
        self.first_time, self.hatxprev, self.hatdxprev = False, hatx, edx
        return hatx

    @staticmethod
    def low_pass(x, hatxprev, alpha):
        return alpha * x + (1 - alpha) * hatxprev


def run_filter(values, *settings):
    one = OneEuroFilter(*settings)
    return np.array([one.filter(value) for value in values])


def runs_of(present):
    edges = np.flatnonzero(np.diff(np.r_[0, present.astype(int), 0]))
    return [slice(begin, end) for begin, end in edges.reshape(-1, 2)]


def distorted(body, pixels, seed=0):
    noise = np.random.default_rng(seed).normal(0, pixels, body.shape)
    return MotionTrack((body * SIZE + noise) / SIZE, width=DANCE.width, height=DANCE.height)


def error(track, truth, order=0):
    """Root mean square distance in pixels; of the accelerations for order 2."""
    distance = np.diff((track.body - truth) * SIZE, n=order, axis=0)
    return np.sqrt((distance**2).sum(-1).mean())


@settings(max_examples=25, deadline=None)
@given(
    track=tracks(frames=20, presence=0.7),
    fps=st.floats(1, 240),
    min_cutoff=st.floats(0.01, 100),
    beta=st.floats(0, 100),
    derivative_cutoff=st.floats(0.01, 100),
)
def test_one_euro_is_the_papers(track, fps, min_cutoff, beta, derivative_cutoff):
    result = smooth(
        track,
        fps=fps,
        min_cutoff=min_cutoff,
        beta=beta,
        derivative_cutoff=derivative_cutoff,
        both_ways=False,
    )
    unit = body_height(track)
    heights = all_points(track) * (track.width, track.height) / unit
    got = all_points(result) * (track.width, track.height) / unit
    for joint in range(0, 130, 13):
        for run in runs_of(presence(track)[:, joint]):
            for axis in (0, 1):
                expected = run_filter(heights[run, joint, axis], fps, min_cutoff, beta, derivative_cutoff)
                np.testing.assert_allclose(got[run, joint, axis], expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(track=tracks(frames=40, presence=0.8), fps=st.floats(5, 120), min_cutoff=st.floats(0.1, 20))
def test_both_ways_is_forwards_then_backwards_over_a_run_turned_round_its_ends(track, fps, min_cutoff):
    result = smooth(track, fps=fps, min_cutoff=min_cutoff)
    unit = body_height(track)
    heights = all_points(track) * (track.width, track.height) / unit
    got = all_points(result) * (track.width, track.height) / unit
    for joint in range(0, 130, 13):
        for run in runs_of(presence(track)[:, joint]):
            for axis in (0, 1):
                values = heights[run, joint, axis]
                extra = min(len(values) - 1, int(np.ceil(fps / (2 * min_cutoff))))
                longer = np.pad(values, extra, mode="reflect", reflect_type="odd")
                forwards = run_filter(longer, fps, min_cutoff, 15.0, 5.0)
                expected = run_filter(forwards[::-1], fps, min_cutoff, 15.0, 5.0)[::-1]
                expected = expected[extra : extra + len(values)]
                np.testing.assert_allclose(got[run, joint, axis], expected, rtol=1e-8, atol=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    track=tracks(frames=40, presence=0.85, spread=0.3),
    window=st.sampled_from([1, 3, 5, 7, 11, 21]),
    order=st.integers(0, 4),
)
def test_savitzky_golay_is_scipys(track, window, order):
    if order >= window:
        with pytest.raises(InputError, match=f"order is {order}, and window {window}"):
            smooth(track, "savitzky-golay", window=window, order=order)
        return
    points, got = all_points(track), all_points(smooth(track, "savitzky-golay", window=window, order=order))
    for joint in range(0, 130, 7):
        for run in runs_of(presence(track)[:, joint]):
            length = run.stop - run.start
            own = min(window, length if length % 2 else length - 1)
            expected = points[run, joint]
            if own > order:
                expected = savgol_filter(expected, own, order, axis=0, mode="interp")
            np.testing.assert_allclose(got[run, joint], expected, atol=1e-9)


@pytest.mark.parametrize("method", ["one euro", "savitzky-golay"])
def test_noise_goes_and_the_dance_stays(method):
    truth = savgol_filter(DANCE.body, 7, 2, axis=0)  # whole pixels are noise too
    for pixels, better in ((2, 0.7), (4, 0.62)):
        noisy = distorted(truth, pixels)
        smoothed = smooth(noisy, method)
        assert error(smoothed, truth) < better * error(noisy, truth)
        assert error(smoothed, truth, order=2) < 0.3 * error(noisy, truth, order=2), "jitter is left"


def test_filtered_both_ways_nothing_lags():
    def lag(track):
        """Frames by which a track is behind: where its mean square difference from the truth is least."""
        shifts = np.arange(-2, 2.01, 0.05)
        frames = np.arange(len(DANCE))
        course = DANCE.body.reshape(len(DANCE), -1)
        differences = []
        for shift in shifts:
            moved = np.stack([np.interp(frames - shift, frames, values) for values in course.T], -1)
            differences.append(((track.body.reshape(len(DANCE), -1) - moved)[4:-4] ** 2).sum())
        return shifts[np.argmin(differences)]

    noisy = distorted(DANCE.body, 2)
    assert abs(lag(smooth(noisy))) < 0.1
    assert abs(lag(smooth(noisy, "savitzky-golay"))) < 0.15
    assert lag(smooth(noisy, both_ways=False)) > 0.2
    # Nor does the last frame, which has none after it.
    last = {
        ways: np.sqrt((((smooth(DANCE, both_ways=ways).body - DANCE.body)[-1] * SIZE) ** 2).mean()) for ways in (0, 1)
    }
    assert last[1] < 0.2 * last[0]


@pytest.mark.parametrize("both_ways", [False, True])
def test_settings_mean_the_same_at_every_size(both_ways):
    noisy = distorted(DANCE.body, 3)
    expected = smooth(noisy, both_ways=both_ways).body
    larger = MotionTrack(noisy.body, width=4 * DANCE.width, height=4 * DANCE.height)
    np.testing.assert_allclose(smooth(larger, both_ways=both_ways).body, expected, rtol=1e-9)
    farther = smooth(transform(noisy, scale=0.25), both_ways=both_ways)
    np.testing.assert_allclose(farther.body, transform(MotionTrack(expected, width=512, height=768), scale=0.25).body)


@pytest.mark.parametrize("method", ["one euro", "savitzky-golay"])
def test_each_run_and_each_joint_is_smoothed_by_itself(method):
    track = random_track(5, 40, presence=1.0, spread=0.05)
    body = track.body.copy()
    body[15:20, 3] = np.nan
    broken = MotionTrack(body, track.hands, track.face, width=track.width, height=track.height)
    unit = {"min_cutoff": 2.0, "beta": 0.0}  # with beta, the body height matters, and it is another one
    got = smooth(broken, method, **unit)
    for part in (slice(0, 15), slice(20, 40)):
        expected = smooth(broken[part], method, **unit)
        np.testing.assert_allclose(got.body[part, 3], expected.body[:, 3], atol=1e-12)
    whole = smooth(MotionTrack(track.body, width=track.width, height=track.height), method, **unit)
    np.testing.assert_allclose(np.delete(got.body, 3, 1), np.delete(whole.body, 3, 1), atol=1e-12)


@pytest.mark.parametrize("method", ["one euro", "savitzky-golay"])
def test_what_does_not_move_and_what_moves_evenly_stays(method):
    still = MotionTrack(np.tile(DANCE.body[:1], (30, 1, 1)), width=512, height=768)
    np.testing.assert_allclose(smooth(still, method).body, still.body, atol=1e-12)
    moving = MotionTrack(still.body + np.arange(30)[:, None, None] * [0.01, -0.02], width=512, height=768)
    tolerance = 1e-12 if method == "savitzky-golay" else 0.0075  # of a step of 0.02
    np.testing.assert_allclose(smooth(moving, method).body, moving.body, atol=tolerance)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "kalman"}, "method is 'kalman': choose one of one euro, savitzky-golay"),
        ({"fps": 0}, "fps is 0: give a number from 0.1 to 1000"),
        ({"min_cutoff": 0}, "min_cutoff is 0: give a number of Hz from 0.001 to 1000"),
        ({"beta": -1}, "beta is -1"),
        ({"derivative_cutoff": float("inf")}, "derivative_cutoff is inf"),
        ({"window": 6}, "window is 6: give an odd number"),
        ({"window": -3}, "window is -3: give a whole number, from 1 to 101"),
        ({"order": -1}, "order is -1"),
        ({"order": 2.0}, "order is 2.0: give a whole number"),
        (
            {"method": "savitzky-golay", "window": 3, "order": 3},
            "order is 3, and window 3: give a window of more frames than the order",
        ),
    ],
)
def test_wrong_settings_are_named(settings, words):
    with pytest.raises(InputError, match=words):
        smooth(DANCE, **settings)
