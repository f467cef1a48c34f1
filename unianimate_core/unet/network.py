"""The unified 3D-UNet: one network denoises the video and reads the reference picture (paper, section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import Attention, Operations, scaled_dot_product_attention
from .blocks import (
    GROUPS,
    Downsample,
    ResidualBlock,
    SpatialTransformer,
    TemporalLayer,
    TemporalTransformer,
    Upsample,
)
from .conditions import ConditionEncoders, Conditions, Features, Presence
from .config import UNetConfig
from .groups import WORKING_BYTES, group_count, nbytes
from .temporal_mamba import TemporalMamba


def timestep_embedding(timestep: Tensor, width: int) -> Tensor:
    """Timesteps b → b width, cosines first, frequencies 10000^(-2i / width), in float32."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000) / half * torch.arange(half, device=timestep.device, dtype=torch.float32))
    angles = timestep.float()[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class UNet(ConditionEncoders):
    """Predicts v for every frame of b videos. The submodules' names are the public checkpoint's.

    Args:
        config: The sizes.
        operations: A namespace of layer classes, ``torch.nn`` or a host's that casts and streams weights.
        attention: ``(q b n (h d), k, v, heads) → b n (h d)``.
        dtype: Precision of the parameters.
        device: Where they are made.

    Attributes:
        working_bytes: What a layer may hold on its way beside its input and output; where it would hold more, it runs
            over groups of frames or pixels, to the same result. None for no limit. With gradients there is none.
    """

    working_bytes: int | None = WORKING_BYTES

    def __init__(
        self,
        config: UNetConfig,
        operations: Operations = nn,
        attention: Attention = scaled_dot_product_attention,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        factory: dict[str, Any] = {"dtype": dtype, "device": device}
        super().__init__(config, operations, **factory)
        self.dtype = dtype or torch.get_default_dtype()
        self.time_embed = nn.Sequential(
            operations.Linear(config.width, 4 * config.width, **factory),
            nn.SiLU(),
            operations.Linear(4 * config.width, 4 * config.width, **factory),
        )

        def residual(in_channels: int, out_channels: int) -> ResidualBlock:
            return ResidualBlock(in_channels, out_channels, 4 * config.width, operations, **factory)

        def temporal(name: str, channels: int, inner: int) -> TemporalLayer:
            if name in config.mamba:
                return TemporalMamba(channels, inner, config.mamba[name], operations, **factory)
            return TemporalTransformer(channels, inner, attention, operations, **factory)

        def transformers(name: str, channels: int) -> list[nn.Module]:
            return [
                SpatialTransformer(channels, config.context_width, attention, operations, **factory),
                temporal(f"{name}.2", channels, channels),
            ]

        channels = config.width
        self.input_blocks = nn.ModuleList(
            [
                nn.ModuleList(
                    [
                        operations.Conv2d(config.in_channels, channels, 3, padding=1, **factory),
                        temporal("input_blocks.0.1", channels, config.first_temporal_width),
                    ]
                )
            ]
        )
        skips = [channels]
        levels = list(zip(config.multipliers, config.attention_levels, strict=True))
        for level, (multiplier, attends) in enumerate(levels):
            for _ in range(config.residual_blocks):
                block: list[nn.Module] = [residual(channels, multiplier * config.width)]
                channels = multiplier * config.width
                block += transformers(f"input_blocks.{len(self.input_blocks)}", channels) if attends else []
                self.input_blocks.append(nn.ModuleList(block))
                skips.append(channels)
            if level < len(levels) - 1:
                self.input_blocks.append(Downsample(channels, operations, **factory))
                skips.append(channels)

        self.middle_block = nn.ModuleList(
            [residual(channels, channels), *transformers("middle_block", channels), residual(channels, channels)]
        )

        self.output_blocks = nn.ModuleList()
        for level, (multiplier, attends) in reversed(list(enumerate(levels))):
            for index in range(config.residual_blocks + 1):
                block = [residual(channels + skips.pop(), multiplier * config.width)]
                channels = multiplier * config.width
                block += transformers(f"output_blocks.{len(self.output_blocks)}", channels) if attends else []
                if level > 0 and index == config.residual_blocks:
                    block.append(Upsample(channels, operations, **factory))
                self.output_blocks.append(nn.ModuleList(block))

        self.out = nn.Sequential(
            operations.GroupNorm(GROUPS, channels, **factory),
            nn.SiLU(),
            operations.Conv2d(channels, config.latent_channels, 3, padding=1, **factory),
        )

    def forward(
        self,
        latent: Tensor,
        timestep: Tensor,
        text: Tensor | None = None,
        image: Tensor | None = None,
        pose: Tensor | None = None,
        reference: Tensor | None = None,
        reference_pose: Tensor | None = None,
        first_frame: Tensor | None = None,
        present: Presence | None = None,
    ) -> Tensor:
        """Predict v from a noised latent and raw conditions; see `Conditions` for their shapes.

        Args:
            latent: b 4 f h w, noised; taken in the network's precision, as are the conditions.
            timestep: b, integers 0-999.
            text: b n d, or None for the checkpoint's own.
            image: b 1024 or None, as are all that follow.
            pose: b f 3 H W, 0-1.
            reference: b 4 h w, scaled.
            reference_pose: b 3 H W, 0-1.
            first_frame: b 3 H W, 0-1.
            present: See `encode_conditions`.

        Returns:
            v, b 4 f h w.

        Raises:
            InputError: A condition's shape does not fit the latent.
        """
        latent = latent.to(self.dtype)
        conditions = Conditions(text, image, pose, reference, reference_pose, first_frame)
        return self.denoise(latent, timestep, self.encode_conditions(conditions, latent, present))

    def denoise(self, latent: Tensor, timestep: Tensor, features: Features) -> Tensor:
        """Predict v from a noised latent b 4 f h w, timesteps b and ready features → b 4 f h w."""
        video = torch.cat((latent, features.concat), dim=1)  # b 12 f h w
        x = torch.cat((features.reference[:, :, None], video), dim=2)  # b 12 f+1 h w
        return self.unified(x, timestep, features.context)[:, :, 1:]

    def unified(self, x: Tensor, timestep: Tensor, context: Tensor) -> Tensor:
        """The network proper: x b 12 f+1 h w with the reference frame first, context b n d → b 4 f+1 h w."""
        batch, _, frames = x.shape[:3]
        working_bytes = None if torch.is_grad_enabled() else self.working_bytes
        time = self.time_embed(timestep_embedding(timestep, self.config.width).to(x.dtype))  # b t
        h = x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)  # (b f) c h w
        skips: list[Tensor] = []

        def run(
            layers: Iterable[nn.Module], h: Tensor, skip: Tensor | None = None, upsample: Upsample | None = None
        ) -> Tensor:
            for layer in layers:
                match layer:
                    case ResidualBlock():
                        h = layer(h, time, frames, skip, upsample, working_bytes)
                        skip = None  # nothing may hold it any longer
                    case SpatialTransformer():
                        h = layer(h, context, working_bytes)
                    case TemporalLayer():
                        h = layer(h, frames, working_bytes)
                    case _:
                        h = layer(h)
            return h

        checkpointing = self.gradient_checkpointing and torch.is_grad_enabled()
        block_output = partial(checkpoint, run, use_reentrant=False) if checkpointing else run
        for block in self.input_blocks:
            h = block_output(block if isinstance(block, nn.ModuleList) else (block,), h)
            skips.append(h)
        h = block_output(self.middle_block, h)
        upsample = None
        for block in self.output_blocks:
            # What ends a level is left to the next block, which enlarges a few frames at a time.
            layers = [layer for layer in block if not isinstance(layer, Upsample)]
            inputs = [h, skips.pop()]
            del h  # held here, it would outlive its use
            h = block_output(layers, inputs.pop(0), inputs.pop(), upsample)
            upsample = next((layer for layer in block if isinstance(layer, Upsample)), None)
        groups = group_count(3 * nbytes(h), working_bytes)
        v = torch.cat([self.out(part) for part in h.chunk(groups)])  # (b f) 4 h w
        return v.unflatten(0, (batch, frames)).transpose(1, 2)
