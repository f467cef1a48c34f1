"""What the options --checkpoint, --vae, --clip, --dtype and --device name: checked at once, loaded later."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
import typer

from .assets import SMALL_GUIDANCE, SMALL_SIZE, SMALL_UNET, SMALL_VAE
from .console import GUIDANCE, PUBLIC_SIZE, DType, choose_device, peek_checkpoint
from .errors import InputError

if TYPE_CHECKING:
    from .animate import Settings
    from .autoencoder import Autoencoder
    from .clip import ClipEncoder
    from .unet import UNet, UNetConfig

# Options of all commands that sample.
CheckpointOption = Annotated[Path | None, typer.Option(help="UniAnimate weights; the small model if left out.")]
VaeOption = Annotated[Path | None, typer.Option(help="SD 1.5's VAE, or a TAESD file.")]
ClipOption = Annotated[Path | None, typer.Option(help="OpenCLIP ViT-H/14's weights.")]
StepsOption = Annotated[int, typer.Option(help="DDIM steps, 25 to 50 are usual.")]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        help="Weight of the conditions; 1 switches guidance off.",
        show_default=f"{GUIDANCE}, {SMALL_GUIDANCE} for the small model",
    ),
]
NoisePriorOption = Annotated[int, typer.Option(help="Timestep of the noise prior, 0 to 999; 0 for pure noise.")]
DTypeOption = Annotated[DType | None, typer.Option(help="Precision.", show_default="fp16 on a GPU, fp32 on the CPU")]
DeviceOption = Annotated[
    str | None, typer.Option(help="cuda, cuda:1, cpu, mps, ….", show_default="cuda if there is one, else cpu")
]


@dataclass(frozen=True)
class ModelOptions:
    """The models of a command; see `choose_models`.

    Attributes:
        checkpoint: UniAnimate weights.
        vae: The autoencoder.
        clip: OpenCLIP ViT-H/14, or None.
        small: Whether it is the small model of the package.
        dtype: Of all.
        device: Of all.
        config: The checkpoint's.
        parameters: How many it has.
    """

    checkpoint: Path
    vae: Path
    clip: Path | None
    small: bool
    dtype: DType
    device: torch.device
    config: UNetConfig
    parameters: int

    @property
    def size(self) -> str:
        """Width x height that suits the model."""
        return SMALL_SIZE if self.small else PUBLIC_SIZE

    @property
    def guidance(self) -> float:
        """That suits the model."""
        return SMALL_GUIDANCE if self.small else GUIDANCE

    def check_memory(self, settings: Settings) -> None:
        """Raise InputError where the network and its work do not fit into memory, with all frames sampled together."""
        from .unet.config import PIXELS_PER_LATENT
        from .unet.memory import activation_bytes, require_memory

        height, width = settings.height // PIXELS_PER_LATENT, settings.width // PIXELS_PER_LATENT
        dtype = self.dtype.torch
        frames = min(settings.frames, settings.window or settings.frames)
        needed = activation_bytes(self.config, frames, height, width, dtype)
        if "unet" not in vars(self):  # not loaded yet
            needed += self.parameters * dtype.itemsize
        what = f"the network with {frames} frames of {settings.width} x {settings.height}"
        require_memory(needed, self.device, what, "Lower --size, --frames, or the --segment or --window it is made in")
        # The pose pictures of all frames wait in the host's memory.
        pictures = settings.frames * 3 * settings.height * settings.width * torch.float32.itemsize
        what = f"{settings.frames} pose pictures of {settings.width} x {settings.height}"
        require_memory(pictures, torch.device("cpu"), what, "Make the video in segments")

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder, loaded when it is first asked for."""
        from .autoencoder import load_autoencoder

        return load_autoencoder(self.vae, self.dtype.torch, self.device)

    def load_clip(self) -> tuple[ClipEncoder | None, torch.Tensor | None]:
        """CLIP where it was given, and the empty prompt's tokens 77 x 1024 where the checkpoint lacks them."""
        from .clip import load_clip

        if self.clip is None:
            return None, None
        missing = not self.config.prompt_tokens
        encoder = load_clip(self.clip, dtype=self.dtype.torch, device=self.device, text=missing)
        return encoder, encoder.empty_prompt() if missing else None

    @cached_property
    def unet(self) -> UNet:
        """The network, loaded when it is first asked for."""
        from .unet import load_unet

        return load_unet(self.checkpoint, self.dtype.torch, self.device)


def choose_models(
    checkpoint: Path | None, vae: Path | None, clip: Path | None, dtype: DType | None, device: str | None
) -> ModelOptions:
    """Take the models that were asked for, or the small one of the package; the weights stay in their files.

    Args:
        checkpoint: As the option.
        vae: The same.
        clip: The same.
        dtype: The same; fp16 on a GPU and fp32 on the CPU where it is None.
        device: The same.

    Raises:
        InputError: One is missing or not what it should be.
    """
    if (checkpoint is None) != (vae is None):
        raise InputError("--checkpoint and --vae belong together: give both, or neither for the small model")
    config, parameters = peek_checkpoint(checkpoint or SMALL_UNET)
    if clip is None and not config.prompt_tokens:
        raise InputError(
            f"{checkpoint} does not bring the empty prompt's tokens: give --clip (OpenCLIP ViT-H/14), or store them "
            "once with `unianimate convert --clip`"
        )
    where = choose_device(device)
    dtype = dtype or (DType.fp32 if where.type == "cpu" else DType.fp16)
    files = checkpoint or SMALL_UNET, vae or SMALL_VAE, clip
    return ModelOptions(*files, checkpoint is None, dtype, where, config, parameters)
