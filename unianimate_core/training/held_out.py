"""Clips of videos that are not trained on: their loss tells whether what is learned holds for others, too."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from ..errors import InputError
from .cache import CachedVideo
from .config import RunConfig
from .data import BatchOrder, Samples

CLIPS = 32


def hold_out(videos: list[CachedVideo], share: float) -> tuple[list[CachedVideo], list[CachedVideo]]:
    """Part videos into those to train on and those held out; the names alone decide.

    Args:
        videos: All of them.
        share: Of the videos that are held out, 0 to below 1; above 0 at least one is.

    Raises:
        InputError: None would be left to train on.
    """
    count = max(1, round(share * len(videos))) if share else 0
    if count >= len(videos):
        raise InputError(
            f"[data] held_out is {share:g}, which leaves none of {len(videos)} video(s) to train on: give less, or "
            "more videos"
        )
    # By a hash of the name, so that most stay where they are when videos are added.
    order = sorted(range(len(videos)), key=lambda n: hashlib.sha256(videos[n].name.encode()).digest())
    held = set(order[:count])
    return [v for n, v in enumerate(videos) if n not in held], [v for n, v in enumerate(videos) if n in held]


class HeldOutClips(Dataset):
    """A few clips, the same at every checkpoint: frames, noise and conditions as in training, timesteps at equal steps.

    Args:
        videos: Those held out, at least one.
        config: The run's.
    """

    def __init__(self, videos: list[CachedVideo], config: RunConfig) -> None:
        self.samples = Samples(videos, config, BatchOrder(1, 1, 1))
        steps = self.samples.schedule.steps
        self.plans = [
            replace(self.samples.plan(number), timestep=int((number + 0.5) * steps / CLIPS)) for number in range(CLIPS)
        ]

    def __len__(self) -> int:
        return CLIPS

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Clip ``number``; see `Samples.make`."""
        return self.samples.make(self.plans[number])
