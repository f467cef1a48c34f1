"""How much memory a forward pass takes beside the weights, and how much of it is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from .attention import FeedForward, TransformerBlock
from .blocks import TemporalConvs, residual_values
from .config import UNetConfig
from .groups import WORKING_BYTES, group_count
from .temporal_mamba import mamba_values

if TYPE_CHECKING:
    from .network import UNet

LEAST_WORKING_BYTES = 1 << 27  # less would save little beside what is held anyway, and make matrix products small


def activation_bytes(
    config: UNetConfig,
    frames: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    working_bytes: int = LEAST_WORKING_BYTES,
) -> int:
    """Peak bytes of one forward pass over latents of f frames of h x w, the reference frame not counted in f.

    A walk through the network: what waits for later blocks, what a layer reads and writes, what it holds on the way.
    `benchmarks/memory.py` counts the same on the network itself, with an attention that holds no scores.

    Args:
        config: The network's sizes.
        frames: Of all videos of a batch together.
        height: Of the latent.
        width: Of the latent.
        dtype: Of the activations.
        working_bytes: As `UNet.working_bytes`; where none is given, the least that is chosen from free memory.
    """
    walk = _Walk(config, frames, height, width, dtype.itemsize, working_bytes)
    channels = config.width
    walk.temporal(0, channels, config.first_temporal_width, "input_blocks.0.1")
    walk.keep(0, channels)
    levels = list(enumerate(zip(config.multipliers, config.attention_levels, strict=True)))
    for level, (multiplier, attends) in levels:
        for _ in range(config.residual_blocks):
            walk.residual(level, channels, multiplier * config.width)
            channels = multiplier * config.width
            walk.transformers(level, channels, f"input_blocks.{len(walk.skips)}", attends)
            walk.keep(level, channels)
        if level < len(levels) - 1:
            walk.keep(level + 1, channels)
    given = walk.size(level, channels)
    walk.residual(level, channels, channels)
    walk.transformers(level, channels, "middle_block", True)
    walk.residual(level, channels, channels, given)
    blocks = len(walk.skips)
    for level, (multiplier, attends) in reversed(levels):
        for _ in range(config.residual_blocks + 1):
            walk.residual(level, channels, multiplier * config.width, given, joins=True)
            channels = multiplier * config.width
            walk.transformers(level, channels, f"output_blocks.{blocks - len(walk.skips) - 1}", attends)
            given = walk.size(level, channels)
    return walk.peak


class _Walk:
    """The most bytes alive so far, layer by layer."""

    def __init__(
        self, config: UNetConfig, frames: int, height: int, width: int, itemsize: int, working_bytes: int
    ) -> None:
        self.config, self.working_bytes = config, working_bytes
        self.frames, self.height, self.width, self.itemsize = frames + 1, height, width, itemsize
        self.skips: list[tuple[int, int]] = []  # channels, bytes
        self.peak = 0

    def size(self, level: int, channels: int) -> int:
        """Bytes of a hidden state."""
        cells = math.ceil(self.height / 2**level) * math.ceil(self.width / 2**level)
        return self.frames * cells * channels * self.itemsize

    def keep(self, level: int, channels: int) -> None:
        """A hidden state waits for its output block."""
        self.skips.append((channels, self.size(level, channels)))

    def alive(self, *held: int) -> None:
        """So much is held beside what waits."""
        self.peak = max(self.peak, sum(held) + sum(waiting for _, waiting in self.skips))

    def groups(self, needed: int) -> tuple[int, int]:
        """Into how many groups work goes, and what one holds."""
        count = group_count(needed, self.working_bytes)
        return count, math.ceil(needed / count)

    def residual(self, level: int, channels: int, out_channels: int, given: int = 0, joins: bool = False) -> None:
        """A residual block on ``given`` bytes that are no skip; one that joins a skip may write over either."""
        joined, skip = self.skips.pop() if joins else (0, 0)
        inputs = given + skip  # they live until the block ends
        made = self.size(level, out_channels)
        count, part = self.groups(self.size(level, residual_values(channels + joined, out_channels)))
        own = 0 if count > 1 and joins and made in (given, skip) else made
        self.alive(inputs, part, own if count > 1 else 0)
        count, part = self.groups(TemporalConvs.values * made)
        self.alive(inputs, part, own, made if count > 1 else 0)

    def transformers(self, level: int, channels: int, block: str, attends: bool) -> None:
        """The spatial and the temporal layer of a block, where it has them."""
        if attends:
            self._transformer(level, channels, channels)
            self.temporal(level, channels, channels, f"{block}.2")

    def temporal(self, level: int, channels: int, inner: int, name: str) -> None:
        """A temporal layer by its name in the checkpoint."""
        if name in self.config.mamba:
            values = mamba_values(self.config.mamba[name], inner)
            self.alive(self.size(level, channels), self.groups(values * self.size(level, inner))[1])
        else:
            self._transformer(level, channels, inner)

    def _transformer(self, level: int, channels: int, inner: int) -> None:
        whole = self.size(level, inner)
        count, attention = self.groups(TransformerBlock.values * whole)
        part = whole // count
        chunks = group_count(FeedForward.values * part, max(self.working_bytes - part, self.working_bytes // 4))
        self.alive(self.size(level, channels), max(attention, part + FeedForward.values * part // chunks))


def choose_working_bytes(
    config: UNetConfig, frames: int, height: int, width: int, dtype: torch.dtype, free: int | None
) -> int:
    """What a layer may hold on its way where ``free`` bytes are free: half of what is left beside the least.

    Arguments as of `activation_bytes`.

    Returns:
        A power of two, so that a compiled network is seldom compiled anew, from `LEAST_WORKING_BYTES`, below which the
        network does not fit anyway, to `WORKING_BYTES`, which it also is where it is not known what is free.
    """
    if free is None:
        return WORKING_BYTES
    spare = free - activation_bytes(config, frames, height, width, dtype)
    half = min(WORKING_BYTES, max(LEAST_WORKING_BYTES, spare // 2))
    return 1 << (half.bit_length() - 1)


@contextmanager
def fitted_to_memory(unet: UNet, frames: int, height: int, width: int) -> Iterator[None]:
    """Lower `UNet.working_bytes` to what is free on its device, while the context lasts.

    Args:
        unet: Where it runs, and in its precision.
        frames: Of all videos that go through it together.
        height: Of the latent.
        width: Of the latent.
    """
    most, parameter = unet.working_bytes, next(unet.parameters())
    if most is not None:
        free = available_bytes(parameter.device)
        chosen = choose_working_bytes(unet.config, frames, height, width, parameter.dtype, free)
        unet.working_bytes = min(most, chosen)
    try:
        yield
    finally:
        unet.working_bytes = most


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
