"""The network's layers between its convolutions' entry and exit.

Inside the network a hidden state is ``(b f) c h w``: every frame a picture, the reference frame first in each video.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import repeat
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention, Operations, TransformerBlock
from .config import attention_heads
from .groups import group_count, nbytes, over_frames

GROUPS = 32


class TemporalConvs(nn.Module):
    """Four convolutions along the frames; their group norms see all frames of a video at once."""

    values = 3  # as many as the input has are held at once beside it

    def __init__(self, channels: int, operations: Operations, **factory: Any) -> None:
        super().__init__()

        def layer(*between: nn.Module) -> nn.Sequential:
            return nn.Sequential(
                operations.GroupNorm(GROUPS, channels, **factory),
                nn.SiLU(),
                *between,
                operations.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), **factory),
            )

        self.conv1 = layer()
        self.conv2 = layer(nn.Identity())  # the checkpoint counts a dropout here
        self.conv3 = layer(nn.Identity())
        self.conv4 = layer(nn.Identity())

    def forward(self, x: Tensor, frames: int, working_bytes: int | None = None) -> Tensor:
        """X (b f) c h w → (b f) c h w, written over x where it runs in groups of rows."""
        video = x.unflatten(0, (-1, frames))  # b f c h w
        groups = group_count(self.values * nbytes(x), working_bytes)
        if groups == 1:
            h = self.conv4(self.conv3(self.conv2(self.conv1(video.transpose(1, 2)))))  # b c f h w
            return x + h.transpose(1, 2).flatten(0, 1)
        source, hidden = video, torch.empty_like(video)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            normalise = over_frames(layer[0], source, working_bytes)
            last = layer is self.conv4
            target = video if last else hidden
            for part, out in zip(source.chunk(groups, dim=3), target.chunk(groups, dim=3), strict=True):
                # A pixel's result depends on its own frames only, so that it may go where they lay.
                write = out.add_ if last else out.copy_
                write(_along_frames(layer[-1], normalise, part))
            source = hidden
        return x


def _along_frames(conv: nn.Module, normalise: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return conv(F.silu(normalise(x), inplace=True).transpose(1, 2)).transpose(1, 2)


def residual_values(in_channels: int, out_channels: int) -> int:
    """Values of a pixel that a residual block holds at once: in the first norm's activation, or at the sum."""
    return max(3 * in_channels, in_channels + 3 * out_channels)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with the timestep added between, then the temporal convolutions."""

    def __init__(
        self, in_channels: int, out_channels: int, time_width: int, operations: Operations, **factory: Any
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            operations.GroupNorm(GROUPS, in_channels, **factory),
            nn.SiLU(),
            operations.Conv2d(in_channels, out_channels, 3, padding=1, **factory),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(time_width, out_channels, **factory))
        self.out_layers = nn.Sequential(
            operations.GroupNorm(GROUPS, out_channels, **factory),
            nn.SiLU(),
            nn.Identity(),  # the checkpoint counts a dropout here
            operations.Conv2d(out_channels, out_channels, 3, padding=1, **factory),
        )
        self.skip_connection = (
            nn.Identity() if in_channels == out_channels else operations.Conv2d(in_channels, out_channels, 1, **factory)
        )
        self.temopral_conv = TemporalConvs(out_channels, operations, **factory)  # so spelled in the checkpoint
        self.values = residual_values(in_channels, out_channels)

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        frames: int,
        skip: Tensor | None = None,
        upsample: Upsample | None = None,
        working_bytes: int | None = None,
    ) -> Tensor:
        """One block, over groups of frames and then over groups of pixels.

        Args:
            x: (b f) c h w.
            time: b t.
            frames: Of one video.
            skip: (b f) c h w, joined to x's channels; it or x is overwritten where frames go in groups.
            upsample: Enlarges x to the size of skip.
            working_bytes: What the block may hold on the way; None for no limit, as autograd needs.

        Returns:
            (b f) c' h w.
        """
        emb = self.emb_layers(time).repeat_interleave(frames, dim=0)[:, :, None, None]  # (b f) c' 1 1
        size = x if skip is None else skip
        needed = self.values * size.shape[0] * size.shape[2] * size.shape[3] * x.element_size()
        groups = group_count(needed, working_bytes)
        if groups == 1:
            h = self._spatial(x, emb, skip, upsample)
        else:
            shape = size.shape[0], emb.shape[1], *size.shape[2:]
            spent = () if skip is None else (skip, x)  # without a skip, x is one for a later block
            h = next((tensor for tensor in spent if tensor.shape == shape), None)
            if h is None:
                h = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
            skips = repeat(None) if skip is None else skip.chunk(groups)
            for out, *part in zip(h.chunk(groups), x.chunk(groups), emb.chunk(groups), skips, strict=False):
                out.copy_(self._spatial(*part, upsample))
        return self.temopral_conv(h, frames, working_bytes)

    def _spatial(self, x: Tensor, emb: Tensor, skip: Tensor | None, upsample: Upsample | None) -> Tensor:
        """The convolutions inside each frame, n c h w → n c' h w; emb n c' 1 1."""
        x = x if upsample is None else upsample(x, *skip.shape[2:])
        x = x if skip is None else torch.cat((x, skip), dim=1)
        h = self.out_layers(self.in_layers(x) + emb)
        return self.skip_connection(x) + h


class SpatialTransformer(nn.Module):
    """Self-attention inside each frame, cross-attention on the video's text and image tokens."""

    def __init__(
        self, channels: int, context_width: int, attention: Attention, operations: Operations, **factory: Any
    ) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, **factory)
        self.proj_in = operations.Linear(channels, channels, **factory)
        heads = attention_heads(channels)
        block = TransformerBlock(channels, context_width, heads, attention, operations, **factory)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Linear(channels, channels, **factory)

    def forward(self, x: Tensor, context: Tensor, working_bytes: int | None = None) -> Tensor:
        """X (b f) c h w; context b n d → (b f) c h w, written over x where it runs in groups of frames."""
        groups = group_count(TransformerBlock.values * nbytes(x), working_bytes)
        if groups == 1:
            return x + self._answer(x, context, working_bytes)
        videos = len(context)
        for video, tokens in zip(x.chunk(videos), context.chunk(videos), strict=True):
            for part in video.chunk(math.ceil(groups / videos)):
                part += self._answer(part, tokens, working_bytes)
        return x

    def _answer(self, x: Tensor, context: Tensor, working_bytes: int | None) -> Tensor:
        """What is added to n c h w."""
        h = self.proj_in(self.norm(x).flatten(2).transpose(1, 2))  # n (h w) c
        for block in self.transformer_blocks:
            h = block(h, context, working_bytes)
        return self.proj_out(h).transpose(1, 2).unflatten(2, x.shape[2:])


class TemporalLayer(nn.Module):
    """A layer along the frames of each pixel, with a norm over all frames, projections and a residual around it.

    Attributes:
        norm: Group norm.
        proj_in: Conv1d to the width inside.
        proj_out: Conv1d back.
        values: As many as `along_frames` is given are held at once in it, these counted.
    """

    norm: nn.Module
    proj_in: nn.Module
    proj_out: nn.Module
    values: int

    def along_frames(self, x: Tensor, working_bytes: int | None) -> Tensor:
        """Frames of each pixel, n f c → n f c; may overwrite x, and hold working_bytes, where that is given."""
        raise NotImplementedError

    def forward(self, x: Tensor, frames: int, working_bytes: int | None = None) -> Tensor:
        """X (b f) c h w → (b f) c h w, written over x where it runs in groups of rows."""
        video = x.unflatten(0, (-1, frames))  # b f c h w
        groups = group_count(self.values * nbytes(x) * self.proj_in.out_channels // x.shape[1], working_bytes)
        if groups == 1:
            h = self.norm(video.transpose(1, 2)).transpose(1, 2)
            return x + self._answer(h, working_bytes).flatten(0, 1)
        normalise = over_frames(self.norm, video, working_bytes)
        for part in video.chunk(groups, dim=3):
            part += self._answer(normalise(part), working_bytes)
        return x

    def _answer(self, x: Tensor, working_bytes: int | None) -> Tensor:
        """What is added to b f c h w, of which x is the normalised."""
        batch, frames, _, *size = x.shape
        h = self.proj_in(x.flatten(0, 1).flatten(2)).unflatten(0, (batch, frames))  # b f c (h w)
        h = h.permute(0, 3, 1, 2).flatten(0, 1).contiguous()  # (b h w) f c, copied once: each norm would do it anew
        h = self.along_frames(h, working_bytes).unflatten(0, (batch, -1))
        h = self.proj_out(h.permute(0, 2, 3, 1).flatten(0, 1))  # (b f) c (h w)
        return h.unflatten(2, size).unflatten(0, (batch, frames))


class TemporalTransformer(TemporalLayer):
    """Two self-attentions along the frames of each pixel; no positional encoding."""

    values = TransformerBlock.values

    def __init__(self, channels: int, inner: int, attention: Attention, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, **factory)
        self.proj_in = operations.Conv1d(channels, inner, 1, **factory)
        block = TransformerBlock(inner, inner, attention_heads(inner), attention, operations, **factory)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Conv1d(inner, channels, 1, **factory)

    def along_frames(self, x: Tensor, working_bytes: int | None) -> Tensor:
        """N f c → n f c."""
        for block in self.transformer_blocks:
            x = block(x, None, working_bytes)
        return x


class Downsample(nn.Module):
    """Halves height and width; odd sizes are padded by one."""

    def __init__(self, channels: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """X n c h w → n c ⌈h/2⌉ ⌈w/2⌉."""
        return self.op(x)


class Upsample(nn.Module):
    """Doubles height and width by repetition, cropped to the size that was there before the downsampling."""

    def __init__(self, channels: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **factory)

    def forward(self, x: Tensor, height: int, width: int) -> Tensor:
        """X n c h w → n c height width."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest")[:, :, :height, :width])
