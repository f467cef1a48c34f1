"""Two thousand random incomplete motions, aligned in every mode: nothing breaks, appears, gets lost or runs away."""

import warnings

import numpy as np
import pytest

from unianimate_core.pose import MotionTrack, draw_motion
from unianimate_core.pose.alignment import MODES, align_motion

PARTS = {"body": (20,), "hands": (2, 21), "face": (68,)}
MOTIONS, BLOCK = 2000, 250


def random_track(random, frames):
    """Points anywhere about the canvas, and absent anyhow: single ones, whole joints, whole frames, hands, the face."""
    middle, spread = random.uniform(-0.2, 1.2, 2), random.choice([0.05, 0.2, 0.5])
    arrays, scores = {}, {}
    for part, shape in PARTS.items():
        if part != "body" and random.random() < 0.3:
            continue
        points = random.normal(middle, spread, (frames, *shape, 2))
        points[random.random((frames, *shape)) < random.choice([0, 0.1, 0.5, 0.95])] = np.nan
        points[:, random.random(shape) < random.choice([0, 0.3, 0.8])] = np.nan
        points[random.random(frames) < 0.1] = np.nan
        arrays[part] = points
        if random.random() < 0.5:
            scores[f"{part}_scores"] = random.uniform(0.2, 1, (frames, *shape))
    if random.random() < 0.2:
        arrays["body"] = np.round(arrays["body"], 1)  # joints that coincide
    arrays["body"][-1, random.integers(20)] = random.uniform(-0.2, 1.2, 2)  # nobody at all is an error
    if "body_scores" in scores:
        scores["body_scores"][-1] = 0.9
    width, height = random.integers(256, 1024, 2)
    return MotionTrack(**arrays, **scores, width=width, height=height)


@pytest.mark.parametrize("block", range(MOTIONS // BLOCK))
def test_nothing_breaks(block):
    random = np.random.default_rng(block)
    farthest = dict.fromkeys(MODES, 0.0)
    for number in range(BLOCK):
        driving, reference = random_track(random, frames=random.integers(1, 6)), random_track(random, frames=1)
        for mode in MODES:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                aligned = align_motion(driving, reference, mode)
            for part in PARTS:
                before, after = getattr(driving, part), getattr(aligned, part)
                np.testing.assert_array_equal(np.isnan(after), np.isnan(before), err_msg=f"{block}/{number} {mode}")
                farthest[mode] = max(farthest[mode], np.max(abs(after), initial=0, where=np.isfinite(after)))
            assert (aligned.width, aligned.height) == (reference.width, reference.height)
            if number % 50 == 0:
                draw_motion(aligned, 64, 64)
    # In canvases. Where only two joints that nearly coincide are in both, they tell a size, and a wild one.
    assert all(distance < 1000 for distance in farthest.values()), farthest
