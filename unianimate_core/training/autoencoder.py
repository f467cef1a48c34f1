"""Trains a small autoencoder of TAESD's layout, which ComfyUI's stock VAE loader takes."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..autoencoder import SCALE, load_autoencoder, taesd_name, tiny_config
from ..errors import InputError
from ..optional import require
from ..video.reading import read_video

LAYOUT_WIDTH = 64  # ComfyUI's TAESD has this many channels, whatever the file says
LATENT_NOISE = 0.05
LATENT_SPREAD = 4.0  # colours of 0-1 have a deviation of about a quarter
POOL = 64
FRAMES_PER_VIDEO = 8

logger = logging.getLogger(__name__)

Report = Callable[[int, float, float], None]


@dataclass(frozen=True)
class AutoencoderSettings:
    """How an autoencoder is trained.

    Attributes:
        steps: Optimiser steps.
        batch: Crops per step.
        crop: Side of the crops, pixels, a multiple of 8.
        width: Channels, 1-64. The file is 64 wide all the same: the rest is zeros.
        learning_rate: Highest, of AdamW; warm-up over 100 steps, then a half cosine to a hundredth.
        seed: Of weights and crops.
        decoder_only: Leave the encoder as it is, so that latents made with it stay good.
    """

    steps: int = 10_000
    batch: int = 16
    crop: int = 64
    width: int = 32
    learning_rate: float = 1e-3
    seed: int = 0
    decoder_only: bool = False

    def check(self) -> None:
        """Raise InputError for a value out of range."""
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}: give 1 or more")
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}: give 1 or more")
        if self.crop < 8 or self.crop % 8:
            raise InputError(f"crop is {self.crop}: give a multiple of 8")
        if not 1 <= self.width <= LAYOUT_WIDTH:
            raise InputError(f"width is {self.width}: give 1 to {LAYOUT_WIDTH}")


def train_autoencoder(
    videos: list[Path],
    settings: AutoencoderSettings,
    start: Path | None = None,
    report: Report | None = None,
    device: torch.device | str = "cpu",
) -> Iterator[dict[str, Tensor]]:
    """Train on crops of videos' frames, for the least squared error.

    The latents are held near mean 0 and variance 1, as SD's scaled ones are, and get a little noise while training.

    Args:
        videos: Any that `read_video` reads, of at least the crop's size.
        settings: See there.
        start: An autoencoder of this layout to go on from; None begins anew.
        report: Called after each step with (step, mean squared error of pixels 0-1, learning rate).
        device: Where it trains.

    Yields:
        The tensors in TAESD's layout, float32, about every 500 steps and at the end.

    Raises:
        InputError: A setting is out of range, there is no video, or the loss is not finite.
    """
    settings.check()
    if not videos:
        raise InputError("there are no videos to train an autoencoder on")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = _tiny(settings.width)
        _begin_with_block_means(model)
    if start is not None:
        _widen(model, _tensors_to_start_from(start))
    model = model.to(device, memory_format=torch.channels_last).train()
    model.encoder.requires_grad_(not settings.decoder_only)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=1e-4, betas=(0.9, 0.98))
    random = np.random.default_rng(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    pool = _Pool(videos, settings, random)
    for step in range(1, settings.steps + 1):
        rate = settings.learning_rate * _decay(step, settings.steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        pixels = pool.batch().to(device)  # b 3 s s
        latents = model.encode(pixels).latents  # b 4 s/8 s/8
        noise = LATENT_NOISE * torch.randn(latents.shape, generator=generator).to(device)
        error = F.mse_loss(model.decode(latents + noise).sample, pixels) / 4  # of pixels 0-1
        loss = error + 1e-3 * _away_from_unit(latents)
        if not math.isfinite(loss.item()):
            raise InputError(f"the autoencoder's loss is {loss.item()} at step {step}: lower the learning rate")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        if report is not None:
            report(step, error.item(), rate)
        if step % 500 == 0 or step == settings.steps:
            yield taesd_layout(model)


def taesd_layout(model: torch.nn.Module) -> dict[str, Tensor]:
    """A narrow AutoencoderTiny's tensors in TAESD's names and width: the channels that it has not are zeros."""
    own = model.state_dict()
    tensors: dict[str, Tensor] = {}
    for name, wide in _tiny(LAYOUT_WIDTH, "meta").state_dict().items():
        padded = torch.zeros(wide.shape)
        padded[tuple(slice(size) for size in own[name].shape)] = own[name].float().cpu()
        tensors[taesd_name(name)] = padded
    # Its latents are the U-Net's own: this undoes the scale that Stable Diffusion's latent format puts on them.
    return tensors | {"vae_scale": torch.tensor(SCALE), "vae_shift": torch.tensor(0.0)}


def _tiny(width: int, device: str = "cpu") -> torch.nn.Module:
    with torch.device(device):
        return require("diffusers", "the extra `train` of this package").AutoencoderTiny(**tiny_config(width))


@torch.no_grad()
def _begin_with_block_means(model: torch.nn.Module) -> None:
    """Start as an autoencoder that keeps the mean colour of every 8 x 8 pixels, with silent residual blocks."""
    for name, parameter in model.named_parameters():
        if ".conv.4." in name:
            parameter.zero_()
    colours = torch.arange(3)

    def carry(layer: torch.nn.Conv2d, gain: float, bias: float = 0.0, taps: slice = slice(1, 2)) -> None:
        layer.weight[:3], layer.weight[colours, colours, taps, taps] = 0, gain
        if layer.bias is not None:
            layer.bias[:3] = bias

    encoder, decoder = model.encoder.layers, model.decoder.layers
    carry(encoder[0], 1)
    for down in (2, 6, 10):
        carry(encoder[down], 0.25, taps=slice(1, 3))
    carry(encoder[14], LATENT_SPREAD, -LATENT_SPREAD / 2)
    # The decoder begins by 3 tanh(x / 3), about x here.
    carry(decoder[0], 1 / LATENT_SPREAD, 0.5)
    for same in (6, 11, 16):
        carry(decoder[same], 1)
    carry(decoder[18], 1)


def _tensors_to_start_from(path: Path) -> dict[str, Tensor]:
    autoencoder = load_autoencoder(path)
    if not isinstance(autoencoder.model, type(_tiny(1, "meta"))):
        raise InputError(f"{path} is no autoencoder of TAESD's layout: give one that this command wrote")
    if not (math.isclose(autoencoder.gain, 1, rel_tol=1e-3) and abs(autoencoder.offset) < 1e-3):
        raise InputError(
            f"the latents of {path} are scaled by {autoencoder.gain:g} and moved by {autoencoder.offset:g}, those of "
            "this training are not: give one that this command wrote"
        )
    return autoencoder.model.state_dict()


@torch.no_grad()
def _widen(model: torch.nn.Module, narrow: dict[str, Tensor]) -> None:
    """Give a model the weights of one as wide or narrower, and the same function (arXiv 1511.05641).

    Old channels do not read the new ones, whose own weights stay random.
    """
    for name, tensor in model.state_dict().items():
        old = narrow[name]
        if any(size < kept for size, kept in zip(tensor.shape, old.shape, strict=True)):
            raise InputError(f"{name} is {tuple(old.shape)} in the autoencoder to start from: raise the width")
        tensor[: old.shape[0]] = 0
        tensor[tuple(slice(size) for size in old.shape)] = old


class _Pool:
    """Frames of a few videos, of which one is replaced before every batch: decoding costs more than cropping."""

    def __init__(self, videos: list[Path], settings: AutoencoderSettings, random: np.random.Generator) -> None:
        self.videos, self.settings, self.random = list(videos), settings, random
        self.frames: list[np.ndarray] = []  # of each video n H W 3
        for _ in range(min(POOL, len(videos))):
            self._read()

    def batch(self) -> Tensor:
        """Crops b 3 s s in -1 … 1."""
        self.frames.pop(0)
        self._read()
        random, side, crops = self.random, self.settings.crop, []
        for chosen in random.integers(len(self.frames), size=self.settings.batch):
            frames = self.frames[chosen]
            count, height, width = frames.shape[:3]
            frame, top, left = (random.integers(n) for n in (count, height - side + 1, width - side + 1))
            crops.append(frames[frame, top : top + side, left : left + side])
        pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
        return pixels.contiguous(memory_format=torch.channels_last).float() / 127.5 - 1

    def _read(self) -> None:
        """Add a video; one that cannot be used is named and not tried again."""
        while self.videos:
            index = self.random.integers(len(self.videos))
            try:
                self.frames.append(self._frames(self.videos[index]))
                return
            except InputError as error:
                logger.warning("skipped: %s", error)
                del self.videos[index]
        raise InputError("none of the videos can be used: see the reasons above")

    def _frames(self, path: Path) -> np.ndarray:
        frames, _ = read_video(path)  # f h w 3
        height, width = frames.shape[1:3]
        if min(height, width) < self.settings.crop:
            raise InputError(f"{path} is {width} x {height}: smaller than the crop of {self.settings.crop}")
        return frames[self.random.permutation(len(frames))[:FRAMES_PER_VIDEO]]


def _away_from_unit(latents: Tensor) -> Tensor:
    """How far mean and deviation of the channels are from 0 and 1."""
    deviation, mean = torch.std_mean(latents, dim=(0, 2, 3))
    return (mean**2 + (deviation - 1) ** 2).sum()


def _decay(step: int, steps: int) -> float:
    return min(step / 100, 1) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
