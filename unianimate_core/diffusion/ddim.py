"""Deterministic DDIM with classifier-free guidance, as the public weights are sampled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError
from ..unet.conditions import Conditions, Features
from ..unet.network import UNet
from .schedule import Schedule
from .windows import window_starts

Callback = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class _Window:
    frames: slice
    conditional: Features
    unconditional: Features | None


@torch.no_grad()
def sample(
    unet: UNet,
    x_T: Tensor,
    conditions: Conditions,
    steps: int = 50,
    guidance: float = 2.5,
    window: int | None = None,
    overlap: int = 0,
    callback: Callback | None = None,
    schedule: Schedule | None = None,
) -> Tensor:
    """Denoise x_T to a video's latent (DDIM, eta 0; arXiv 2010.02502, equation 12, in terms of v).

    Args:
        unet: The network; the sampling runs on its device and in its precision, the arithmetic of x in float32.
        x_T: b 4 f h w; noise, or `noise_prior`.
        conditions: See `Conditions`; their features are computed once, once per window where there are windows.
        steps: 1-1000; 1000 // steps is the stride, so 30 makes 31 timesteps.
        guidance: Weight of conditional over unconditional; 1 runs the network once a step.
        window: Frames the network sees at once; None for all. Predictions are averaged where windows overlap.
        overlap: Frames that neighbouring windows share, 0 to window - 1.
        callback: Called after each step with (steps done, steps in all, the present estimate of x0, b 4 f h w).
            What it raises ends the sampling.
        schedule: The public one where None.

    Returns:
        x0, b 4 f h w, float32, on the device of x_T.

    Raises:
        InputError: Steps, guidance, window or overlap are out of range, or a condition's shape does not fit x_T.
    """
    if x_T.ndim != 5 or x_T.shape[1] != unet.config.latent_channels:
        raise InputError(f"x_T has shape {tuple(x_T.shape)}, expected b {unet.config.latent_channels} f h w")
    check_guidance(guidance)
    schedule = schedule or Schedule()
    timesteps = schedule.ddim_timesteps(steps)
    stride = schedule.steps // steps
    parameter = next(unet.parameters())
    conditions.check(unet.config, x_T.shape[0], *x_T.shape[2:])
    x = x_T.to(parameter.device, torch.float32)  # b 4 f h w
    windows = _encode_windows(unet, conditions, x.to(parameter.dtype), guidance, window, overlap)
    for done, timestep in enumerate(timesteps, start=1):
        v = _guided(unet, x.to(parameter.dtype), timestep, windows, guidance)
        x0 = schedule.signal(timestep) * x - schedule.noise(timestep) * v
        epsilon = schedule.noise(timestep) * x + schedule.signal(timestep) * v
        following = max(timestep - stride, 0)
        x = schedule.signal(following) * x0 + schedule.noise(following) * epsilon
        if callback is not None:
            callback(done, len(timesteps), x0)
    return x.to(x_T.device)


def check_guidance(guidance: float) -> None:
    """Raise InputError where guidance is negative, infinite or NaN."""
    if not (math.isfinite(guidance) and guidance >= 0):
        raise InputError(f"guidance is {guidance}: give 0 or more (2.5 is usual, 1 switches it off)")


def _encode_windows(
    unet: UNet, conditions: Conditions, like: Tensor, guidance: float, window: int | None, overlap: int
) -> list[_Window]:
    frames = like.shape[2]
    size = min(frames, frames if window is None else window)
    unconditional = None
    if guidance != 1:
        unconditional = unet.encode_conditions(conditions.unconditional(), like[:, :, :size])
    windows = []
    for start in window_starts(frames, frames if window is None else window, overlap):
        part = slice(start, start + size)
        windows.append(_Window(part, unet.encode_conditions(conditions.frames(part), like[:, :, part]), unconditional))
    return windows


def _guided(unet: UNet, x: Tensor, timestep: int, windows: list[_Window], guidance: float) -> Tensor:
    """The guided v of all frames, in float32; conditional and unconditional are averaged over windows apart."""
    t = torch.full((x.shape[0],), timestep, device=x.device)
    conditional, unconditional = torch.zeros_like(x, dtype=torch.float32), torch.zeros_like(x, dtype=torch.float32)
    weight = x.new_zeros(x.shape[2], 1, 1, dtype=torch.float32)
    for window in windows:
        part = x[:, :, window.frames]
        conditional[:, :, window.frames] += unet.denoise(part, t, window.conditional)
        weight[window.frames] += 1
        if window.unconditional is not None:
            unconditional[:, :, window.frames] += unet.denoise(part, t, window.unconditional)
    if guidance == 1:
        return conditional / weight
    return (unconditional + guidance * (conditional - unconditional)) / weight
