"""Deterministic DDIM with classifier-free guidance, as the public weights are sampled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..unet.conditions import Conditions, Features
from ..unet.memory import activation_bytes, available_bytes, fitted_to_memory
from ..unet.network import UNet
from .schedule import Schedule
from .windows import WindowWeights, frame_weights, window_starts

Callback = Callable[[int, int, Tensor], None]

MEMORY_SHARE = 0.8  # of the free memory that windows may take together; what is left is for x and the host


@dataclass(frozen=True)
class _Windows:
    """Windows that go through the network together.

    Attributes:
        frames: Which frames each shows; all as many.
        conditional: Features of a batch of (windows · b) videos.
        unconditional: The same; None where there is no guidance.
    """

    frames: list[slice]
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
    window_weights: WindowWeights = "uniform",
    windows_at_once: int | None = None,
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
        window_weights: Of a window's frames in the average; see `frame_weights`.
        windows_at_once: Windows in one pass of the network; None for `windows_that_fit`. It changes the speed alone.

    Returns:
        x0, b 4 f h w, float32, on the device of x_T.

    Raises:
        InputError: Steps, guidance, or a number about windows is out of range, or a condition's shape does not fit x_T.
    """
    if x_T.ndim != 5 or x_T.shape[1] != unet.config.latent_channels:
        raise InputError(f"x_T has shape {tuple(x_T.shape)}, expected b {unet.config.latent_channels} f h w")
    check_guidance(guidance)
    schedule = schedule or Schedule()
    timesteps = schedule.ddim_timesteps(steps)
    stride = schedule.steps // steps
    parameter = next(unet.parameters())
    frames = x_T.shape[2]
    conditions.check(unet.config, x_T.shape[0], *x_T.shape[2:])
    starts = window_starts(frames, frames if window is None else window, overlap)
    size = min(frames, window or frames)
    share = frame_weights(size, window_weights).to(parameter.device)  # size
    if windows_at_once is None:
        windows_at_once = windows_that_fit(unet, size, len(starts), x_T.shape[0], *x_T.shape[3:])
    if windows_at_once < 1:
        raise InputError(f"windows at once are {windows_at_once}: give 1 or more")
    x = x_T.to(parameter.device, torch.float32)  # b 4 f h w
    slices = [slice(start, start + size) for start in starts]
    groups = [slices[first : first + windows_at_once] for first in range(0, len(slices), windows_at_once)]
    windows = _encode_windows(unet, conditions, x.to(parameter.dtype), guidance, groups)
    for done, timestep in enumerate(timesteps, start=1):
        with fitted_to_memory(unet, len(groups[0]) * x.shape[0] * size, *x.shape[3:]):
            v = _guided(unet, x.to(parameter.dtype), timestep, windows, guidance, share)
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


def windows_that_fit(unet: UNet, size: int, windows: int, batch: int, height: int, width: int) -> int:
    """How many windows may go through the network together: as many as a GPU has memory for, and 1 on a CPU.

    A CPU is busy with one; on a GPU several small ones take less time together than one after the other.

    Args:
        unet: The network, where it will run.
        size: Frames of a window.
        windows: How many there are in all.
        batch: Videos that are sampled together.
        height: Of the latent.
        width: Of the latent.

    Returns:
        1 to ``windows``.
    """
    parameter = next(unet.parameters())
    if windows == 1 or parameter.device.type == "cpu":
        return 1
    free = available_bytes(parameter.device)
    if free is None:
        return 1
    each = batch * activation_bytes(unet.config, size, height, width, parameter.dtype)
    return min(windows, max(1, int(MEMORY_SHARE * free / each)))


def _encode_windows(
    unet: UNet, conditions: Conditions, like: Tensor, guidance: float, groups: list[list[slice]]
) -> list[_Windows]:
    unconditional = None
    if guidance != 1:
        unconditional = unet.encode_conditions(conditions.unconditional(), like[:, :, groups[0][0]])
    windows = []
    for group in groups:
        features = [unet.encode_conditions(conditions.frames(part), like[:, :, part]) for part in group]
        without = None if unconditional is None else _together([unconditional] * len(group))
        windows.append(_Windows(group, _together(features), without))
    return windows


def _together(features: list[Features]) -> Features:
    """The features of several batches as those of one; also of a network that has more of them than ours."""
    if len(features) == 1:
        return features[0]

    def join(values: tuple[Any, ...]) -> Any:
        return torch.cat(values) if isinstance(values[0], Tensor) else tuple(map(join, zip(*values, strict=True)))

    names = [item.name for item in fields(features[0])]
    return replace(features[0], **{name: join(tuple(getattr(one, name) for one in features)) for name in names})


def _guided(unet: UNet, x: Tensor, timestep: int, windows: list[_Windows], guidance: float, share: Tensor) -> Tensor:
    """The guided v of all frames, in float32; conditional and unconditional are averaged over windows apart."""
    conditional, unconditional = torch.zeros_like(x, dtype=torch.float32), torch.zeros_like(x, dtype=torch.float32)
    weight = x.new_zeros(x.shape[2], 1, 1, dtype=torch.float32)  # f 1 1

    def add(total: Tensor, group: _Windows, features: Features) -> None:
        parts = torch.cat([x[:, :, frames] for frames in group.frames])  # (windows b) 4 size h w
        t = torch.full((len(parts),), timestep, device=x.device)
        v = unet.denoise(parts, t, features).float() * share[:, None, None]
        for frames, one in zip(group.frames, v.split(x.shape[0]), strict=True):
            total[:, :, frames] += one

    for group in windows:
        add(conditional, group, group.conditional)
        if group.unconditional is not None:
            add(unconditional, group, group.unconditional)
        for frames in group.frames:
            weight[frames] += share[:, None, None]
    if guidance == 1:
        return conditional / weight
    return (unconditional + guidance * (conditional - unconditional)) / weight
