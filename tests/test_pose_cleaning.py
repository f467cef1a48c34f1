"""Cleaning of motions: what holds for every operation, and gaps, flicker and outliers against plain loops."""

import itertools
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_tracks import PARTS, all_points, all_scores, presence, random_track, standing_person, tracks
from scipy.interpolate import PchipInterpolator

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, read_motion
from unianimate_core.pose.cleaning import (
    drop_flicker,
    drop_outliers,
    fill_gaps,
    hold_pose,
    loop,
    mirror,
    retime,
    scale_limbs,
    smooth,
    transform,
    trim,
)
from unianimate_core.pose.cleaning.skeleton import body_height

ROOT = Path(__file__).parent.parent
DANCE = read_motion(ROOT / "samples" / "dance.json")
SIZE = np.array([DANCE.width, DANCE.height])

# Which points may be present afterwards, compared with before.
KEEPS = {
    "smooth, one euro": smooth,
    "smooth, forwards": lambda track: smooth(track, both_ways=False, min_cutoff=0.1, beta=0),
    "smooth, savitzky-golay": lambda track: smooth(track, "savitzky-golay"),
    "transform": lambda track: transform(track, move=(0.1, -2), scale=0.3, rotate=50, pivot=(2, 0)),
    "scale_limbs": lambda track: scale_limbs(track, {"arms": 1.5, "torso": 0.2, "head": 3, "left hand": 0.7}),
}
DROPS = {
    "drop_flicker": drop_flicker,
    "drop_outliers": drop_outliers,
    "drop_outliers, strict": lambda track: drop_outliers(track, window=3, jump=0, deviations=0, stretch=0.5),
}
FILLS = {
    "fill_gaps": fill_gaps,
    "fill_gaps, linear": lambda track: fill_gaps(track, 3, method="linear", hold=5),
    "hold_pose": hold_pose,
}
RESTS = {
    "mirror": mirror,
    "trim": lambda track: trim(track, len(track) // 2),
    "retime": lambda track: retime(track, 30, 24),
    "retime, linear": lambda track: retime(track, 10, 33, method="linear"),
    "loop": lambda track: loop(track, 3, blend=len(track) // 3),
    "ping-pong": lambda track: loop(track, 3, "ping-pong"),
}


def same(one, other, **tolerance):
    tolerance = {"rtol": 1e-9, "atol": 1e-9} | tolerance
    assert (one.width, one.height) == (other.width, other.height)
    np.testing.assert_allclose(all_points(one), all_points(other), **tolerance)
    np.testing.assert_allclose(all_scores(one), all_scores(other), **tolerance)


@pytest.mark.parametrize("name", [*KEEPS, *DROPS, *FILLS, *RESTS])
@settings(max_examples=25, deadline=None)
@given(track=tracks())
def test_every_operation_keeps_a_motion_sound(name, track):
    operation = (KEEPS | DROPS | FILLS | RESTS)[name]
    points, scores = all_points(track).copy(), all_scores(track).copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = operation(track)
    np.testing.assert_array_equal(all_points(track), points, "the motion given was changed")
    np.testing.assert_array_equal(all_scores(track), scores)
    assert (result.width, result.height) == (track.width, track.height)
    there, before = presence(result), presence(track)
    if name in KEEPS:
        assert (there == before).all()
    elif name in DROPS:
        assert (before | ~there).all()
    elif name in FILLS and name != "hold_pose":
        assert (there | ~before).all()
    if name != "mirror":
        assert (before.any(0) | ~there.any(0)).all(), "a point came from nowhere"
    for part in PARTS:
        known = getattr(result, f"{part}_scores")
        assert (known is None) == (getattr(track, f"{part}_scores") is None)
        if known is not None:
            present = np.isfinite(getattr(result, part)).all(-1)
            assert (known[~present] == 0).all()
            assert (known[present] >= 0.3).all()
            assert (known[present] <= 1).all()


@pytest.mark.parametrize("name", ["fill_gaps", "fill_gaps, linear", "hold_pose", "drop_flicker"])
@settings(max_examples=20, deadline=None)
@given(track=tracks())
def test_a_second_pass_changes_nothing(name, track):
    once = (DROPS | FILLS)[name](track)
    same((DROPS | FILLS)[name](once), once, rtol=0, atol=0)


@settings(max_examples=25, deadline=None)
@given(
    track=tracks(frames=30, presence=0.6, spread=0.1),
    longest=st.integers(0, 12),
    hold=st.integers(0, 6),
    method=st.sampled_from(["pchip", "linear"]),
)
def test_gaps_are_filled_as_scipy_and_numpy_interpolate(track, longest, hold, method):
    filled = all_points(fill_gaps(track, longest, method=method, hold=hold))
    scores = all_scores(fill_gaps(track, longest, method=method, hold=hold))
    points, known, there = all_points(track), all_scores(track), presence(track)
    for joint in range(0, 130, 13):
        frames = np.flatnonzero(there[:, joint])
        expected, sure = points[:, joint].copy(), known[:, joint].copy()
        begin = 0
        for present, group in itertools.groupby(there[:, joint]):
            end = begin + len(list(group))
            gap, begin = range(begin, end), end
            if present or len(frames) == 0:
                continue
            sides = [frame for frame in (gap[0] - 1, gap[-1] + 1) if 0 <= frame < len(track)]
            if len(gap) > (longest if len(sides) == 2 else hold):
                continue
            for frame in gap:
                if len(sides) == 1:
                    expected[frame] = points[sides[0], joint]
                elif method == "linear":
                    expected[frame] = [np.interp(frame, frames, points[frames, joint, axis]) for axis in (0, 1)]
                else:
                    expected[frame] = PchipInterpolator(frames, points[frames, joint])(frame)
                sure[frame] = min(known[side, joint] for side in sides)
        np.testing.assert_allclose(filled[:, joint], expected, atol=1e-12)
        np.testing.assert_array_equal(scores[:, joint], sure)


def test_what_was_there_is_left_as_it_was():
    track = random_track(3, 40, presence=0.7)
    there = presence(track)
    np.testing.assert_array_equal(all_points(fill_gaps(track))[there], all_points(track)[there])
    np.testing.assert_array_equal(all_scores(fill_gaps(track))[there], all_scores(track)[there])


def test_pchip_is_nearer_to_the_true_dance_than_linear():
    rng = np.random.default_rng(0)
    body = DANCE.body.copy()
    for joint in range(20):
        for start in range(rng.integers(3, 20), 270, 20):
            body[start : start + 5, joint] = np.nan
    holes = MotionTrack(body, width=DANCE.width, height=DANCE.height)
    error = {}
    for method in ("linear", "pchip"):
        filled = fill_gaps(holes, method=method)
        assert presence(filled)[:, :20].all()
        error[method] = np.sqrt((((filled.body - DANCE.body) * SIZE)[np.isnan(body)] ** 2).mean())
    assert error["pchip"] < 0.85 * error["linear"]
    assert error["pchip"] < 0.01 * body_height(DANCE)


def test_without_scipy_the_remedy_is_told_and_linear_works(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.interpolate", None)
    track = random_track(3, 40, presence=0.7)
    for operation in (fill_gaps, lambda track, **how: retime(track, 30, 24, **how)):
        with pytest.raises(InputError, match="install the package scipy, or choose linear"):
            operation(track)
        operation(track, method="linear")
    for operation in (*KEEPS.values(), *DROPS.values()):
        operation(track)


def test_a_pose_is_held_while_nobody_is_there():
    body = np.full((7, 20, 2), np.nan)
    body[2, 5], body[3, 9] = 0.2, 0.3
    hands = np.full((7, 2, 21, 2), np.nan)
    hands[3], hands[5] = 0.4, 0.5
    held = hold_pose(MotionTrack(body, hands, width=10, height=20))
    expected = [2, 2, 2, 3, 3, 3, 3]
    np.testing.assert_array_equal(held.body, body[expected])
    np.testing.assert_array_equal(held.hands, hands[expected], "a hand without a body is replaced too")
    nobody = MotionTrack(np.full((2, 20, 2), np.nan), width=10, height=20)
    assert not presence(hold_pose(nobody)).any()


@settings(max_examples=40, deadline=None)
@given(track=tracks(), shortest=st.integers(1, 8))
def test_flicker_is_dropped_run_by_run(track, shortest):
    there = presence(track)
    expected = np.zeros_like(there)
    for joint in range(130):
        run = [(present, len(list(group))) for present, group in itertools.groupby(there[:, joint])]
        long = [present and (length >= shortest or length == len(track)) for present, length in run]
        expected[:, joint] = np.repeat(long, [length for _, length in run])
    result = drop_flicker(track, shortest)
    np.testing.assert_array_equal(presence(result), expected)
    np.testing.assert_array_equal(all_points(result)[expected], all_points(track)[expected])


@settings(max_examples=20, deadline=None)
@given(
    track=tracks(frames=25, spread=0.3),
    window=st.sampled_from([3, 5, 7, 31]),
    jump=st.floats(0, 0.5),
    deviations=st.floats(0, 6),
)
def test_jumps_are_hampels(track, window, jump, deviations):
    result = presence(drop_outliers(track, window=window, jump=jump, deviations=deviations, stretch=0))
    pixels, there = all_points(track) * (track.width, track.height), presence(track)
    height = body_height(track)
    for joint in range(0, 130, 17):
        for frame in range(len(track)):
            near = [n for n in range(frame - window // 2, frame + window // 2 + 1) if 0 <= n < len(track)]
            near = [pixels[n, joint] for n in near if there[n, joint]]
            expected = there[frame, joint]
            if expected and len(near) >= 3:
                median = [statistics.median(point[axis] for point in near) for axis in (0, 1)]
                spread = statistics.median(np.hypot(*(point - median)) for point in near)
                distance = np.hypot(*(pixels[frame, joint] - median))
                limit = max(jump * height, deviations * 1.4826 * spread)
                if abs(distance - limit) < 1e-9 * height:
                    continue
                expected = distance <= limit
            assert result[frame, joint] == expected


def test_points_thrown_far_away_are_found_and_the_others_kept():
    assert presence(drop_outliers(DANCE))[:, :20].all()
    rng = np.random.default_rng(0)
    body = DANCE.body * SIZE
    hit = rng.random(body.shape[:2]) < 0.01
    angle = rng.uniform(0, 2 * np.pi, hit.sum())
    body[hit] += 0.3 * body_height(DANCE) * np.stack([np.cos(angle), np.sin(angle)], -1)
    there = presence(drop_outliers(MotionTrack(body / SIZE, width=DANCE.width, height=DANCE.height)))[:, :20]
    assert there[hit].mean() < 0.05
    assert there[~hit].mean() > 0.998


@pytest.mark.parametrize(
    ("wrong", "dropped"), [({3}, {3}), ({4}, {4}), ({1}, {1}), ({9}, {9}), ({0}, {0}), ({3, 4}, {3}), (set(), set())]
)
def test_a_limb_too_long_costs_the_joint_at_its_outer_end(wrong, dropped):
    track = standing_person(600, 30)
    body = track.body.copy()
    body[10:20, list(wrong), 0] += 0.6  # for too long to be a jump
    result = drop_outliers(MotionTrack(body, width=1000, height=1000))
    absent = ~presence(result)[:, :20]
    assert set(np.flatnonzero(absent.any(0))) == dropped
    assert (absent[:, list(dropped)].any(1) == (np.isin(np.arange(30), range(10, 20)) & bool(dropped))).all()
    assert presence(drop_outliers(MotionTrack(body, width=1000, height=1000), stretch=0))[:, :20].all()


def test_a_hand_far_from_its_wrist_is_dropped_whole():
    person = standing_person(600, 30)
    hands = np.tile(person.body[:, [7, 4]][:, :, None], (1, 1, 21, 1))
    hands += np.random.default_rng(0).uniform(-0.03, 0.03, (2, 21, 2))  # 3 % of 1000 pixels about the wrist
    hands[10:20, 0, :, 1] -= 0.3
    there = presence(drop_outliers(MotionTrack(person.body, hands, width=1000, height=1000)))
    assert there[:, :20].all()
    assert there[:, 41:62].all()
    assert not there[10:20, 20:41].any()
    assert there[np.r_[:10, 20:30], 20:41].all()


def test_a_person_may_come_nearer_and_limbs_may_look_short():
    walker = np.stack([standing_person(h).body[0] for h in np.r_[np.full(50, 150), np.linspace(150, 800, 40)]])
    assert presence(drop_outliers(MotionTrack(walker, width=1000, height=1000)))[:, :20].all()
    pointing = standing_person(600, 60).body.copy()
    pointing[:50, 3:5] = pointing[:50, [2]] + [[0.005, 0.005], [0.01, 0.005]]  # at the camera; then hanging down
    assert presence(drop_outliers(MotionTrack(pointing, width=1000, height=1000)))[:, :20].all()


@pytest.mark.parametrize("height", [80, 600, 5000])
def test_the_body_height_is_that_of_the_person(height):
    person = standing_person(height, 3)
    assert body_height(person) == pytest.approx(height, rel=1e-6)
    assert body_height(transform(person, rotate=77, move=(0.3, 1))) == pytest.approx(height, rel=1e-6)
    half = person.body.copy()
    half[:, [8, 9, 10, 11, 12, 13, 18, 19]] = np.nan  # a portrait
    assert body_height(MotionTrack(half, width=1000, height=1000)) == pytest.approx(height, rel=1e-6)
    sitting = person.body.copy()
    sitting[1:, 9] = sitting[1:, 8]  # the thigh points at the camera in most frames
    assert body_height(MotionTrack(sitting, width=1000, height=1000)) == pytest.approx(height, rel=0.05)


@pytest.mark.parametrize("joints", [[], [4], [14, 15]])
def test_where_nothing_can_be_measured_the_canvas_is(joints):
    body = np.full((2, 20, 2), np.nan)
    body[:, joints] = 0.5
    assert body_height(MotionTrack(body, width=300, height=200)) == 200


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda t: fill_gaps(t, -1), "longest is -1: give a whole number, 0 or more"),
        (lambda t: fill_gaps(t, 2.5), "longest is 2.5"),
        (lambda t: fill_gaps(t, hold=-2), "hold is -2"),
        (lambda t: fill_gaps(t, method="cubic"), "method is 'cubic': choose one of pchip, linear"),
        (lambda t: drop_flicker(t, 0), "shortest is 0: give a whole number, 1 or more"),
        (lambda t: drop_outliers(t, window=4), "window is 4: give an odd number"),
        (lambda t: drop_outliers(t, window=103), "window is 103: give a whole number, from 1 to 101"),
        (lambda t: drop_outliers(t, jump=-0.1), "jump is -0.1: give a number of body heights from 0 to 10"),
        (lambda t: drop_outliers(t, deviations=float("nan")), "deviations is nan"),
        (lambda t: drop_outliers(t, stretch="x"), "stretch is 'x'"),
    ],
)
def test_wrong_settings_are_named(operation, words):
    with pytest.raises(InputError, match=words):
        operation(DANCE)


def test_ten_thousand_frames_take_seconds():
    rng = np.random.default_rng(0)
    body = np.cumsum(rng.normal(0, 0.002, (10_000, 20, 2)), 0)
    body[rng.random((10_000, 20)) < 0.02] = np.nan
    track = MotionTrack(body, width=512, height=768)
    start = time.process_time()
    smooth(fill_gaps(drop_outliers(drop_flicker(track))))
    assert time.process_time() - start < 15


def test_importing_loads_nothing_heavy():
    optional = {"scipy", "matplotlib", "cv2"}
    modules = "unianimate_core.pose.cleaning, unianimate_core.pose.plots, unianimate_core.pose.export"
    code = f"import sys, {modules}; print(*({optional} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""
