"""Training samples. All that is random about sample k comes from the run's seed and k alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from einops import rearrange
from safetensors import SafetensorError
from torch import Tensor
from torch.utils.data import Dataset

from ..diffusion import Schedule, offset_noise
from ..errors import InputError
from ..pose import draw_motion
from .cache import CachedVideo
from .conditions import draw_present
from .config import RunConfig

STEP, SAMPLE = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class BatchOrder:
    """Which samples belong to which step: sample k is in step k // size.

    Attributes:
        batch: Samples a device takes at once.
        accumulate: Such batches to a step.
        processes: Devices.
    """

    batch: int
    accumulate: int
    processes: int

    @property
    def size(self) -> int:
        """Samples of one step."""
        return self.batch * self.accumulate * self.processes

    def batches(self, rank: int, start: int, steps: int) -> Iterator[list[int]]:
        """The samples of each batch of one process, from a step on."""
        for first in range(start * self.size + rank * self.batch, steps * self.size, self.batch * self.processes):
            yield list(range(first, first + self.batch))


@dataclass(frozen=True)
class SamplePlan:
    """One sample, before anything is read.

    Attributes:
        video: Its place among the videos.
        frames: Which frames of it.
        reference: The frame that is the reference picture.
        timestep: Of the diffusion.
        noise_seed: Of its noise.
        present: Which conditions it has.
    """

    video: int
    frames: list[int]
    reference: int
    timestep: int
    noise_seed: int
    present: dict[str, bool]


class Samples(Dataset):
    """All samples of a run, each made when it is asked for.

    Args:
        videos: At least one, none shorter than the shortest clip.
        config: The run's.
        order: Which samples share a step, and with it their number of frames.
    """

    def __init__(self, videos: list[CachedVideo], config: RunConfig, order: BatchOrder) -> None:
        self.videos = videos
        self.config = config
        self.order = order
        self.schedule = Schedule()
        self.lengths = np.array([video.frames for video in videos])

    def plan(self, number: int) -> SamplePlan:
        """What sample ``number`` is made of."""
        data = self.config.data
        low, high = data.frames
        in_step = np.random.default_rng((self.config.seed, STEP, number // self.order.size))
        frames = int(in_step.integers(low, min(high, self.lengths.max()), endpoint=True))
        random = np.random.default_rng((self.config.seed, SAMPLE, number))
        video = int(random.choice(np.flatnonzero(self.lengths >= frames)))
        length = int(self.lengths[video])
        widest = (length - 1) // max(1, frames - 1)
        stride = int(random.integers(min(data.stride.low, widest), min(data.stride.high, widest), endpoint=True))
        start = int(random.integers(length - (frames - 1) * stride))
        present = draw_present(self.config.dropout, random)
        return SamplePlan(
            video=video,
            frames=[start + stride * n for n in range(frames)],
            reference=int(random.integers(length)),
            timestep=self._timestep(random),
            noise_seed=int(random.integers(2**63)),
            present=present,
        )

    def _timestep(self, random: np.random.Generator) -> int:
        steps, shift = self.schedule.steps, self.config.training.timestep_shift
        drawn = int(random.integers(steps))
        noisiness = (drawn + 0.5) / steps
        return int(shift * noisiness / (1 + (shift - 1) * noisiness) * steps) if shift != 1 else drawn

    def describe(self, number: int) -> str:
        """A sample in words."""
        return self._describe(self.plan(number))

    def _describe(self, plan: SamplePlan) -> str:
        return f"{self.videos[plan.video].name}, frames {plan.frames[0]} to {plan.frames[-1]}, timestep {plan.timestep}"

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Sample ``number``; see `make`."""
        return self.make(self.plan(number))

    def make(self, plan: SamplePlan) -> dict[str, Any]:
        """A sample.

        Returns:
            ``latents`` and ``noise`` 4 f h w, ``timestep``, ``conditions`` (as `Conditions` without the batch, pictures
            uint8), ``present`` (booleans by condition).

        Raises:
            InputError: The video's cached file is gone or damaged.
        """
        try:
            return self._make(plan)
        except (OSError, SafetensorError, cv2.error) as error:
            raise InputError(
                f"{self.videos[plan.video].path} cannot be read any more ({error}; {self._describe(plan)}): start the "
                "same command again, which makes it anew"
            ) from error

    def _make(self, plan: SamplePlan) -> dict[str, Any]:
        latents = rearrange(self.videos[plan.video].latents(plan.frames), "f c h w -> c f h w")
        generator = torch.Generator().manual_seed(plan.noise_seed)
        return {
            "latents": latents,
            "noise": offset_noise((1, *latents.shape), generator)[0],
            "timestep": plan.timestep,
            "conditions": self.conditions(plan),
            "present": plan.present,
        }

    def conditions(self, plan: SamplePlan) -> dict[str, Tensor]:
        """A sample's conditions; of those that are absent only the shape counts."""
        data, video, present = self.config.data, self.videos[plan.video], plan.present
        blank = torch.zeros(3, data.height, data.width, dtype=torch.uint8)  # 3 H W

        def drawn(index: list[int]) -> Tensor:
            pictures = torch.from_numpy(draw_motion(video.motion(index), data.width, data.height))
            return rearrange(pictures, "f h w c -> f c h w").contiguous()  # as a worker would hand it on

        conditions = {
            "pose": drawn(plan.frames) if present["pose"] else blank.expand(len(plan.frames), -1, -1, -1),
            "reference": video.latents([plan.reference])[0],
            "reference_pose": drawn([plan.reference])[0] if present["reference_pose"] else blank,
            "first_frame": blank,
        }
        if present["first_frame"]:
            conditions["first_frame"] = rearrange(torch.from_numpy(video.picture(plan.frames[0])), "h w c -> c h w")
        if data.clip is not None:
            # Where the user's picture is the first frame, it is also the one that CLIP sees.
            is_first = present["first_frame"] and not present["reference"]
            conditions["image"] = video.image(plan.frames[0] if is_first else plan.reference)
        return conditions
