"""Motions and references of which joints are absent, put on each other."""

from dataclasses import replace

import numpy as np
import pytest
from posed_people import (
    MIRROR,
    NEARER,
    PAPER_BONES,
    PERSON,
    SIZE,
    length,
    pixels,
    random_person,
    stretched,
    track,
    turning,
    without,
)

from unianimate_core.pose.alignment import align_motion


def test_paper_mode_takes_the_mirrored_limbs_ratio():
    reference, driving = random_person(1), random_person(2, frames=3)
    complete = align_motion(driving, reference)
    for hidden in ([7], [6, 7], [12, 13, 18], [15, 17]):
        aligned = align_motion(driving, replace(reference, body=without(reference.body, *hidden)))
        others = [joint for joint in range(20) if joint not in hidden]
        np.testing.assert_allclose(aligned.body[:, others], complete.body[:, others], atol=1e-12)
        for joint in set(hidden) - {18}:
            parent = next(bone[0] for bone in PAPER_BONES if bone[1] == joint)
            mirrored = [MIRROR[parent], MIRROR[joint]]
            scale = [length(complete.body[0], *pair) / length(aligned.body[0], *pair) for pair in (mirrored,)]
            assert scale == pytest.approx([1])
            width = (reference.body[0, 5, 0] - reference.body[0, 2, 0]) / (
                driving.body[0, 5, 0] - driving.body[0, 2, 0]
            )
            heights = [p.body[0, [8, 11], 1].mean() - p.body[0, [2, 5], 1].mean() for p in (reference, driving)]
            scaled = driving.body[0] * (width, heights[0] / heights[1])
            ratio = length(reference.body[0], *mirrored) / length(scaled, *mirrored)
            expected = ratio * length(scaled, parent, joint)
            assert length(aligned.body[0], parent, joint) == pytest.approx(expected)


def test_paper_mode_keeps_a_limb_neither_side_of_which_is_seen():
    driving = turning(PERSON)
    aligned = pixels(align_motion(track(*driving), track(without(PERSON * 0.5, 9, 10, 12, 13))))
    np.testing.assert_allclose(length(aligned, 8, 9), length(np.stack(driving), 8, 9) * 0.5)
    np.testing.assert_allclose(length(aligned, 12, 13), length(np.stack(driving), 12, 13) * 0.5)


def test_paper_mode_keeps_a_limb_that_points_at_the_camera():
    """A forearm of a hundredth of a pixel in the first frame has no ratio; it takes the other arm's."""
    motion = turning(PERSON)
    first = stretched(motion[0], {(3, 4): 1e-4})
    aligned = pixels(align_motion(track(first, *motion[1:]), track(stretched(PERSON, {(6, 7): 1.3}))))
    np.testing.assert_allclose(aligned[1:, 4] - aligned[1:, 3], 1.3 * np.subtract(motion, np.roll(motion, 1, 1))[1:, 4])


@pytest.mark.parametrize("hidden", [[8, 11], [2, 5, 1], [2], [8, 9, 10, 11, 12, 13]])
@pytest.mark.parametrize("mode", NEARER)
def test_half_a_body_gives_the_whole_size(mode, hidden):
    """Without width or height of the torso, the rest tells the size, in pixels."""
    reference = without(PERSON, *hidden) * 0.75 + (400, 20)
    aligned = pixels(align_motion(track(PERSON), track(reference, size=(1024, 600)), mode))
    np.testing.assert_allclose(aligned[0], PERSON * 0.75 + (400, 20))


@pytest.mark.parametrize("mode", NEARER)
@pytest.mark.parametrize("seen", [[1], [0, 1], [0], [0, 14, 15, 16, 17], [2, 5], [8, 11], [10], [16]])
def test_little_of_a_reference_still_places_the_motion(mode, seen):
    reference = without(np.add(PERSON, (40, -30)), *(joint for joint in range(20) if joint not in seen))
    aligned = pixels(align_motion(track(*turning(PERSON)), track(reference), mode))
    assert np.isfinite(aligned).all()
    place = next(joints for joints in ([1], [2, 5], [8, 11], [0], seen) if set(joints) <= set(seen))
    np.testing.assert_allclose(aligned[0, place].mean(0), reference[place].mean(0))


@pytest.mark.parametrize("mode", NEARER)
def test_nothing_in_common_leaves_the_size(mode):
    motion, reference = track(without(PERSON, *range(8, 20))), track(without(PERSON * 0.4, *range(8), *range(14, 20)))
    np.testing.assert_allclose(pixels(align_motion(motion, reference, mode)), pixels(motion))


@pytest.mark.parametrize("mode", NEARER)
def test_joints_that_come_and_go_do_not_move_the_others(mode):
    """Both halves of a limb get one ratio here: without the joint between, the way is the same."""
    factors = {(1, 0): 1.2}
    factors |= dict.fromkeys([(2, 3), (3, 4), (5, 6), (6, 7)], 1.3)
    factors |= dict.fromkeys([(8, 9), (9, 10), (11, 12), (12, 13)], 0.8)
    reference = track(stretched(PERSON, factors))
    motion = turning(PERSON)
    complete = align_motion(track(*motion), reference, mode)
    for hidden in ([3], [6], [9, 12], [1], [1, 3, 9], [4]):
        holes = [motion[0], *(without(body, *hidden) for body in motion[1:])]
        aligned = align_motion(track(*holes), reference, mode)
        expected = complete.body.copy()
        expected[1:, hidden] = np.nan
        np.testing.assert_allclose(aligned.body, expected, atol=1e-9)


@pytest.mark.parametrize("mode", NEARER)
def test_hands_stay_at_their_wrists(mode):
    reference = stretched(PERSON, {(2, 3): 1.5, (5, 6): 1.5, (6, 7): 0.8, (3, 4): 0.8})
    motion = np.stack(turning(PERSON))
    hands = motion[:, [7, 4], None] + np.linspace(0, 30, 21)[:, None]  # f 2 21 2
    driving = track(*motion, hands=hands / SIZE)
    aligned = align_motion(driving, track(reference), mode)
    np.testing.assert_allclose(aligned.hands[:, :, 0], aligned.body[:, [7, 4]], atol=1e-9)
    # No wrist, but the hand's root stands in its place.
    lost = replace(driving, body=np.concatenate([driving.body[:1], without(driving.body[1:], 4, 7)]))
    np.testing.assert_allclose(align_motion(lost, track(reference), mode).hands, aligned.hands, atol=1e-9)


def test_the_face_follows_the_nose_in_robust_mode():
    reference = stretched(PERSON, {(1, 0): 1.5, (0, 14): 1.2, (0, 15): 1.2})
    motion = np.stack(turning(PERSON))
    offsets = np.linspace(-20, 20, 68)[:, None] * (1, 0.5)
    offsets[30] = 0  # the tip of the nose
    driving = track(*motion, face=(motion[:, None, 0] + offsets) / SIZE)
    aligned = align_motion(driving, track(reference), "robust")
    np.testing.assert_allclose(pixels(aligned, "face") - pixels(aligned)[:, None, 0], np.tile(offsets * 1.2, (9, 1, 1)))
    lost = replace(driving, body=np.concatenate([driving.body[:1], without(driving.body[1:], 0)]))
    without_nose = align_motion(lost, track(reference), "robust")
    np.testing.assert_allclose(without_nose.face, aligned.face, atol=1e-9)
    np.testing.assert_allclose(without_nose.body[:, 14:], aligned.body[:, 14:], atol=1e-9)
