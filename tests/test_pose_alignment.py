"""Motions put on another person: against the golden data, against the paper's formula, and what cannot be."""

import time
from dataclasses import replace

import numpy as np
import pytest
from posed_people import (
    DANCE,
    GOLDEN,
    MIRROR,
    NEARER,
    PAPER_BONES,
    PARTS,
    PERSON,
    as_in_paper,
    golden_track,
    length,
    random_person,
    same,
    track,
    without,
)

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, read_motion
from unianimate_core.pose.alignment import MODES, align_motion


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
