"""Random, incomplete motions for property tests, and a person of known proportions."""

import numpy as np
from hypothesis import strategies as st

from unianimate_core.pose import MotionTrack

PARTS = {"body": (20,), "hands": (2, 21), "face": (68,)}


def random_track(seed, frames=None, *, presence=None, spread=None, scored=None, canvas=None):
    """A motion whose joints wander about, come and go; what is None is drawn at random."""
    rng = np.random.default_rng(seed)
    frames = rng.integers(1, 25) if frames is None else frames
    presence = rng.choice([0.0, 0.2, 0.6, 0.9, 1.0]) if presence is None else presence
    spread = rng.choice([0.0, 0.01, 0.3, 1e4]) if spread is None else spread
    fields = {}
    for part, shape in PARTS.items():
        points = rng.uniform(-0.5, 1.5, (*shape, 2)) + spread * rng.normal(size=(frames, *shape, 2)).cumsum(0)
        # Absences last for some frames: each frame repeats the one before it, or is drawn anew.
        there = rng.random((frames, *shape)) < presence
        for frame in range(1, frames):
            there[frame] = np.where(rng.random(shape) < 0.6, there[frame - 1], there[frame])
        points[~there] = np.nan
        fields[part] = points
        if rng.random() < 0.6 if scored is None else scored:
            fields[f"{part}_scores"] = np.where(there, rng.uniform(0.3, 1, there.shape), 0)
    width, height = rng.integers(1, 2000, 2) if canvas is None else canvas
    return MotionTrack(**fields, width=width, height=height)


def tracks(**settings):
    """A strategy of such motions."""
    return st.integers(0, 2**32 - 1).map(lambda seed: random_track(seed, **settings))


def all_points(track):
    """F 130 2: body, left hand, right hand, face."""
    return np.concatenate([getattr(track, part).reshape(len(track), -1, 2) for part in PARTS], 1)


def all_scores(track):
    """F 130, NaN in parts without scores."""
    columns = []
    for part, shape in PARTS.items():
        scores = getattr(track, f"{part}_scores")
        columns.append(
            np.full((len(track), np.prod(shape)), np.nan) if scores is None else scores.reshape(len(track), -1)
        )
    return np.concatenate(columns, 1)


def presence(track):
    """F 130: which points are present."""
    return np.isfinite(all_points(track)).all(-1)


def standing_person(height, frames=1, canvas=(1000, 1000), foot=(500.0, 900.0)):
    """Somebody who stands upright with hanging arms, by the proportions of Drillis & Contini (1966); no hands, no face.

    Heights of joints over the ground and half widths, in body heights: shoulders 0.818 and 0.129, elbows 0.632, wrists
    0.486, hips 0.530 and 0.0955, knees 0.285, ankles 0.039, eyes 0.936.
    """
    right_half = {  # joint: half width, height over the ground
        **{0: (0.0, 0.92), 1: (0.0, 0.818), 14: (0.02, 0.936), 16: (0.045, 0.93)},
        **{2: (0.129, 0.818), 3: (0.129, 0.632), 4: (0.129, 0.486)},
        **{8: (0.0955, 0.53), 9: (0.0955, 0.285), 10: (0.0955, 0.039), 19: (0.15, 0.0)},
    }
    left = {14: 15, 16: 17, 2: 5, 3: 6, 4: 7, 8: 11, 9: 12, 10: 13, 19: 18}
    body = np.zeros((20, 2))
    for joint, (aside, up) in right_half.items():
        body[joint] = -aside, -up
        if joint in left:
            body[left[joint]] = aside, -up
    pixels = np.array(foot) + body * height
    return MotionTrack(np.tile(pixels / canvas, (frames, 1, 1)), width=canvas[0], height=canvas[1])
