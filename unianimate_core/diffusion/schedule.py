"""The noise schedule with zero terminal SNR, in which the network predicts v (spec of the public weights)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..errors import InputError


@dataclass(frozen=True)
class Schedule:
    """Linear-in-square-root betas, rescaled so that the last step is pure noise (arXiv 2305.08891, algorithm 1)."""

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ by timestep: 1000 values, float64; the last is 0."""
        betas = torch.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps, dtype=torch.float64) ** 2
        root = (1 - betas).cumprod(0).sqrt()
        root = (root - root[-1]) * root[0] / (root[0] - root[-1])
        return root**2

    def signal(self, timestep: int) -> float:
        """√ᾱ, the clean picture's share of a noised one."""
        return float(self.alphas_cumprod[timestep].sqrt())

    def noise(self, timestep: int) -> float:
        """√(1 − ᾱ), the noise's share."""
        return float((1 - self.alphas_cumprod[timestep]).sqrt())

    def sigma(self, timestep: int) -> float:
        """√((1 − ᾱ) / ᾱ), noise over signal; infinite at the last timestep."""
        alpha = float(self.alphas_cumprod[timestep])
        return math.sqrt((1 - alpha) / alpha) if alpha else math.inf

    def timestep(self, sigma: float) -> int:
        """The timestep whose sigma is nearest, in the logarithm."""
        alphas = self.alphas_cumprod[:-1]
        return int((((1 - alphas) / alphas).sqrt().log() - math.log(sigma)).abs().argmin()) + (sigma > self.top_sigma)

    @cached_property
    def top_sigma(self) -> float:
        """Sigmas above this belong to the last timestep, whose own is infinite."""
        return 2 * self.sigma(self.steps - 2)

    def is_whole(self, sigmas: list[float]) -> bool:
        """Whether sigmas, descending, are a whole schedule: one more of its first steps would pass the last timestep.

        A schedule for refining a latent (denoise under 1), or the second part of a split one, starts lower.
        """
        if len(sigmas) < 2 or min(sigmas[:2]) <= 0:
            return False
        first, second = self.timestep(sigmas[0]), self.timestep(sigmas[1])
        return first + (first - second) >= self.steps

    def ddim_timesteps(self, steps: int) -> list[int]:
        """DDIM's timesteps, descending: 50 steps give 981 … 1, 30 give 31 timesteps 991 … 1.

        Raises:
            InputError: Steps are not in 1-1000.
        """
        if not 1 <= steps <= self.steps:
            raise InputError(f"steps is {steps}: choose 1 to {self.steps} (25 to 50 are usual)")
        stride = self.steps // steps
        return [min(t + 1, self.steps - 1) for t in range(0, self.steps, stride)][::-1]
