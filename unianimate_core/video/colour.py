"""Holds the colours of a video's segments to those of a picture, person and background apart."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .writing import to_uint8

REACH = 0.06
"""How far beyond the skeleton the person reaches, as a share of the skeleton's height."""
MOST = 1.5
"""A channel's contrast is changed by this factor at most: more is another picture, not drift."""
LEAST_SHARE = 1e-3  # of the pixels; a smaller region tells nothing about its colours


@dataclass(frozen=True)
class ColourStatistics:
    """Means and standard deviations of person and background; RGB, 0-1.

    Attributes:
        mean: … 2 3; the person's, then the background's. NaN where there is (nearly) none.
        deviation: The same.
    """

    mean: Tensor
    deviation: Tensor


def person_mask(pose: Tensor) -> Tensor:
    """Where the person is, by its drawn skeleton: the skeleton made wider, with a soft rim.

    Args:
        pose: f 3 H W, on black.

    Returns:
        f H W, 0-1; 0 throughout where nobody is drawn.
    """
    drawn = (pose.amax(1, keepdim=True) > 0).float()  # f 1 H W
    rows = drawn.amax((1, 3))  # f H
    heights = (rows.cumsum(1).gt(0) & rows.flip(1).cumsum(1).flip(1).gt(0)).sum(1)  # f
    radius = max(1, round(REACH * float(heights.float().median())))
    size = 2 * radius + 1
    wide = F.max_pool2d(F.max_pool2d(drawn, (size, 1), 1, (radius, 0)), (1, size), 1, (0, radius))
    soft = F.avg_pool2d(wide, (size, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(soft, (1, size), 1, (0, radius), count_include_pad=False)[:, 0]


def colour_statistics(frames: Tensor, mask: Tensor) -> ColourStatistics:
    """Measure frames.

    Args:
        frames: uint8 f h w 3.
        mask: f h w, 0-1: how far a pixel belongs to the person.

    Returns:
        Of each frame, f 2 3.
    """
    measured = [_measure(frame / 255, weight) for frame, weight in zip(frames, mask, strict=True)]
    return ColourStatistics(*(torch.stack(values) for values in zip(*measured, strict=True)))


def mean_statistics(statistics: ColourStatistics) -> ColourStatistics:
    """The mean over frames, 2 3, of statistics f 2 3."""
    return ColourStatistics(statistics.mean.nanmean(0), statistics.deviation.nanmean(0))


def hold_colours(frames: Tensor, mask: Tensor, target: ColourStatistics) -> Tensor:
    """Give frames the colours of a target: each channel of person and background its mean and standard deviation.

    How a segment differs from the target is taken as a straight line over its frames, so that it is mended without
    flicker, and without a jump where a segment goes on from one that was mended.

    Args:
        frames: uint8 f h w 3.
        mask: f h w, 0-1: how far a pixel belongs to the person.
        target: 2 3. What is NaN there, or in the frames, is left as it is.

    Returns:
        uint8 f h w 3.
    """
    own = colour_statistics(frames, mask)
    mean, deviation = _line(own.mean), _line(own.deviation)  # f 2 3
    gain = (target.deviation / deviation.clamp_min(1e-3)).clamp(1 / MOST, MOST)
    gain = torch.where(gain.isnan(), 1, gain)
    shift = (target.mean - gain * mean).nan_to_num()
    mended = []
    for frame, weight, factor, offset in zip(frames, mask, gain, shift, strict=True):
        person, background = (frame / 255 * factor[part] + offset[part] for part in range(2))  # h w 3
        mended.append(to_uint8(torch.lerp(background, person, weight[..., None])))
    return torch.stack(mended)


def _measure(pixels: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, each 2 3, of pixels h w 3."""
    weights = torch.stack((mask, 1 - mask)).flatten(1)  # 2 (h w)
    total = weights.sum(1, keepdim=True)  # 2 1
    total = torch.where(total < LEAST_SHARE * mask.numel(), torch.nan, total)
    flat = pixels.flatten(0, 1)  # (h w) 3
    mean = weights @ flat / total
    squares = [(weights[part, :, None] * (flat - mean[part]) ** 2).sum(0) for part in range(2)]
    return mean, (torch.stack(squares) / total).sqrt()


def _line(values: Tensor) -> Tensor:
    """The least-squares line through values f …, at each frame; NaN counts as not there."""
    known = ~values.isnan()
    count = known.sum(0).clamp_min(1)
    time = torch.arange(len(values), dtype=values.dtype, device=values.device).view(-1, *[1] * (values.ndim - 1))
    centre = (time * known).sum(0) / count
    mean = values.nan_to_num().sum(0) / count
    from_centre = (time - centre) * known
    slope = (from_centre * (values.nan_to_num() - mean)).sum(0) / (from_centre**2).sum(0).clamp_min(1e-9)
    return torch.where(known.any(0), mean + slope * (time - centre), torch.nan)
