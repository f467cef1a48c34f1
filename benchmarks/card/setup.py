"""Where and how large a part of `gpu.py` measures, and what all parts share."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unianimate_core import UNet, UNetConfig
from unianimate_core.errors import first_line
from unianimate_core.unet.config import PIXELS_PER_LATENT
from unianimate_core.unet.loading import with_temporal

Row = dict[str, Any]

TINY = UNetConfig(
    width=32,
    multipliers=(1,),
    residual_blocks=1,
    attention_levels=(True,),
    first_temporal_width=32,
    context_width=32,
    image_width=8,
    embedding_width=4,
)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Setup:
    """Where and how large.

    Attributes:
        device: ``cuda``, or ``cpu`` to try the script.
        tiny: Sizes that a CPU does in seconds.
    """

    device: torch.device
    tiny: bool = False

    @property
    def on_card(self) -> bool:
        """Whether memory can be counted and graphs recorded."""
        return self.device.type == "cuda"

    @property
    def config(self) -> UNetConfig:
        """Of the network."""
        return TINY if self.tiny else UNetConfig()

    def cells(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the latent."""
        width, height = (64, 32) if self.tiny else size
        return height // PIXELS_PER_LATENT, width // PIXELS_PER_LATENT

    def frames(self, count: int) -> int:
        """Of a video."""
        return 2 + count // 100 if self.tiny else count

    def synchronise(self) -> None:
        """Wait for the card."""
        if self.on_card:
            torch.cuda.synchronize()


def network(setup: Setup, temporal: str, dtype: torch.dtype) -> UNet:
    """Of the public sizes, with random weights, made on the card."""
    torch.manual_seed(0)
    config = with_temporal(setup.config, setup.config, temporal)
    return UNet(config, dtype=dtype, device=setup.device).eval().requires_grad_(False)


def attempt(measure: Callable[[], Row]) -> Row:
    """What a measurement gives, or why it failed; what it held is free again."""
    try:
        return measure()
    except Exception as error:
        return {"error": fault_of(error)}
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def fault_of(error: Exception) -> str:
    """What went wrong, in a line."""
    return f"{type(error).__name__}: {first_line(error)[:300]}"


def relative_error(made: Tensor, expected: Tensor) -> float:
    """‖a − b‖ / ‖b‖."""
    made, expected = made.detach().cpu().double(), expected.detach().cpu().double()
    return float((made - expected).norm() / expected.norm())


def name_of(dtype: torch.dtype) -> str:
    """As `float16`."""
    return str(dtype).removeprefix("torch.")
