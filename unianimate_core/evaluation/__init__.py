"""How good a video is: metrics against the truth, and what they are shown with (paper, section 4.1).

`evaluate` and `command` are imported by themselves, as they need the packages of the extra `evaluate`.
"""

from .metrics import pixel_metrics
from .perceptual import Lpips, VideoFeatures, frechet_distance

__all__ = ["Lpips", "VideoFeatures", "frechet_distance", "pixel_metrics"]
