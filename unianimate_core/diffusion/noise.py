"""The noise that sampling starts from (paper, section 3.2, "unified noised input"; spec of the public weights)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .schedule import Schedule

CLIP_PRIOR = 949
LONG_VIDEO_PRIOR = 939
OFFSET = 0.1


def offset_noise(shape: torch.Size | tuple[int, ...], generator: torch.Generator, strength: float = OFFSET) -> Tensor:
    """Noise plus one number per channel and frame.

    Args:
        shape: b 4 f h w.
        generator: On the CPU, so that a seed means the same noise on every machine.
        strength: Share of the per-frame number; 0 gives plain noise.

    Returns:
        Noise b 4 f h w, float32, on the CPU.
    """
    batch, channels, frames, height, width = shape
    # Drawn frame by frame, as ComfyUI's stock samplers draw, so that a seed means the same there.
    noise = torch.randn(batch, frames, channels, height, width, generator=generator)
    offset = torch.randn(batch, frames, channels, 1, 1, generator=generator)
    return (noise + strength * offset).transpose(1, 2)  # b 4 f h w


def noise_prior(
    reference: Tensor, noise: Tensor, timestep: int = CLIP_PRIOR, schedule: Schedule | None = None
) -> Tensor:
    """x_T: the reference picture noised to a timestep, the same in every frame; it keeps background and colours.

    Args:
        reference: b 4 h w, scaled latent.
        noise: b 4 f h w.
        timestep: 0-999; 949 for a clip, 939 for a long video, up to 969 against ghosting. 999 is pure noise.
        schedule: The public one where None.

    Raises:
        InputError: The timestep is outside 0-999, or the shapes differ.
    """
    schedule = schedule or Schedule()
    check_prior(timestep, schedule)
    if reference.shape != noise[:, :, 0].shape:
        raise InputError(
            f"the reference latent has shape {tuple(reference.shape)}, "
            f"the noise {tuple(noise.shape)}: they differ beyond the frames"
        )
    return schedule.signal(timestep) * reference[:, :, None].to(noise) + schedule.noise(timestep) * noise


def check_prior(timestep: int, schedule: Schedule) -> None:
    """Raise InputError where a noise prior's timestep is not one of the schedule's."""
    if not 0 <= timestep < schedule.steps:
        raise InputError(
            f"the noise prior's timestep is {timestep}: choose 0 to {schedule.steps - 1} ({CLIP_PRIOR} is usual)"
        )
