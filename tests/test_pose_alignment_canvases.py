"""Alignment between canvases of every shape: landscape, square, portrait."""

from dataclasses import replace

import numpy as np
import pytest
from posed_people import (
    PAPER_BONES,
    PARTS,
    PERSON,
    as_in_paper,
    golden_track,
    pixels,
    random_person,
    same,
    stretched,
    track,
    turning,
)

from unianimate_core.pose import MotionTrack, fit_track
from unianimate_core.pose.alignment import MODES, align_motion


@pytest.mark.parametrize("mode", ["robust", "scale and place", "none"])
def test_angles_stay_on_a_canvas_of_another_shape(mode):
    motion = track(*turning(PERSON))
    reference = track(stretched(PERSON, {(2, 3): 1.3, (5, 6): 1.3}) * (0.6) + (300, 0), size=(1280, 480))
    before, after = pixels(motion), pixels(align_motion(motion, reference, mode))
    for parent, child, _, _ in PAPER_BONES:
        ways = [body[:, child] - body[:, parent] for body in (before, after)]
        angles = [np.arctan2(way[:, 1], way[:, 0]) for way in ways]
        np.testing.assert_allclose(np.cos(angles[0] - angles[1]), 1)


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


@pytest.mark.parametrize("mode", ["robust", "scale and place"])
def test_the_driving_canvas_does_not_matter(mode):
    motion, reference = golden_track(), golden_track("reference")
    padded = fit_track(motion, 1920, 1080, "pad")
    same(align_motion(padded, reference, mode), align_motion(motion, reference, mode), atol=1e-3)  # whole pixels


CANVASES = [(1216, 684), (768, 768), (512, 768)]
PAIRS = [(driving, reference) for driving in CANVASES for reference in CANVASES]


def on_canvas(motion, size):
    """The same pixels on another canvas."""
    parts = (pixels(motion, part) / size for part in PARTS)
    return MotionTrack(*parts, width=size[0], height=size[1])


@pytest.mark.parametrize(("driving", "reference"), PAIRS, ids=str)
@pytest.mark.parametrize("mode", ["robust", "scale and place"])
def test_landscape_square_and_portrait_give_the_same_pixels(mode, driving, reference):
    """Lengths are measured in pixels: how wide and high either canvas is does not count, whatever the person's size."""
    motion, standing = random_person(3, frames=6), random_person(4)
    expected = align_motion(motion, standing, mode)
    aligned = align_motion(on_canvas(motion, driving), on_canvas(standing, reference), mode)
    assert (aligned.width, aligned.height) == reference
    for part in PARTS:
        np.testing.assert_allclose(pixels(aligned, part), pixels(expected, part), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("driving", "reference"), PAIRS, ids=str)
def test_paper_mode_is_the_formula_in_fractions_on_every_canvas(driving, reference):
    motion, standing = on_canvas(random_person(5, frames=4), driving), on_canvas(random_person(6), reference)
    aligned = align_motion(motion, standing)
    assert (aligned.width, aligned.height) == reference
    for part, expected in zip(PARTS, as_in_paper(motion, standing), strict=True):
        np.testing.assert_allclose(getattr(aligned, part), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("driving", "reference"), PAIRS, ids=str)
def test_mode_none_keeps_the_person_whole_and_in_the_middle_on_every_canvas(driving, reference):
    """Fitted as pictures are: one factor for both axes, such that the canvas is filled, about its middle."""
    motion = on_canvas(random_person(7, frames=3), driving)
    aligned = align_motion(motion, on_canvas(random_person(8), reference), "none")
    factor = max(np.divide(reference, driving))
    expected = (pixels(motion) - np.divide(driving, 2)) * factor + np.divide(reference, 2)
    np.testing.assert_allclose(pixels(aligned), expected, rtol=0, atol=1e-6)
