"""Layers over a part of their input at a time, so that what they hold on the way stays small.

A layer that works in groups may write its result over its input; one whose input fits in one group makes a new tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

WORKING_BYTES = 1 << 30  # more makes no layer faster: its matrix products are large by then


def group_count(needed: int, working_bytes: int | None) -> int:
    """Into how many groups work goes that would hold ``needed`` bytes at once; one where there is no limit."""
    return 1 if working_bytes is None else max(1, math.ceil(needed / max(1, working_bytes)))


def nbytes(x: Tensor) -> int:
    """Bytes of all values."""
    return x.numel() * x.element_size()


def add(x: Tensor, y: Tensor, in_place: bool) -> Tensor:
    """The sum, in x itself where that may be overwritten."""
    return x.add_(y) if in_place else x + y


def affine(norm: nn.Module, like: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of a group norm, each c, as its own forward applies them: a host's casts, streams, patches them.

    A host's are read from what the layer makes of +1 and -1, whose mean is 0 and variance 1, in float32 at least.
    """
    precise = _precise(like)
    if type(norm) is nn.GroupNorm:
        return norm.weight.to(precise), norm.bias.to(precise)
    ones = like.new_ones(norm.num_channels, dtype=precise)
    try:
        up, down = norm(torch.stack((ones, -ones), dim=-1)[None])[0].unbind(-1)
    except RuntimeError:  # a layer that does not cast: its weights are as they stand
        return norm.weight.to(precise), norm.bias.to(precise)
    return (up - down) * (math.sqrt(1 + norm.eps) / 2), (up + down) / 2


def over_frames(norm: nn.Module, video: Tensor, working_bytes: int | None) -> Callable[[Tensor], Tensor]:
    """A group norm whose statistics run over all frames and pixels of a video, for use on parts of it.

    Two passes, mean and then variance, in float32 at least: neither a copy nor the normalised video is held.

    Args:
        norm: A `torch.nn.GroupNorm`, or a host's.
        video: b f c h w, what the statistics are taken from.
        working_bytes: What a pass may hold.

    Returns:
        Normalises b f c h' w', any rows of the video, in its precision.
    """
    precise = _precise(video)
    batch, frames, channels, height, width = video.shape
    values = frames * height * width * channels // norm.num_groups
    parts = video.chunk(group_count(nbytes(video) * precise.itemsize // video.element_size(), working_bytes), dim=1)

    def mean(sums: Tensor) -> Tensor:
        """Sums b c → mean of each channel's group, b 1 c 1 1."""
        of_groups = sums.view(batch, norm.num_groups, -1).sum(-1, keepdim=True) / values
        return of_groups.expand(-1, -1, channels // norm.num_groups).reshape(batch, 1, channels, 1, 1)

    centre = mean(sum(part.sum((1, 3, 4), dtype=precise) for part in parts))
    variance = mean(sum((part - centre).square_().sum((1, 3, 4)) for part in parts))
    weight, bias = (parameter.view(channels, 1, 1) for parameter in affine(norm, video))
    scale = weight * torch.rsqrt(variance + norm.eps)
    shift = bias - centre * scale
    return lambda part: torch.addcmul(shift, part, scale).to(part.dtype)


def _precise(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
