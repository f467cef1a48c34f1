"""Which conditions a training sample has (paper, section 3.2: random dropout)."""

from __future__ import annotations

import numpy as np

from .config import DropoutConfig

CONDITIONS = ("image", "pose", "reference", "reference_pose", "first_frame")
SETS = {
    "all_dropped": (),
    "all_kept": CONDITIONS,
    "from_reference": ("image", "pose", "reference", "reference_pose"),
    "from_first_frame": ("image", "pose", "first_frame"),
}


def draw_present(config: DropoutConfig, random: np.random.Generator) -> dict[str, bool]:
    """Draw a sample's conditions: one of the fixed sets by its share, else each condition on its own."""
    draw, drops = random.random(), random.random(len(CONDITIONS))
    for name, share in config.shares.items():
        if draw < share:
            return {condition: condition in SETS[name] for condition in CONDITIONS}
        draw -= share
    return {
        condition: bool(drop >= getattr(config, condition)) for condition, drop in zip(CONDITIONS, drops, strict=True)
    }
