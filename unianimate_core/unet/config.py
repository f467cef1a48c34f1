"""The sizes of a UniAnimate network, all read from its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd

import torch

from ..errors import InputError
from ..ssm import MambaSizes

EMPTY_PROMPT = "empty_prompt"
HEAD_WIDTH = 64
PIXELS_PER_LATENT = 8
MAMBA = ".mamba"


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the unified 3D-UNet (paper, section 3.2); the defaults are the public checkpoint's."""

    latent_channels: int = 4
    concat_channels: int = 8
    width: int = 320
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    residual_blocks: int = 2
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    first_temporal_width: int = 512
    context_width: int = 1024
    image_width: int = 1024
    image_tokens: int = 4
    embedding_width: int = 32
    prompt_tokens: int = 0
    """Tokens of the empty prompt that the checkpoint brings; 0 where it brings none."""
    mamba: Mapping[str, MambaSizes] = field(default_factory=dict, hash=False)
    """Sizes of the temporal layers that are Mamba, by their names (``middle_block.2``); all others are transformers."""

    @property
    def in_channels(self) -> int:
        """Channels of the latent and the concat feature together; the reference frame has as many."""
        return self.latent_channels + self.concat_channels

    @property
    def downscale(self) -> int:
        """Pixels per cell of the coarsest level."""
        return PIXELS_PER_LATENT * 2 ** (len(self.multipliers) - 1)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor]) -> UNetConfig:
        """Read every size from the tensors of a checkpoint.

        Raises:
            InputError: A tensor that tells a size is missing.
        """

        def shape(name: str) -> torch.Size:
            if name not in tensors:
                raise InputError(f"the checkpoint lacks {name}: it is incomplete. Download it again")
            return tensors[name].shape

        width = shape("input_blocks.0.0.weight")[0]
        multipliers: list[int] = []
        attention_levels: list[bool] = []
        residual_blocks, block = 0, 1
        new_level = True
        while any(name.startswith(f"input_blocks.{block}.") for name in tensors):
            if f"input_blocks.{block}.op.weight" in tensors:
                new_level = True
            else:
                if new_level:
                    multipliers.append(shape(f"input_blocks.{block}.0.in_layers.2.weight")[0] // width)
                    attention_levels.append(any(name.startswith(f"input_blocks.{block}.1.") for name in tensors))
                    residual_blocks = 0
                    new_level = False
                residual_blocks += 1
            block += 1

        context_width = shape("middle_block.1.transformer_blocks.0.attn2.to_k.weight")[1]
        return cls(
            latent_channels=shape("out.2.weight")[0],
            concat_channels=shape("dwpose_embedding.5.weight")[0],
            width=width,
            multipliers=tuple(multipliers),
            residual_blocks=residual_blocks,
            attention_levels=tuple(attention_levels),
            first_temporal_width=shape("input_blocks.0.1.proj_in.weight")[0],
            context_width=context_width,
            image_width=shape("pre_image_condition.0.weight")[1],
            image_tokens=shape("pre_image_condition.2.weight")[0] // context_width,
            embedding_width=shape("dwpose_embedding.0.weight")[0],
            prompt_tokens=shape(EMPTY_PROMPT)[0] if EMPTY_PROMPT in tensors else 0,
            mamba={
                key.removesuffix(f"{MAMBA}.A_log"): MambaSizes.from_tensors(tensors, key.removesuffix(".A_log"))
                for key in tensors
                if key.endswith(f"{MAMBA}.A_log")
            },
        )


def check_size(width: int, height: int) -> None:
    """Raise InputError, which names the nearest good sizes, where one in pixels is not a positive multiple of 8."""
    for name, size in (("width", width), ("height", height)):
        if size < 1 or size % PIXELS_PER_LATENT:
            below = size // PIXELS_PER_LATENT * PIXELS_PER_LATENT
            nearest = [str(near) for near in (below, below + PIXELS_PER_LATENT) if near > 0]
            raise InputError(
                f"{name} is {size}: give a positive multiple of {PIXELS_PER_LATENT}, "
                f"for example {' or '.join(nearest or [str(PIXELS_PER_LATENT)])}"
            )


def attention_heads(channels: int) -> int:
    """Heads are 64 channels wide; where 64 does not divide the width, as wide as their common divisor."""
    return channels // gcd(channels, HEAD_WIDTH)
