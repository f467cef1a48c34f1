"""From noise to latents: schedule, noise prior, DDIM, windows."""

from .ddim import sample
from .noise import noise_prior, offset_noise
from .schedule import Schedule
from .windows import frame_weights, window_starts

__all__ = ["Schedule", "frame_weights", "noise_prior", "offset_noise", "sample", "window_starts"]
