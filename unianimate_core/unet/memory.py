"""How much memory a forward pass takes beside the weights."""

from __future__ import annotations

import torch

from ..errors import InputError
from .config import UNetConfig


def activation_bytes(config: UNetConfig, frames: int, height: int, width: int, dtype: torch.dtype) -> int:
    """Peak bytes of one forward pass over latents of f frames of h x w, the reference frame not counted in f.

    Counted by `benchmarks/peak.py` with an attention that holds no scores. The most is alive in the feed-forward of a
    transformer at full size: in the first temporal one where that is wide, as in the public checkpoint.
    """
    values = max((24 + config.residual_blocks) * config.width, 20 * config.first_temporal_width + 2 * config.width)
    return (frames + 1) * height * width * values * dtype.itemsize


def require_memory(needed: int, device: torch.device, what: str, advice: str) -> None:
    """Refuse what cannot fit before any work is done.

    Raises:
        InputError: ``what`` needs more bytes than the device can still give.
    """
    available = available_bytes(device)
    if available is not None and needed > available:
        raise InputError(
            f"{what} would take about {needed / 2**30:.1f} GiB; "
            f"{available / 2**30:.1f} GiB are free on {device}. {advice}"
        )


def available_bytes(device: torch.device) -> int | None:
    """Bytes that a device can still give; None where that is not known."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by PyTorch, for what comes
        return torch.cuda.mem_get_info(device)[0] + held
    if device.type == "cpu":
        try:
            import psutil
        except ImportError:
            return None
        return psutil.virtual_memory().available
    return None
