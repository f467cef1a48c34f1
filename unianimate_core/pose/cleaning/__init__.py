"""Cleaning and editing of a motion: functions from a `MotionTrack` to a new one.

For a motion as a detector gives it, in this order: `drop_flicker`, `drop_outliers`, `fill_gaps`, `smooth`.
"""

from .flicker import drop_flicker
from .gaps import fill_gaps, hold_pose
from .geometry import mirror, transform
from .interpolation import INTERPOLATIONS
from .limbs import LIMBS, scale_limbs
from .looping import LOOPS, loop
from .outliers import drop_outliers
from .smoothing import SMOOTHINGS, smooth
from .timing import retime, trim

__all__ = [
    "INTERPOLATIONS",
    "LIMBS",
    "LOOPS",
    "SMOOTHINGS",
    "drop_flicker",
    "drop_outliers",
    "fill_gaps",
    "hold_pose",
    "loop",
    "mirror",
    "retime",
    "scale_limbs",
    "smooth",
    "transform",
    "trim",
]
