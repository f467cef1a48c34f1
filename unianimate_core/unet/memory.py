"""How much memory a forward pass takes beside the weights."""

from __future__ import annotations

import torch

from .config import UNetConfig

HIDDEN_STATES = 42
"""Values alive at the worst moment, in units of one value per cell, frame and channel of the network's width.
`benchmarks/unet.py` counts it: the feed-forward of the first temporal transformer holds the most."""


def activation_bytes(config: UNetConfig, frames: int, height: int, width: int, dtype: torch.dtype) -> int:
    """Peak bytes of one forward pass over latents of f frames of h x w, the reference frame not counted in f."""
    return (frames + 1) * height * width * config.width * HIDDEN_STATES * dtype.itemsize


def available_bytes(device: torch.device) -> int | None:
    """Bytes that a device can still give; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "cpu":
        try:
            import psutil
        except ImportError:
            return None
        return psutil.virtual_memory().available
    return None
