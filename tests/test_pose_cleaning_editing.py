"""Editing of motions: parts, frame rates, loops, mirrors, places and limbs, against NumPy, SciPy and OpenCV."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_tracks import all_points, all_scores, presence, random_track, standing_person, tracks
from scipy.interpolate import PchipInterpolator, interp1d

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, align_motion, read_motion
from unianimate_core.pose.cleaning import LIMBS, loop, mirror, retime, scale_limbs, transform, trim
from unianimate_core.pose.keypoints import BODY_JOINTS

DANCE = read_motion(Path(__file__).parent.parent / "samples" / "dance.json")


def same(one, other, **tolerance):
    tolerance = {"rtol": 1e-9, "atol": 1e-9} | tolerance
    assert (one.width, one.height) == (other.width, other.height)
    np.testing.assert_allclose(all_points(one), all_points(other), **tolerance)
    np.testing.assert_allclose(all_scores(one), all_scores(other), **tolerance)


def pixels(track):
    return all_points(track) * (track.width, track.height)


# Trim, retime, loop


@settings(max_examples=30, deadline=None)
@given(track=tracks(frames=15), start=st.integers(0, 14), data=st.data())
def test_trim_is_a_slice(track, start, data):
    frames = data.draw(st.integers(1, 15 - start) | st.none())
    cut = trim(track, start, frames)
    stop = None if frames is None else start + frames
    np.testing.assert_array_equal(all_points(cut), all_points(track)[start:stop])
    np.testing.assert_array_equal(all_scores(cut), all_scores(track)[start:stop])
    same(trim(cut, 0, len(cut)), cut, atol=0, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    frames=st.integers(2, 30),
    seed=st.integers(0, 1000),
    rates=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    method=st.sampled_from(["pchip", "linear"]),
)
def test_retime_is_scipys_interpolation(frames, seed, rates, method):
    track = random_track(seed, frames, presence=1.0, spread=0.1)
    result = retime(track, *rates, method=method)
    count = (frames - 1) * rates[1] // rates[0] + 1
    assert len(result) == count
    times = np.minimum(np.arange(count) * rates[0] / rates[1], frames - 1)
    curve = PchipInterpolator if method == "pchip" else lambda x, y: interp1d(x, y, axis=0)
    np.testing.assert_allclose(all_points(result), curve(np.arange(frames), all_points(track))(times), atol=1e-9)
    scores = interp1d(np.arange(frames), all_scores(track), axis=0)(times)
    np.testing.assert_allclose(all_scores(result), scores, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(track=tracks(frames=12, presence=0.7), rates=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_between_frames_a_point_needs_both(track, rates):
    there, result = presence(track), presence(retime(track, *rates))
    for number, present in enumerate(result):
        frame, rest = divmod(number * rates[0], rates[1])
        expected = there[frame] & there[frame + 1] if rest else there[frame]
        np.testing.assert_array_equal(present, expected)


@settings(max_examples=30, deadline=None)
@given(
    track=tracks(frames=12, spread=0.1),
    fps=st.sampled_from([24.0, 30000 / 1001, 12.5]),
    times=st.integers(1, 5),
    method=st.sampled_from(["pchip", "linear"]),
)
def test_retiming_is_undone_and_the_same_rate_changes_nothing(track, fps, times, method):
    same(retime(track, fps, fps), track, rtol=0, atol=0)
    faster = retime(track, fps, times * fps, method=method)
    assert len(faster) == times * 11 + 1
    same(retime(faster, times * fps, fps, method=method), track)


def test_rounded_rates_hit_the_frames_they_mean():
    track = random_track(1, 25, presence=0.6)
    np.testing.assert_array_equal(presence(retime(track, 59.94, 29.97)), presence(track)[::2])
    assert len(retime(track, 23.976, 2 * 23.976)) == 49


@settings(max_examples=30, deadline=None)
@given(track=tracks(), times=st.integers(1, 4), data=st.data())
def test_repeating_is_numpys_tile_with_its_seams_blended(track, times, data):
    same(loop(track, 1, data.draw(st.sampled_from(["repeat", "ping-pong"]))), track, rtol=0, atol=0)
    frames = len(track)
    points = all_points(track)
    np.testing.assert_array_equal(all_points(loop(track, times)), np.tile(points, (times, 1, 1)))
    blend = data.draw(st.integers(0, frames // 2))
    result = all_points(loop(track, times, blend=blend))
    assert len(result) == times * frames - (times - 1) * blend
    for turn in range(times):
        start = turn * (frames - blend)
        first, last = blend if turn else 0, frames - (blend if turn < times - 1 else 0)
        np.testing.assert_array_equal(result[start + first : start + last], points[first:last])
        for number in range(1, blend + 1 if turn else 0):
            t = number / (blend + 1)
            share = 3 * t**2 - 2 * t**3
            mixed = (1 - share) * points[frames - blend + number - 1] + share * points[number - 1]
            np.testing.assert_allclose(result[start + number - 1], mixed, rtol=1e-9, atol=1e-9)


def test_a_blended_seam_does_not_jump():
    clip = DANCE[40:200]
    steps = {
        blend: np.linalg.norm(np.diff(pixels(loop(clip, 2, blend=blend))[:, :20], axis=0), axis=-1).max(1)
        for blend in (0, 20)
    }
    usual = np.linalg.norm(np.diff(pixels(clip)[:, :20], axis=0), axis=-1).max()
    assert steps[0][159] > 3 * np.median(steps[0])
    assert steps[20].max() <= usual * 1.05


@settings(max_examples=20, deadline=None)
@given(track=tracks(), times=st.integers(1, 5))
def test_ping_pong_turns_round_at_single_frames(track, times):
    frames = len(track)
    triangle = [abs((n + frames - 1) % max(1, 2 * frames - 2) - (frames - 1)) for n in range(times * (frames - 1) + 1)]
    result = loop(track, times, "ping-pong")
    np.testing.assert_array_equal(all_points(result), all_points(track)[triangle])
    np.testing.assert_array_equal(all_scores(result), all_scores(track)[triangle])


# Mirror, transform


def test_a_symmetric_person_stays_the_same_in_a_mirror():
    person = standing_person(600)
    hands = np.random.default_rng(0).uniform(0.1, 0.4, (1, 2, 21, 2))
    hands[:, 1] = [1, 0] + hands[:, 0] * [-1, 1]
    # The 68 points as the iBUG 300-W scheme lays them out, in units about the face's middle, x to the right.
    jaw = [(np.cos(angle), np.sin(angle)) for angle in np.linspace(np.pi, 0, 17)]
    brows = [(-0.7, -0.5), (-0.6, -0.6), (-0.5, -0.65), (-0.4, -0.6), (-0.25, -0.55)]
    brows += [(-x, y) for x, y in reversed(brows)]
    nose = [(0, y) for y in (-0.3, -0.2, -0.1, 0)] + [
        (x, 0.1 + 0.02 * (2 - abs(x) / 0.1)) for x in np.arange(-2, 3) / 10
    ]
    eye = [(-0.6, -0.3), (-0.5, -0.36), (-0.4, -0.36), (-0.3, -0.3), (-0.4, -0.26), (-0.5, -0.26)]
    # The other eye: from its inner corner over the upper lid to the outer one, and back along the lower lid.
    other_eye = [(0.3, -0.3), (0.4, -0.36), (0.5, -0.36), (0.6, -0.3), (0.5, -0.26), (0.4, -0.26)]
    outside = [(-np.cos(angle) * 0.4, 0.5 - np.sin(angle) * 0.15) for angle in np.arange(12) * np.pi / 6]
    inside = [(-np.cos(angle) * 0.3, 0.5 - np.sin(angle) * 0.05) for angle in np.arange(8) * np.pi / 4]
    face = np.array([*jaw, *brows, *nose, *eye, *other_eye, *outside, *inside])
    assert face.shape == (68, 2)
    track = MotionTrack(person.body, hands, 0.5 + 0.1 * face[None], width=1000, height=1000)
    same(mirror(track), track)


def test_the_right_arm_becomes_the_left_one():
    for joint, name in enumerate(BODY_JOINTS):
        body = np.full((1, 20, 2), np.nan)
        body[0, joint] = 0.2, 0.7
        scores = np.where(np.isnan(body[..., 0]), 0, 0.6)
        got = mirror(MotionTrack(body, width=300, height=100, body_scores=scores))
        swap = {"left": "right", "right": "left"}
        side, _, rest = name.partition("_")
        other = BODY_JOINTS.index(f"{swap[side]}_{rest}" if side in swap else name)
        np.testing.assert_allclose(got.body[0, other], (0.8, 0.7))
        assert got.body_scores[0, other] == 0.6
        assert presence(got).sum() == 1


@settings(max_examples=20, deadline=None)
@given(track=tracks(spread=0.3))
def test_mirrored_twice_a_motion_is_as_it_was(track):
    same(mirror(mirror(track)), track)


@settings(max_examples=40, deadline=None)
@given(
    track=tracks(frames=3, spread=0.3),
    move=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    scale=st.floats(0.05, 20),
    rotate=st.floats(-400, 400),
    pivot=st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
)
def test_transform_is_opencvs_rotation_in_pixels(track, move, scale, rotate, pivot):
    result = transform(track, move=move, scale=scale, rotate=rotate, pivot=pivot)
    size = np.array([track.width, track.height])
    matrix = cv2.getRotationMatrix2D((np.array(pivot) * size).tolist(), -rotate, scale)  # OpenCV's angle: anticlockwise
    expected = (pixels(track) @ matrix[:, :2].T + matrix[:, 2]) / size + move
    np.testing.assert_allclose(all_points(result), expected, rtol=1e-4, atol=1e-4 * scale)  # its pivot is in float32
    back = transform(transform(result, move=(-move[0], -move[1])), scale=1 / scale, rotate=-rotate, pivot=pivot)
    same(back, track, rtol=1e-6, atol=1e-6)


def test_rotation_is_clockwise_and_does_not_shear():
    track = transform(standing_person(600, canvas=(2000, 500), foot=(1000.0, 400.0)), rotate=90, pivot=(0.5, 0.8))
    nose = pixels(track)[0, 0]
    assert nose == pytest.approx((1000 + 600 * 0.92, 400))  # who stood on the pivot lies with the head to the right


@settings(max_examples=20, deadline=None)
@given(track=tracks())
def test_asked_for_nothing_nothing_changes(track):
    same(transform(track, pivot=(0.3, 7)), track, rtol=0, atol=0)
    same(transform(track, rotate=360), track, atol=1e-6 * np.nanmax(abs(all_points(track)), initial=1))
    same(scale_limbs(track, {}), track, rtol=0, atol=0)
    same(scale_limbs(track, {"arms": 1}), track, rtol=0, atol=0)


# Limbs

LENGTHS = {  # pairs of joints whose distance a name scales
    "shoulders": [(1, 2), (1, 5)],
    "upper arms": [(2, 3), (5, 6)],
    "forearms": [(3, 4), (6, 7)],
    "arms": [(2, 3), (5, 6), (3, 4), (6, 7)],
    "thighs": [(8, 9), (11, 12)],
    "shins": [(9, 10), (12, 13)],
    "legs": [(8, 9), (11, 12), (9, 10), (12, 13)],
    "feet": [(10, 19), (13, 18)],
    "hips": [(8, 11)],
    "neck": [(1, 0)],
    "head": [(0, 14), (0, 15), (0, 16), (0, 17), (14, 15), (16, 17), *((0, 62 + n) for n in range(68)), (62, 100)],
    "hands": [(20, 20 + n) for n in range(1, 21)] + [(41, 41 + n) for n in range(1, 21)] + [(24, 40)],
    "right upper arm": [(2, 3)],
    "left forearm": [(6, 7)],
    "left leg": [(11, 12), (12, 13)],
    "right foot": [(10, 19)],
    "left hand": [(20, 20 + n) for n in range(1, 21)],
}
ALL_PAIRS = sorted({pair for pairs in LENGTHS.values() for pair in pairs})


@pytest.mark.parametrize("name", LENGTHS)
def test_only_the_named_limbs_change_their_length(name):
    track = random_track(2, 5, presence=1.0, spread=0.05, canvas=(700, 300))
    longer = scale_limbs(track, {name: 1.6})
    before, after = pixels(track), pixels(longer)
    for a, b in ALL_PAIRS:
        factor = 1.6 if (a, b) in LENGTHS[name] else 1.0
        if (
            factor == 1
            and name in ("hands", "head", "left hand")
            and (a, b) in ((24, 40), (62, 100), (14, 15), (16, 17))
        ):
            continue
        np.testing.assert_allclose(after[:, b] - after[:, a], factor * (before[:, b] - before[:, a]), atol=1e-9)
    np.testing.assert_array_equal(after[:, 1], before[:, 1], "the neck moved")
    for wrist, hand in ((4, 41), (7, 20)):  # a hand stays on its wrist
        np.testing.assert_allclose(after[:, hand] - after[:, wrist], before[:, hand] - before[:, wrist], atol=1e-9)
    np.testing.assert_array_equal(all_scores(longer), all_scores(track))


def test_the_torso_gets_longer_and_not_wider():
    track = random_track(2, 5, presence=1.0, spread=0.05, canvas=(700, 300))
    before, after = pixels(track), pixels(scale_limbs(track, {"torso": 0.5}))
    middle = (before[:, 8] + before[:, 11]) / 2
    np.testing.assert_allclose((after[:, 8] + after[:, 11]) / 2, (before[:, 1] + middle) / 2, atol=1e-9)
    for a, b in ((8, 11), (8, 9), (12, 13), (13, 18)):
        np.testing.assert_allclose(after[:, b] - after[:, a], before[:, b] - before[:, a], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(track=tracks(frames=20, presence=0.9, spread=0.1, scored=False), data=st.data())
def test_limbs_are_scaled_back(track, data):
    """With a neck, and every bone seen in some frame: what stands in for a neck moves, and what is never seen weighs
    what is usual."""
    track = replace(track, body=np.where(np.isnan(track.body) & (np.arange(20) == 1)[:, None], 0.5, track.body))
    factors = data.draw(st.dictionaries(st.sampled_from(sorted(LIMBS)), st.floats(0.1, 10), max_size=6))
    there_and_back = scale_limbs(scale_limbs(track, factors), {name: 1 / factor for name, factor in factors.items()})
    same(there_and_back, track, atol=1e-6)


def test_names_for_one_limb_multiply_and_sides_add_up():
    track = random_track(4, 3, presence=0.8)
    sides = {"left thigh": 1.3, "right thigh": 1.3, "left forearm": 2.0}
    same(scale_limbs(track, {"thighs": 1.3, "left forearm": 2}), scale_limbs(track, sides))
    twice = scale_limbs(track, {"arms": 2, "forearms": 0.5})
    same(twice, scale_limbs(track, {"upper arms": 2}))


def test_an_absent_joint_is_passed_over_by_the_way_between_its_neighbours():
    """Somebody without a right elbow and hip in one frame; whole in the other, which tells how long the bones are."""
    person = standing_person(600, frames=2)
    holes = person.body.copy()
    holes[1, [3, 8]] = np.nan
    track = MotionTrack(holes, width=1000, height=1000)
    factors = {"shoulders": 2, "upper arms": 3, "forearms": 0.5, "torso": 2, "hips": 3, "thighs": 0.5}
    before, after = pixels(track), pixels(scale_limbs(track, factors))
    # Arms hang straight down: the wrist ends where the complete arm's does.
    np.testing.assert_allclose(after[:, [2, 4]], np.tile(after[:1, [2, 4]], (2, 1, 1)))
    np.testing.assert_allclose(after[0, 4] - after[0, 2], [0, (3 * 0.186 + 0.5 * 0.146) * 600])
    # The only hip is the trunk's end; the leg without one hangs there.
    end = before[1, 1] + 2 * (before[1, 11] - before[1, 1])
    np.testing.assert_allclose(after[1, 11], end)
    ratio = (3 * 0.0955 + 0.5 * 0.245) / (0.0955 + 0.245)
    np.testing.assert_allclose(after[1, 9] - end, ratio * (before[1, 9] - before[1, 11]))
    np.testing.assert_allclose(after[1, 10] - after[1, 9], before[1, 10] - before[1, 9])


def test_limbs_get_the_lengths_that_alignment_gives_them():
    """One and the same scaling, asked for by factors and by a reference with such limbs."""
    dancer = MotionTrack(DANCE.body, width=DANCE.width, height=DANCE.height)
    factors = {"forearms": 1.2, "thighs": 0.9, "neck": 1.1}
    scaled = scale_limbs(dancer, factors)
    aligned = align_motion(dancer, scaled, "robust")
    rows = [0, 1, *range(2, 14)]
    np.testing.assert_allclose(aligned.body[:, rows], scaled.body[:, rows], atol=2e-3)


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (lambda t: trim(t, 280), "start is 280, but the motion has 280 frames: give 0 to 279"),
        (lambda t: trim(t, -1), "start is -1: give a whole number, 0 or more"),
        (lambda t: trim(t, 270, 11), "frames is 11, but only 10 are left from frame 270 on: give 10 or fewer"),
        (lambda t: trim(t, 0, 0), "frames is 0: give a whole number, 1 or more"),
        (lambda t: retime(t, 0, 30), "from_fps is 0: give a number from 0.1 to 1000"),
        (lambda t: retime(t, 30, float("nan")), "to_fps is nan"),
        (lambda t: retime(t, 0.1, 1000), "make 2790001: give a lower to_fps, so that there are at most 1000000"),
        (lambda t: retime(t, 30, 24, method="spline"), "method is 'spline': choose one of pchip, linear"),
        (lambda t: loop(t, 0), "times is 0"),
        (lambda t: loop(t, 2, "backwards"), "mode is 'backwards': choose one of repeat, ping-pong"),
        (lambda t: loop(t, 2, blend=141), "blend is 141, but the motion has 280 frames: give at most half, 140"),
        (lambda t: loop(t, 2, blend=-1), "blend is -1"),
        (lambda t: loop(t, 10**9), "times is 1000000000, which makes 280000000000 frames"),
        (lambda t: loop(t, 10**9, "ping-pong"), "times is 1000000000, which makes 279000000001 frames"),
        (lambda t: transform(t, scale=0), "scale is 0: give a number from 0.01 to 100"),
        (lambda t: transform(t, rotate=float("inf")), "rotate is inf: give a number of degrees"),
        (lambda t: transform(t, move=3), r"move is 3: give two numbers, \(x, y\)"),
        (lambda t: transform(t, move=(0, "a")), "move's y is 'a'"),
        (lambda t: transform(t, pivot=(float("nan"), 0)), "pivot's x is nan"),
        (lambda t: scale_limbs(t, {"tail": 2}), "no limb 'tail': choose from .*forearms.*left thigh"),
        (lambda t: scale_limbs(t, {"thighs": 0}), "thighs is 0: give a number from 0.1 to 10"),
    ],
)
def test_wrong_settings_are_named(operation, words):
    with pytest.raises(InputError, match=words):
        operation(DANCE)
