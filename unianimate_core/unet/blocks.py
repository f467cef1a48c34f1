"""The network's layers between its convolutions' entry and exit.

Inside the network a hidden state is ``(b f) c h w``: every frame a picture, the reference frame first in each video.
"""

from __future__ import annotations

from typing import Any

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention, Operations, TransformerBlock
from .config import attention_heads

GROUPS = 32


class TemporalConvs(nn.Module):
    """Four convolutions along the frames; their group norms see all frames of a video at once."""

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

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """X (b f) c h w → (b f) c h w."""
        h = rearrange(x, "(b f) c h w -> b c f h w", f=frames)
        h = self.conv4(self.conv3(self.conv2(self.conv1(h))))
        return x + rearrange(h, "b c f h w -> (b f) c h w")


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

    def forward(self, x: Tensor, time: Tensor, frames: int) -> Tensor:
        """X (b f) c h w; time b t → (b f) c' h w."""
        emb = self.emb_layers(time).repeat_interleave(frames, dim=0)[:, :, None, None]  # (b f) c' 1 1
        h = self.out_layers(self.in_layers(x) + emb)
        return self.temopral_conv(self.skip_connection(x) + h, frames)


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

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """X (b f) c h w; context b n d → (b f) c h w."""
        h = self.proj_in(rearrange(self.norm(x), "n c h w -> n (h w) c"))
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + rearrange(self.proj_out(h), "n (h w) c -> n c h w", h=x.shape[2])


class TemporalTransformer(nn.Module):
    """Two self-attentions along the frames of each pixel; no positional encoding."""

    def __init__(self, channels: int, inner: int, attention: Attention, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, **factory)
        self.proj_in = operations.Conv1d(channels, inner, 1, **factory)
        block = TransformerBlock(inner, inner, attention_heads(inner), attention, operations, **factory)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = operations.Conv1d(inner, channels, 1, **factory)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """X (b f) c h w → (b f) c h w."""
        height = x.shape[2]
        h = self.norm(rearrange(x, "(b f) c h w -> b c f h w", f=frames))
        h = self.proj_in(rearrange(h, "b c f h w -> (b f) c (h w)"))
        h = rearrange(h, "(b f) c n -> (b n) f c", f=frames)
        for block in self.transformer_blocks:
            h = block(h)
        h = rearrange(h, "(b n) f c -> (b f) c n", n=x.shape[2] * x.shape[3])
        return x + rearrange(self.proj_out(h), "n c (h w) -> n c h w", h=height)


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
