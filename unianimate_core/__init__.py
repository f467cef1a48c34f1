"""UniAnimate (arXiv 2406.01188): animate a person's picture by a motion. Knows nothing of ComfyUI."""

from .diffusion import noise_prior, offset_noise, sample
from .errors import InputError
from .pose import MotionTrack, PoseDetector, align_motion, draw_motion, read_motion
from .unet import Conditions, UNet, UNetConfig, load_unet

__all__ = [
    "Conditions",
    "InputError",
    "MotionTrack",
    "PoseDetector",
    "UNet",
    "UNetConfig",
    "align_motion",
    "draw_motion",
    "load_unet",
    "noise_prior",
    "offset_noise",
    "read_motion",
    "sample",
]
