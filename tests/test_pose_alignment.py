"""Motions put on another person: against the golden data, against the paper's formula, against geometry."""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, fit_track, read_motion
from unianimate_core.pose.alignment import MODES, align_motion

GOLDEN = np.load(Path(__file__).parent / "golden_data" / "pose_alignment.npz")
DANCE = Path(__file__).parents[1] / "samples" / "dance.json"
PARTS = ("body", "hands", "face")
SIZE = (512, 768)
NEARER = [mode for mode in MODES if mode != "none"]

# The paper's bones in its order, with the body joints and the hand (0 left, 1 right) that move along.
PAPER_BONES = (
    *((1, 0, (14, 15, 16, 17), None), (1, 2, (3, 4), 1), (1, 5, (6, 7), 0), (2, 3, (4,), 1), (3, 4, (), 1)),
    *((5, 6, (7,), 0), (6, 7, (), 0), (0, 14, (16,), None), (0, 15, (17,), None), (14, 16, (), None)),
    *(
        (15, 17, (), None),
        (8, 9, (10, 19), None),
        (9, 10, (19,), None),
        (11, 12, (13, 18), None),
        (12, 13, (18,), None),
    ),
)
# Mirrored joints, and a person in pixels of a 512 x 768 canvas, who is the same on both sides.
MIRROR = [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16, 19, 18]
X = [0, 0, -50, -75, -100, 50, 75, 100, -30, -30, -30, 30, 30, 30, -10, 10, -20, 20, 40, -40]
Y = [75, 150, 150, 265, 380, 150, 265, 380, 400, 540, 690, 400, 540, 690, 62, 62, 70, 70, 720, 720]
PERSON = np.column_stack([np.add(X, 256), Y]).astype(float)


def golden_track(name="driving"):
    arrays = [GOLDEN[f"{name}.{part}"] for part in PARTS]
    frames = arrays if name != "reference" else [array[None] for array in arrays]
    return MotionTrack(*frames, width=512, height=768)


def track(*bodies, size=SIZE, **fields):
    """A track of bodies in pixels."""
    return MotionTrack(np.stack(bodies) / size, width=size[0], height=size[1], **fields)


def pixels(motion, part="body"):
    return getattr(motion, part) * (motion.width, motion.height)


def length(body, a, b):
    return np.linalg.norm(body[..., a, :] - body[..., b, :], axis=-1)


def stretched(body, factors):
    """A body with some bones longer: {(parent, child): factor}."""
    body = body.copy()
    for parent, child, rest, _ in PAPER_BONES:
        if (parent, child) in factors:
            way = (factors[parent, child] - 1) * (body[child] - body[parent])
            for joint in (child, *rest):
                body[joint] += way
    return body


def turning(body, frames=9):
    """A motion whose bones keep their lengths: after the first frame every limb turns at its root, by any angle.

    The shoulders turn together: the neck stays in their middle.
    """
    random = np.random.default_rng(3)
    motion = [body]
    for _ in range(frames - 1):
        turned = body.copy()
        for parent, child, rest, _ in PAPER_BONES:
            if (parent, child) != (1, 5):
                angle = random.uniform(-1, 1)
            matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            for joint in (child, *rest):
                turned[joint] = turned[parent] + matrix @ (turned[joint] - turned[parent])
        motion.append(turned)
    return motion


def without(body, *joints):
    body = body.copy()
    body[..., list(joints), :] = np.nan
    return body


def random_person(seed, frames=1):
    """A complete person with hands and a face, no two of whose bones have the same length."""
    random = np.random.default_rng(seed)
    body = PERSON / SIZE + random.normal(0, 0.02, (frames, 20, 2))
    wrists = body[:, [7, 4], None]
    hands = wrists + random.normal(0, 0.02, (frames, 2, 21, 2))
    face = body[:, None, 0] + random.normal(0, 0.02, (frames, 68, 2))
    return MotionTrack(body, hands, face, width=512, height=768)


def as_in_paper(driving, reference):
    """The paper's algorithm for complete skeletons, bone after bone: spec/pose.md, written out."""
    target = reference.body[0]
    body, hands, face = driving.body.copy(), driving.hands.copy(), driving.face.copy()
    first = body[0]
    ratio_x = (target[5, 0] - target[2, 0]) / (first[5, 0] - first[2, 0])
    heights = [(p[8, 1] + p[11, 1]) / 2 - (p[2, 1] + p[5, 1]) / 2 for p in (target, first)]
    for points in (body, hands, face):
        points *= (ratio_x, heights[0] / heights[1])
    ratios = [length(target, a, b) / length(body[0], a, b) for a, b, _, _ in PAPER_BONES]
    for ratio, (parent, child, rest, hand) in zip(ratios, PAPER_BONES, strict=True):
        way = (ratio - 1) * (body[:, child] - body[:, parent])
        body[:, [child, *rest]] += way[:, None]
        if hand is not None:
            hands[:, hand] += way[:, None]
    way = target[1] - body[0, 1]
    return body + way, hands + way, face + way


def same(a, b, atol=1e-9):
    for part in PARTS:
        np.testing.assert_allclose(getattr(a, part), getattr(b, part), rtol=0, atol=atol)


# Complete skeletons


def test_paper_mode_equals_the_golden_data():
    aligned = align_motion(golden_track(), golden_track("reference"))
    same(aligned, golden_track("aligned"), atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_paper_mode_is_the_formula(seed):
    driving, reference = random_person(seed, frames=4), random_person(seed + 100)
    aligned = align_motion(driving, reference)
    for part, expected in zip(PARTS, as_in_paper(driving, reference), strict=True):
        np.testing.assert_allclose(getattr(aligned, part), expected, rtol=0, atol=1e-9)
    for parent, child, _, _ in PAPER_BONES:
        assert length(aligned.body[0], parent, child) == pytest.approx(length(reference.body[0], parent, child))


def test_a_person_seen_from_behind_is_mirrored_in_paper_mode():
    behind = without(PERSON)[MIRROR]
    aligned = align_motion(track(behind), track(PERSON))
    np.testing.assert_allclose(aligned.body[0, 1:14], track(PERSON).body[0, 1:14], atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["golden", "dance"])
def test_a_motion_aligned_to_itself_is_itself(mode, name):
    motion = golden_track() if name == "golden" else read_motion(DANCE)
    aligned = align_motion(motion, motion, mode)
    same(aligned, motion, atol=1e-12)


def test_robust_mode_gives_the_reference_its_own_bones():
    reference = stretched(PERSON, {(a, b): 0.7 for a, b in ((8, 9), (9, 10), (11, 12), (12, 13))})
    reference = stretched(reference, {(2, 3): 1.4, (5, 6): 1.4, (1, 0): 1.3}) * 0.8 + (30, 40)
    aligned = align_motion(track(*turning(PERSON)), track(reference, size=(900, 700)), "robust")
    body = pixels(aligned)
    for parent, child, _, _ in PAPER_BONES:
        np.testing.assert_allclose(length(body, parent, child), length(reference, parent, child))
    np.testing.assert_allclose(body[0, 1], reference[1])


@pytest.mark.parametrize("mode", ["robust", "scale and place", "none"])
def test_angles_stay_on_a_canvas_of_another_shape(mode):
    motion = track(*turning(PERSON))
    reference = track(stretched(PERSON, {(2, 3): 1.3, (5, 6): 1.3}) * (0.6) + (300, 0), size=(1280, 480))
    before, after = pixels(motion), pixels(align_motion(motion, reference, mode))
    for parent, child, _, _ in PAPER_BONES:
        ways = [body[:, child] - body[:, parent] for body in (before, after)]
        angles = [np.arctan2(way[:, 1], way[:, 0]) for way in ways]
        np.testing.assert_allclose(np.cos(angles[0] - angles[1]), 1)


def test_scale_and_place_keeps_proportions():
    reference = stretched(PERSON, {(2, 3): 1.6, (5, 6): 1.6}) * 1.5 + (-100, 20)
    motion = track(*turning(PERSON))
    aligned = pixels(align_motion(motion, track(reference, size=(768, 1152)), "scale and place"))
    first = pixels(motion)[0, 1]
    np.testing.assert_allclose(aligned, (pixels(motion) - first) * 1.5 + reference[1])


def test_mode_none_fits_the_canvas():
    motion, reference = golden_track(), track(PERSON, size=(1000, 400))
    aligned = align_motion(motion, reference, "none")
    same(aligned, fit_track(motion, 1000, 400))


@pytest.mark.parametrize("mode", MODES)
def test_the_result_has_the_references_canvas_and_the_motions_scores(mode):
    random = np.random.default_rng(0)
    scores = random.uniform(0, 1, (12, 20))
    motion = replace(golden_track(), body_scores=scores, hands_scores=np.full((12, 2, 21), 0.7))
    aligned = align_motion(motion, track(PERSON, size=(640, 333)), mode)
    assert (aligned.width, aligned.height, len(aligned)) == (640, 333, 12)
    np.testing.assert_array_equal(aligned.body_scores, np.where(scores >= 0.3, scores, 0))
    np.testing.assert_array_equal(aligned.hands_scores, motion.hands_scores)
    assert aligned.face_scores is None
    np.testing.assert_array_equal(np.isnan(aligned.body), np.isnan(motion.body))


@pytest.mark.parametrize("mode", NEARER)
def test_where_the_driving_person_stands_and_how_large_does_not_matter(mode):
    motion, reference = golden_track(), golden_track("reference")
    aligned = align_motion(motion, reference, mode)
    moved = [getattr(motion, part) * 0.4 + (0.3, -0.2) for part in PARTS]
    same(align_motion(MotionTrack(*moved, width=512, height=768), reference, mode), aligned)


@pytest.mark.parametrize("mode", NEARER)
def test_the_motion_goes_where_the_reference_goes(mode):
    motion, reference = golden_track(), golden_track("reference")
    aligned = align_motion(motion, reference, mode)
    away = MotionTrack(*(np.add(getattr(reference, part), (0.2, -0.1)) for part in PARTS), width=512, height=768)
    expected = MotionTrack(*(np.add(getattr(aligned, part), (0.2, -0.1)) for part in PARTS), width=512, height=768)
    same(align_motion(motion, away, mode), expected)


@pytest.mark.parametrize("mode", ["robust", "scale and place"])
def test_the_driving_canvas_does_not_matter(mode):
    motion, reference = golden_track(), golden_track("reference")
    padded = fit_track(motion, 1920, 1080, "pad")
    same(align_motion(padded, reference, mode), align_motion(motion, reference, mode), atol=1e-3)  # whole pixels


def test_frames_before_the_first_person_change_nothing():
    motion, reference = golden_track(), golden_track("reference")
    late = MotionTrack(
        np.concatenate(
            [np.full((2, 20, 2), np.nan), without(motion.body[:1], *range(13), *range(14, 20)), motion.body]
        ),
        width=512,
        height=768,
    )
    empty = np.concatenate([np.full((2, 20, 2), np.nan), reference.body])
    for mode in NEARER:
        aligned = align_motion(late, MotionTrack(empty, width=512, height=768), mode)
        expected = align_motion(replace(motion, hands=None, face=None), replace(reference, hands=None, face=None), mode)
        np.testing.assert_allclose(aligned.body[3:], expected.body, atol=1e-12)
        assert np.isnan(aligned.body[:2]).all()


# Incomplete ones


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


# What the robust mode is robust against


def foreshortened(body):
    """Both forearms and a thigh point at the camera."""
    return stretched(body, {(3, 4): 0.03, (6, 7): 0.03, (8, 9): 0.05})


def test_a_slanting_limb_in_the_first_frame_does_not_make_long_ones():
    motion = turning(PERSON)
    reference = track(stretched(PERSON, {(3, 4): 1.2, (6, 7): 1.2, (9, 10): 1.3, (12, 13): 1.3}) * 0.9)
    aligned = pixels(align_motion(track(foreshortened(motion[0]), *motion[1:]), reference, "robust"))
    np.testing.assert_allclose(aligned[1:], pixels(align_motion(track(*motion), reference, "robust"))[1:], atol=1e-9)
    in_paper = pixels(align_motion(track(foreshortened(motion[0]), *motion[1:]), reference))
    assert length(in_paper[1], 3, 4) > 20 * length(aligned[1], 3, 4)  # what the mode is there for


def test_a_slanting_limb_of_the_reference_is_as_long_as_the_other():
    reference = stretched(PERSON, {(2, 3): 1.2, (5, 6): 1.2, (3, 4): 0.05, (6, 7): 0.8})
    aligned = pixels(align_motion(track(*turning(PERSON)), track(reference), "robust"))
    for parent, child in ((3, 4), (6, 7)):
        np.testing.assert_allclose(length(aligned, parent, child), 0.8 * length(PERSON, parent, child))


def test_ratios_beyond_belief_are_those_of_the_limbs_other_half():
    reference = stretched(PERSON, {(8, 9): 0.1, (11, 12): 0.1, (9, 10): 0.8, (12, 13): 0.8, (1, 2): 0.05, (1, 5): 0.05})
    aligned = pixels(align_motion(track(*turning(PERSON)), track(reference), "robust"))
    for factor, bones in ((0.8, ((8, 9), (12, 13))), (1, ((1, 2), (1, 5)))):
        for parent, child in bones:
            np.testing.assert_allclose(length(aligned, parent, child), factor * length(PERSON, parent, child))


def test_a_bent_torso_does_not_make_a_giant():
    reference = PERSON.copy()
    reference[[8, 11]] = PERSON[[8, 11]] * (1, 0) + (0, 200)  # a torso of 50 pixels instead of 250
    aligned = pixels(align_motion(track(PERSON), track(reference), "scale and place"))
    np.testing.assert_allclose(aligned[0], PERSON)


def test_unsure_joints_do_not_count():
    motion = turning(PERSON)
    wrong = [stretched(body, {(3, 4): 1.5, (6, 7): 1.5}) for body in motion]
    scores = np.ones((18, 20))
    scores[9:, [4, 7]] = 0.4
    both = track(*motion, *wrong, body_scores=scores)
    aligned = pixels(align_motion(both, track(PERSON), "robust"))
    np.testing.assert_allclose(length(aligned[:9], 3, 4), length(PERSON, 3, 4))
    unsure = track(*motion, body_scores=np.full((9, 20), 0.4))  # all there is
    np.testing.assert_allclose(
        align_motion(unsure, track(PERSON), "robust").body, align_motion(track(*motion), track(PERSON), "robust").body
    )


# Bad input


@pytest.mark.parametrize("mode", MODES)
def test_nobody_is_refused(mode):
    nobody = track(np.full((20, 2), np.nan), np.full((20, 2), np.nan))
    with pytest.raises(InputError, match="motion shows nobody in any of its 2 frames"):
        align_motion(nobody, track(PERSON), mode)
    with pytest.raises(InputError, match="reference pose shows nobody"):
        align_motion(track(PERSON), nobody, mode)


def test_an_unknown_mode_is_named():
    with pytest.raises(InputError, match=r"'exact'.*paper, robust, scale and place, none"):
        align_motion(track(PERSON), track(PERSON), "exact")


@pytest.mark.parametrize("mode", MODES)
def test_a_collapsed_person_stays_finite(mode):
    point = np.full((20, 2), 100.0)
    for driving, reference in ((point, PERSON), (PERSON, point), (point, point)):
        aligned = align_motion(track(driving), track(reference), mode)
        assert abs(aligned.body).max() < 10


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", MODES)
def test_a_wild_coordinate_stays_finite(mode):
    wild = PERSON.copy()
    wild[4], wild[13] = (1e300, -1e300), (-1e308, 1e308)
    for driving, reference in ((wild, PERSON), (PERSON, wild)):
        assert np.isfinite(align_motion(track(driving), track(reference), mode).body).all()


@pytest.mark.parametrize("mode", MODES)
def test_ten_thousand_frames_are_quick(mode):
    long = MotionTrack(
        *(np.resize(GOLDEN[f"driving.{part}"], (10_000, *GOLDEN[f"driving.{part}"].shape[1:])) for part in PARTS),
        width=512,
        height=768,
    )
    start = time.process_time()
    assert len(align_motion(long, golden_track("reference"), mode)) == 10_000
    assert time.process_time() - start < 2
