"""Sliding windows over the frames of a long video."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError

WindowWeights = Literal["uniform", "pyramid"]


def window_starts(frames: int, size: int, overlap: int) -> list[int]:
    """First frames of the windows; the last window is the last ``size`` frames, so that none wraps.

    20 frames in windows of 8 with overlap 2 start at 0, 6, 12; as many frames as fit one window make one.

    Raises:
        InputError: The size is below 1, or the overlap not in 0 to size - 1.
    """
    if size < 1 or not 0 <= overlap < size:
        raise InputError(f"window {size} with overlap {overlap}: the overlap must be at least 0 and below the window")
    if frames <= size:
        return [0]
    return [min(start, frames - size) for start in range(0, frames - overlap, size - overlap)]


def frame_weights(size: int, kind: WindowWeights = "uniform") -> Tensor:
    """How much each frame of a window counts where windows overlap.

    Args:
        size: Frames of the window.
        kind: ``uniform``, 1 throughout, as the public implementation; ``pyramid``, 1, 2, 3 … to the middle and back, so
            that a frame counts more where the window saw more of what surrounds it.

    Returns:
        float32, size.

    Raises:
        InputError: The kind is unknown.
    """
    if kind not in get_args(WindowWeights):
        raise InputError(f"window weights {kind!r} are unknown: choose {', '.join(get_args(WindowWeights))}")
    if kind == "uniform":
        return torch.ones(size)
    rising = torch.arange(1, size + 1, dtype=torch.float32)
    return torch.minimum(rising, rising.flip(0))
