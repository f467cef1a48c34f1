"""The robust modes: against geometry, and what they are robust against."""

import numpy as np
from posed_people import PAPER_BONES, PERSON, length, pixels, stretched, track, turning

from unianimate_core.pose.alignment import align_motion


def test_robust_mode_gives_the_reference_its_own_bones():
    reference = stretched(PERSON, {(a, b): 0.7 for a, b in ((8, 9), (9, 10), (11, 12), (12, 13))})
    reference = stretched(reference, {(2, 3): 1.4, (5, 6): 1.4, (1, 0): 1.3}) * 0.8 + (30, 40)
    aligned = align_motion(track(*turning(PERSON)), track(reference, size=(900, 700)), "robust")
    body = pixels(aligned)
    for parent, child, _, _ in PAPER_BONES:
        np.testing.assert_allclose(length(body, parent, child), length(reference, parent, child))
    np.testing.assert_allclose(body[0, 1], reference[1])


def test_scale_and_place_keeps_proportions():
    reference = stretched(PERSON, {(2, 3): 1.6, (5, 6): 1.6}) * 1.5 + (-100, 20)
    motion = track(*turning(PERSON))
    aligned = pixels(align_motion(motion, track(reference, size=(768, 1152)), "scale and place"))
    first = pixels(motion)[0, 1]
    np.testing.assert_allclose(aligned, (pixels(motion) - first) * 1.5 + reference[1])


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
