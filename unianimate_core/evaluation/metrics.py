"""Pixel metrics of a made video against the true one, frame by frame, as the paper's tables have them (section 4.1)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..optional import EVALUATE_EXTRA, require

LEVELS = 255
SSIM_WINDOW = 7
LEAST_MSE = 1 / 12
"""Grey levels²: what rounding to 8 bits alone leaves. No 8-bit picture is known to be nearer to the truth."""
BEST_PSNR = 10 * math.log10(LEVELS**2 / LEAST_MSE)
"""58.9 dB: both PSNRs end here, so that one identical frame does not make a video's mean infinite."""


def as_uint8(video: Any, name: str = "video") -> np.ndarray:
    """A video in 8 bits, as every metric here takes it and as the papers store it before they measure.

    Args:
        video: f h w 3, an array or a tensor on any device: uint8, or floats in 0-1, which are rounded.
        name: What messages call it.

    Raises:
        InputError: Another shape or type, no frame, or floats that are not in 0-1 (within 0.001).
    """
    if isinstance(video, torch.Tensor):
        video = video.detach().cpu()
        video = video.float().numpy() if video.is_floating_point() else video.numpy()
    video = np.asarray(video)
    if video.ndim != 4 or video.shape[3] != 3 or 0 in video.shape:
        raise InputError(f"{name} must be f h w 3 with at least one frame, not {video.shape}")
    if video.dtype == np.uint8:
        return video
    if not np.issubdtype(video.dtype, np.floating):
        raise InputError(f"{name} must be uint8, or floats in 0 to 1, not {video.dtype}")
    low, high = float(video.min()), float(video.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # NaN too
        raise InputError(f"{name} has values from {low:g} to {high:g}: bring floats to 0 to 1, or give uint8")
    return np.rint(video.clip(0, 1) * LEVELS).astype(np.uint8)


def check_pair(made: np.ndarray, truth: np.ndarray, names: tuple[str, str] = ("made", "truth")) -> None:
    """Refuse two videos that cannot be compared frame by frame.

    Raises:
        InputError: They differ in the number or the size of the frames.
    """
    if len(made) != len(truth):
        raise InputError(
            f"{names[0]} has {len(made)} frames, {names[1]} has {len(truth)}: give videos of the same length"
        )
    if made.shape != truth.shape:
        sizes = [f"{video.shape[2]} x {video.shape[1]}" for video in (made, truth)]
        raise InputError(f"{names[0]} has frames of {sizes[0]}, {names[1]} of {sizes[1]}: bring both to one size")


def l1(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean |made - truth| of each frame in grey levels, 0-255.

    Args:
        made: uint8 f h w 3.
        truth: The same.

    Returns:
        float64 f.
    """
    return _per_frame(made, truth, lambda a, b: np.abs(a.astype(np.int16) - b).mean())


def l1_published(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """L1 as the papers' tables print it: `l1` divided by h · w. It depends on the size.

    The paper's 2.66e-4 at 256 x 256 is 17.4 grey levels. Float64 f.
    """
    return l1(made, truth) / (made.shape[1] * made.shape[2])


def psnr(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """PSNR*, the right one: 10 log10(255² / mean((made - truth)²)) of each frame, dB, float64 f; see `BEST_PSNR`."""
    return _per_frame(made, truth, lambda a, b: _decibels(((a.astype(np.float64) - b) ** 2).mean()))


def psnr_overflowing(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """PSNR as older papers print it, with their error: difference and square overflow in uint8.

    10 log10(255² / mean((made - truth)² mod 256)): a difference of 16 grey levels counts as none. Good for nothing but
    comparing with those tables. Float64 f, dB; see `BEST_PSNR`.
    """
    return _per_frame(made, truth, lambda a, b: _decibels(((a - b) ** 2).mean(dtype=np.float64)))


def ssim(made: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Structural similarity of each frame by scikit-image: a uniform window of 7 x 7, range 255, mean of R, G, B.

    These are scikit-image's defaults, not the Gaussian window of the first paper on SSIM. Float64 f, at most 1.

    Raises:
        InputError: Frames smaller than the window, or scikit-image is missing.
    """
    metrics = require("skimage.metrics", f"scikit-image, or {EVALUATE_EXTRA}")
    if min(made.shape[1:3]) < SSIM_WINDOW:
        size = f"{made.shape[2]} x {made.shape[1]}"
        raise InputError(f"frames of {size} are too small for SSIM: give at least {SSIM_WINDOW} pixels a side")

    def similarity(a: np.ndarray, b: np.ndarray) -> float:
        return metrics.structural_similarity(a, b, win_size=SSIM_WINDOW, channel_axis=2, data_range=LEVELS)

    return _per_frame(made, truth, similarity)


def pixel_metrics(made: np.ndarray, truth: np.ndarray, with_ssim: bool = True) -> dict[str, np.ndarray]:
    """All metrics of this module.

    Args:
        made: uint8 f h w 3.
        truth: The same.
        with_ssim: Whether SSIM is among them, which needs scikit-image.

    Returns:
        For each key of `report.COLUMNS` that is measured here: float64 f.

    Raises:
        InputError: The videos do not fit together; or see `ssim`.
    """
    check_pair(made, truth)
    values = {
        "l1": l1(made, truth),
        "l1_published": l1_published(made, truth),
        "psnr": psnr_overflowing(made, truth),
        "psnr_star": psnr(made, truth),
    }
    return values | ({"ssim": ssim(made, truth)} if with_ssim else {})


def _decibels(mse: float) -> float:
    return 10 * math.log10(LEVELS**2 / max(float(mse), LEAST_MSE))


def _per_frame(made: np.ndarray, truth: np.ndarray, measure: Any) -> np.ndarray:
    return np.array([measure(a, b) for a, b in zip(made, truth, strict=True)], np.float64)
