"""Runs a variational autoencoder: pixels to the latents that the U-Net works on, and back.

The layout (SD's or TAESD's, in their own or diffusers' names) is told from the tensors.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .checkpoint import check_finite, check_shapes, describe, read_tensors
from .errors import InputError
from .optional import require

Progress = Callable[[int, int], None]
Tensors = dict[str, torch.Tensor]

SCALE = 0.18215  # SD's latents have unit variance after this factor
DOWNSCALE = 8
LDM_PARTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
LDM_TRAINING = ("loss.", "model_ema.")
OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # diffusers before 0.15
# The first layers take, and the last ones make, pictures and latents, whatever the width.
TINY_STARTS = ("encoder.layers.0.weight", "decoder.layers.0.weight")
TINY_ENDS = ("encoder.layers.14.weight", "encoder.layers.14.bias", "decoder.layers.18.weight", "decoder.layers.18.bias")

logger = logging.getLogger(__name__)


class Autoencoder:
    """Encodes and decodes pictures one small group at a time, so memory does not grow with their number.

    Latents are scaled as the U-Net wants them, ``gain`` × the network's own + ``offset``: SD's 0.18215 × posterior
    mean. TAESD-style files give what ComfyUI's VAE loader and SD 1.5 latent format make of the same file.

    Args:
        model: A diffusers ``AutoencoderKL`` or ``AutoencoderTiny``.
        gain: Multiplies the network's latents.
        offset: Is added afterwards.
    """

    def __init__(self, model: torch.nn.Module, gain: float, offset: float = 0.0) -> None:
        self.model: Any = model.eval().requires_grad_(False)
        self.gain = gain
        self.offset = offset

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor, group: int = 1, progress: Progress | None = None) -> torch.Tensor:
        """Encode pictures; deterministic (the posterior's mean, no sample).

        Args:
            pixels: b 3 H W in [0, 1], H and W multiples of 8.
            group: Pictures per pass.
            progress: Called with (done, total) after every pass.

        Returns:
            Scaled latents, b 4 H/8 W/8, float32, on the pixels' device.

        Raises:
            InputError: Another shape.
        """
        if pixels.ndim != 4 or pixels.shape[1] != 3 or 0 in pixels.shape or not pixels.is_floating_point():
            raise InputError(f"pixels must be b 3 H W of floats, not {tuple(pixels.shape)} of {pixels.dtype}")
        count, _, height, width = pixels.shape
        if height % DOWNSCALE or width % DOWNSCALE:
            raise InputError(f"pictures of {width}×{height} cannot be encoded: both must be multiples of {DOWNSCALE}")
        latents = pixels.new_empty((count, 4, height // DOWNSCALE, width // DOWNSCALE), dtype=torch.float32)  # b 4 h w
        for start in range(0, count, group):
            encoded = self.model.encode(self._place(pixels[start : start + group]) * 2 - 1)
            own = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
            latents[start : start + group] = own.float() * self.gain + self.offset
            if progress is not None:
                progress(min(start + group, count), count)
        return latents

    def decode(self, latents: torch.Tensor, group: int = 1, progress: Progress | None = None) -> torch.Tensor:
        """Decode latents.

        Args:
            latents: b 4 h w, scaled.
            group: Pictures per pass.
            progress: Called with (done, total) after every pass.

        Returns:
            Pixels, b 3 8h 8w in [0, 1], float32, on the latents' device.

        Raises:
            InputError: Another shape.
        """
        _check_latents(latents)
        count, _, height, width = latents.shape
        pixels = latents.new_empty((count, 3, height * DOWNSCALE, width * DOWNSCALE), dtype=torch.float32)  # b 3 H W
        done = 0
        for decoded in self.decode_groups(latents, group):
            pixels[done : done + len(decoded)] = decoded
            done += len(decoded)
            if progress is not None:
                progress(done, count)
        return pixels

    @torch.no_grad()
    def decode_groups(self, latents: torch.Tensor, group: int = 1) -> Iterator[torch.Tensor]:
        """Decode latents b 4 h w group by group: yields pixels g 3 8h 8w in [0, 1], float32, on the model's device.

        So a long video can be written while it is decoded.
        """
        _check_latents(latents)
        for start in range(0, len(latents), group):
            own = (latents[start : start + group].float() - self.offset) / self.gain
            yield self.model.decode(self._place(own)).sample.float().add(1).div(2).clamp(0, 1)

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device=self.model.device, dtype=self.model.dtype)


def load_autoencoder(
    path: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> Autoencoder:
    """Load an autoencoder for SD 1.5's or 2's latent space.

    Args:
        path: SD's AutoencoderKL (LDM's layout, alone or within a full SD checkpoint; or diffusers' layout), TAESD in
            one file (``taesd_encoder.*``, ``taesd_decoder.*``, ``vae_scale``), or diffusers' AutoencoderTiny.
        dtype: Computing precision.
        device: Where it computes.

    Returns:
        The autoencoder.

    Raises:
        InputError: The file is none of these, tensors are missing or left over, or diffusers is missing.
    """
    diffusers = require("diffusers", "the extra `standalone` of this package")
    tensors, _ = read_tensors(path)
    gain, offset = SCALE, 0.0
    config: dict[str, Any] = {}
    if taesd := "taesd_decoder.1.weight" in tensors:
        if "vae_scale" not in tensors:
            logger.warning("%s has no vae_scale: taken as 1, as ComfyUI does; TAESD for SD 1.5 needs %s", path, SCALE)
        gain = SCALE / float(tensors.pop("vae_scale", 1.0))
        offset = SCALE * float(tensors.pop("vae_shift", 0.0))
        tensors = {_tiny_name(name): tensor for name, tensor in tensors.items()}
    if "decoder.layers.0.weight" in tensors:
        gain = gain if taesd else 1.0
        tensors, width = _without_silent_channels(tensors)
        kind, config = diffusers.AutoencoderTiny, tiny_config(width)
    else:
        tensors = _kl_tensors(tensors, path)
        kind, config = diffusers.AutoencoderKL, _kl_config(tensors, path)
    try:
        with torch.device("meta"):
            model = kind(**config)
    except ValueError as error:
        raise InputError(f"{path} has sizes that no known autoencoder has ({error})") from error
    check_shapes(tensors, model.state_dict(), f"{path} is not an autoencoder for SD 1.5's latents")
    check_finite(tensors, str(path))
    model.load_state_dict({name: tensor.to(device, dtype) for name, tensor in tensors.items()}, assign=True)
    return Autoencoder(model, gain, offset)


def tiny_config(width: int) -> dict[str, Any]:
    """The arguments of a diffusers ``AutoencoderTiny`` with so many channels throughout."""
    return {"encoder_block_out_channels": (width,) * 4, "decoder_block_out_channels": (width,) * 4}


def _without_silent_channels(tensors: Tensors) -> tuple[Tensors, int]:
    """A TAESD without the last channels, where no layer ever writes to them; and the width that is left.

    ComfyUI runs TAESD at its full width only: narrow ones are stored with zeros.
    """
    layout = tensors["decoder.layers.0.weight"].shape[0]
    inner = [tensor for name, tensor in tensors.items() if tensor.shape[0] == layout and name not in TINY_ENDS]
    written = [int(tensor.reshape(layout, -1).any(1).nonzero().max()) + 1 for tensor in inner if tensor.any()]
    width = max(written, default=layout)
    cut = {}
    for name, tensor in tensors.items():
        outwards = slice(None) if name in TINY_ENDS else slice(width)
        inwards = slice(None) if name in TINY_STARTS else slice(width)
        cut[name] = (tensor[outwards, inwards] if tensor.ndim > 1 else tensor[outwards]).contiguous()
    return cut, width


def _tiny_name(name: str) -> str:
    if match := re.fullmatch(r"taesd_(encoder|decoder)\.(\d+)\.(.+)", name):
        part, index, rest = match.groups()
        # TAESD's decoder counts its clamp as layer 0; diffusers' does not.
        return f"{part}.layers.{int(index) - (part == 'decoder')}.{rest}"
    return name


def taesd_name(name: str) -> str:
    """TAESD's name of a tensor of diffusers' ``AutoencoderTiny``; `_tiny_name` the other way round."""
    part, _, index, rest = name.split(".", 3)
    return f"taesd_{part}.{int(index) + (part == 'decoder')}.{rest}"


def _kl_tensors(tensors: Tensors, path: str | Path) -> Tensors:
    """An AutoencoderKL's tensors in diffusers' names, from any layout."""
    for prefix in ("first_stage_model.", "vae."):
        if f"{prefix}decoder.conv_in.weight" in tensors:
            if any(name.startswith("conditioner.") for name in tensors):
                raise InputError(f"{path} is an SDXL checkpoint, whose latents differ: give SD 1.5's or 2's VAE")
            tensors = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if not {"decoder.conv_in.weight", "encoder.conv_in.weight"} <= tensors.keys():
        kind = describe(tensors).kind
        raise InputError(f"{path} is {kind}, not an autoencoder of both ways: give SD 1.5's VAE, or TAESD in one file")
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(LDM_TRAINING)}
    if any(name.startswith("encoder.down_blocks.") for name in tensors):
        old = re.compile(r"\.(query|key|value|proj_attn)(?=\.(weight|bias)$)")
        return {old.sub(lambda m: f".{OLD_ATTENTION[m[1]]}", name): tensor for name, tensor in tensors.items()}
    levels = 1 + max((int(m[1]) for name in tensors if (m := re.match(r"encoder\.down\.(\d+)\.", name))), default=-1)
    if strange := [name for name in tensors if not name.startswith(LDM_PARTS)]:
        raise InputError(f"{path} has tensors that a VAE has not: {', '.join(strange[:3])}")
    single_file = require("diffusers.loaders.single_file_utils", "the extra `standalone` of this package")
    if not hasattr(single_file, "convert_ldm_vae_checkpoint"):
        raise InputError("this diffusers cannot read SD's VAE in LDM's layout: install diffusers 0.42")
    converted = single_file.convert_ldm_vae_checkpoint(
        dict(tensors), {"down_block_types": [""] * levels, "up_block_types": [""] * levels}
    )
    if len(converted) != len(tensors):
        raise InputError(f"{path} is not SD's VAE: of its {len(tensors)} tensors, SD's has {len(converted)}")
    return converted


def _kl_config(tensors: Tensors, path: str | Path) -> dict[str, Any]:
    widths: list[int] = []
    while (weight := tensors.get(f"encoder.down_blocks.{len(widths)}.resnets.0.conv1.weight")) is not None:
        widths.append(weight.shape[0])
    layers = 0
    while f"encoder.down_blocks.0.resnets.{layers}.conv1.weight" in tensors:
        layers += 1
    if (channels := tensors["decoder.conv_in.weight"].shape[1]) != 4:
        raise InputError(f"{path} has {channels} latent channels: UniAnimate's latents have 4, as SD 1.5's VAE")
    if 2 ** (len(widths) - 1) != DOWNSCALE:
        raise InputError(f"{path} has {len(widths)} levels, not SD's 4, which shrink pictures by {DOWNSCALE}")
    return {
        "block_out_channels": tuple(widths),
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": layers,
        "latent_channels": channels,
    }


def _check_latents(latents: torch.Tensor) -> None:
    if latents.ndim != 4 or latents.shape[1] != 4 or 0 in latents.shape or not latents.is_floating_point():
        raise InputError(f"latents must be b 4 h w of floats, not {tuple(latents.shape)} of {latents.dtype}")
