"""LPIPS and FVD: metrics by networks whose weights the user brings; nothing is downloaded."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..checkpoint import read_tensors
from ..errors import InputError
from ..optional import require

LPIPS_WEIGHTS = "AlexNet's ImageNet weights, https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"
FVD_WEIGHTS = "i3d_torchscript.pt, from the authors of StyleGAN-V: https://github.com/universome/fvd-comparison"
LPIPS_LEAST_SIDE = 32  # pixels; AlexNet's layers shrink less to nothing
FVD_LEAST_FRAMES = 10  # I3D's layers shrink fewer to nothing

logger = logging.getLogger(__name__)


class Lpips:
    """LPIPS 0.1 (arXiv 1801.03924) by its authors' package, which brings its own linear layers.

    The backbone is told from the file: AlexNet, which the papers use, or VGG-16.

    Args:
        weights: torchvision's file of the backbone; the classifier in it is not used.
        device: Where it computes.

    Raises:
        InputError: The file is none of these, or ``lpips`` or torchvision is missing.
    """

    def __init__(self, weights: str | Path, device: str | torch.device = "cpu") -> None:
        where = f"give {LPIPS_WEIGHTS}"
        if not Path(weights).is_file():
            raise InputError(f"no LPIPS weights at {weights}: {where}")
        lpips = require("lpips", "the package lpips, and a torchvision that fits this torch")
        tensors, _ = read_tensors(weights, torch.float32)
        first = tensors.get("features.0.weight", torch.empty(0))
        net = {torch.Size((64, 3, 11, 11)): "alex", torch.Size((64, 3, 3, 3)): "vgg"}.get(first.shape)
        if net is None:
            raise InputError(f"{weights} is no AlexNet or VGG-16 of torchvision: {where}")
        with warnings.catch_warnings():  # the package asks torchvision in an outdated way
            warnings.simplefilter("ignore")
            self.model: Any = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        wanted = {key: f"features.{key.partition('.')[2]}" for key in self.model.net.state_dict()}  # slice2.3.weight
        try:
            self.model.net.load_state_dict({key: tensors[name] for key, name in wanted.items()})
        except (KeyError, RuntimeError) as error:
            raise InputError(f"{weights} is no AlexNet or VGG-16 of torchvision ({error}): {where}") from error
        self.model.to(device).eval()
        self.device = device

    @torch.no_grad()
    def __call__(self, made: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """The distance of each frame.

        Args:
            made: uint8 f h w 3; brought to -1…1 here, as the network wants it.
            truth: The same.

        Returns:
            float64 f, 0 for identical frames.

        Raises:
            InputError: The frames are too small.
        """
        check_lpips_size(made.shape[2], made.shape[1])
        pairs = zip(made, truth, strict=True)
        return np.array([self.model(self._place(a), self._place(b)).item() for a, b in pairs], np.float64)

    def _place(self, frame: np.ndarray) -> Tensor:
        pixels = rearrange(torch.from_numpy(np.ascontiguousarray(frame)), "h w c -> 1 c h w")
        return pixels.to(self.device, torch.float32) / 127.5 - 1


def check_lpips_size(width: int, height: int) -> None:
    """Raise InputError for frames that are too small for LPIPS."""
    if min(width, height) < LPIPS_LEAST_SIDE:
        raise InputError(
            f"frames of {width} x {height} are too small for LPIPS: give at least {LPIPS_LEAST_SIDE} pixels a side"
        )


class VideoFeatures:
    """I3D's features of a video, for FVD (arXiv 1812.01717).

    Args:
        weights: A TorchScript module that is called as ``module(video, rescale=True, resize=True,
            return_features=True)`` with float32 1 3 f h w in 0-255, brings it to its own range and size, and returns
            features 1 d. StyleGAN-V's ``i3d_torchscript.pt`` does, with d = 400.
        device: Where it computes.

    Raises:
        InputError: The file is missing or no TorchScript module.
    """

    def __init__(self, weights: str | Path, device: str | torch.device = "cpu") -> None:
        self.weights = weights
        if not Path(weights).is_file():
            raise InputError(f"no FVD weights at {weights}: give {FVD_WEIGHTS}")
        try:
            self.model: Any = torch.jit.load(str(weights), map_location=device).eval()
        except (RuntimeError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(f"{weights} is no TorchScript module ({reason}): give {FVD_WEIGHTS}") from error
        self.device = device

    @torch.no_grad()
    def __call__(self, video: np.ndarray) -> np.ndarray:
        """Features of a video uint8 f h w 3, at least 10 frames: float64 d.

        Raises:
            InputError: Too few frames, or the module is not as described.
        """
        if len(video) < FVD_LEAST_FRAMES:
            raise InputError(f"a video of {len(video)} frames is too short for FVD: give {FVD_LEAST_FRAMES} or more")
        pixels = rearrange(torch.from_numpy(np.ascontiguousarray(video)), "f h w c -> 1 c f h w")
        pixels = pixels.to(self.device, torch.float32)
        try:
            features = self.model(pixels, rescale=True, resize=True, return_features=True)
        except RuntimeError as error:
            if isinstance(error, torch.cuda.OutOfMemoryError):
                raise
            reason = str(error).strip().splitlines()[-1]
            raise InputError(f"{self.weights} cannot be used for FVD ({reason}): give {FVD_WEIGHTS}") from error
        if not isinstance(features, Tensor) or features.ndim != 2 or len(features) != 1:
            raise InputError(f"{self.weights} gives no features 1 d of a video: give {FVD_WEIGHTS}")
        return features[0].double().cpu().numpy()


def frechet_distance(made: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    """Squared Fréchet distance of the Gaussians through two sets of features; of `VideoFeatures`, FVD.

    |m - n|² + tr(C + D - 2 √(C D)), with means m, n and covariances C, D (divided by the number - 1), in float64.

    Args:
        made: Features d of each made video.
        truth: Of each true video.

    Raises:
        InputError: A set has fewer than 2 videos: one has no covariance.
    """
    counts = len(made), len(truth)
    if min(counts) < 2:
        raise InputError(
            f"FVD compares sets of videos: {counts[0]} made and {counts[1]} true are too few, give 2 or more"
        )
    sets = [np.stack([np.asarray(features, np.float64) for features in rows]) for rows in (made, truth)]  # n d
    width = sets[0].shape[1]
    if min(counts) <= width:
        logger.warning("FVD of %d videos: with no more videos than features (%d) it is too high", min(counts), width)
    (mean_a, cov_a), (mean_b, cov_b) = ((rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False))) for rows in sets)
    # √(C D) has the trace of the symmetric √(√C D √C), which is real and stable where scipy's sqrtm may be neither.
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ cov_b @ root).clip(0)
    distance = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(product).sum()
    return max(float(distance), 0.0)
