"""From a checkpoint to a network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from ..checkpoint import check_finite, check_shapes, read_tensors, unet_tensors, unwrap
from ..errors import InputError
from ..ssm import MambaSizes, describe_scan
from .blocks import ResidualBlock, SpatialTransformer, TemporalConvs, TemporalLayer
from .config import UNetConfig
from .network import UNet


def load_unet(
    source: str | Path | Mapping[str, Tensor],
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> UNet:
    """Load a UniAnimate network; every size is read from the tensors.

    Args:
        source: A ``.safetensors``, ``.pth`` or ``.ckpt`` file in the public checkpoint's layout, or its tensors, with
            or without a ``state_dict`` level.
        dtype: Precision of the weights; None keeps the file's.
        device: Where the network goes.

    Returns:
        The network in evaluation mode, without gradients.

    Raises:
        InputError: The file cannot be read, is another kind of model, is incomplete, or holds NaN or infinity.
    """
    name = "the checkpoint" if isinstance(source, Mapping) else str(source)
    tensors = unwrap(source, name) if isinstance(source, Mapping) else read_tensors(source)[0]
    plain = unet_tensors(tensors, name)
    config = check_keys(plain, name)
    dtype = dtype or plain["out.2.weight"].dtype  # a file of mixed precisions becomes one of its output layer's
    if isinstance(source, Mapping):
        tensors = {key: tensor.to(device, dtype) for key, tensor in plain.items()}
    else:
        tensors = unet_tensors(read_tensors(source, dtype, device)[0], name)
    del plain
    check_finite(tensors, name)
    unet = UNet(config, dtype=dtype, device="meta")
    unet.load_state_dict(tensors, assign=True)  # no copy: the network's parameters are the file's tensors
    return unet.eval().requires_grad_(False)


def check_keys(tensors: Mapping[str, Tensor], name: str = "the checkpoint") -> UNetConfig:
    """The sizes that the tensors tell, once every tensor has found its place in a network of them.

    Raises:
        InputError: A tensor is missing, left over, or of another shape than the network's.
    """
    if strange := next((key for key, tensor in tensors.items() if not tensor.is_floating_point()), None):
        raise InputError(f"{name}: {strange} holds {tensors[strange].dtype} values, not floats: they are no weights")
    config = UNetConfig.from_tensors(tensors)
    check_shapes(tensors, UNet(config, device="meta").state_dict(), f"{name} does not fit the network")
    return config


def with_temporal(config: UNetConfig, base: UNetConfig, kind: Literal["transformer", "mamba"] | None) -> UNetConfig:
    """Decide which temporal layers of a network are Mamba.

    Args:
        config: The network's sizes.
        base: Those of the checkpoint that it begins from: Mamba layers as wide as there have the same sizes inside,
            others the usual ones.
        kind: Of all layers; None for the kinds that the base has.

    Returns:
        The sizes, with `UNetConfig.mamba` set.
    """
    before, mamba = temporal_widths(base), {}
    for name, width in temporal_widths(config).items():
        if kind == "mamba" or (kind is None and name in base.mamba):
            same = name in base.mamba and before[name] == width
            mamba[name] = base.mamba[name] if same else MambaSizes.of_width(width)
    return replace(config, mamba=mamba)


def temporal_widths(config: UNetConfig) -> dict[str, int]:
    """Widths of the temporal layers by their names."""
    modules = UNet(config, device="meta").named_modules()
    return {name: layer.proj_in.out_channels for name, layer in modules if isinstance(layer, TemporalLayer)}


def describe_temporal(config: UNetConfig) -> str:
    """Say of which kind the temporal layers are; of Mamba its sizes, and what scans here."""
    if not config.mamba:
        return "transformers"
    names, total = list(config.mamba), len(temporal_widths(config))
    sizes = dict.fromkeys(
        f"state {sizes.state}, convolution over {sizes.conv} frames" for sizes in config.mamba.values()
    )
    share = "all" if len(names) == total else f"{len(names)} of {total} ({', '.join(names)})"
    scan = describe_scan("cuda" if torch.cuda.is_available() else "cpu")
    return f"Mamba in {share}; {' or '.join(sizes)}; selective scan: {scan}"


def new_unet(config: UNetConfig, seed: int = 0, tensors: Mapping[str, Tensor] | None = None) -> tuple[UNet, list[str]]:
    """A network to train.

    Its residual branches begin at zero, so that every block begins as the identity. Of a transformer or Mamba layer
    that takes only some of its tensors from others, the output projection begins at zero, too: what is untrained adds
    nothing. Where the network is to bring the empty prompt's tokens, they are random constants: a network trained from
    nothing needs no CLIP for its text.

    Args:
        config: The sizes.
        seed: Of the weights.
        tensors: Weights to begin from: those that match in name and shape are taken, others are left out.

    Returns:
        The network in float32, and the names of its tensors that are new.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = UNet(config, dtype=torch.float32)
        if unet.empty_prompt is not None:
            unet.empty_prompt.normal_()
    for module in unet.modules():
        match module:
            case ResidualBlock():
                _zero(module.out_layers[-1])
            case TemporalConvs():
                _zero(module.conv4[-1])
            case SpatialTransformer() | TemporalLayer():
                _zero(module.proj_out)
    _zero(unet.out[-1])
    state = unet.state_dict()
    given = {
        name: tensor for name, tensor in (tensors or {}).items() if name in state and tensor.shape == state[name].shape
    }
    for name, module in unet.named_modules():
        if isinstance(module, (SpatialTransformer, TemporalLayer)):
            own = [f"{name}.{key}" for key in module.state_dict()]
            if any(key not in given for key in own):
                given = {key: tensor for key, tensor in given.items() if not key.startswith(f"{name}.proj_out.")}
    unet.load_state_dict(given, strict=False)
    return unet, [name for name in state if name not in given]


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
