"""UniAnimate (arXiv 2406.01188): animate a person's picture by a motion. Knows nothing of ComfyUI."""

from .diffusion import noise_prior, offset_noise, sample
from .errors import InputError
from .pose import MotionTrack, draw_motion, read_motion
from .unet import Conditions, UNet, UNetConfig, load_unet

__all__ = [
    "Conditions",
    "InputError",
    "MotionTrack",
    "UNet",
    "UNetConfig",
    "draw_motion",
    "load_unet",
    "noise_prior",
    "offset_noise",
    "read_motion",
    "sample",
]
