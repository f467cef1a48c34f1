"""From a checkpoint to a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from ..checkpoint import EMPTY_PROMPT, check_finite, read_tensors, unet_tensors
from ..errors import InputError
from .config import UNetConfig
from .network import UNet

Network = TypeVar("Network", bound=UNet)


def load_unet(
    source: str | Path | Mapping[str, Tensor],
    dtype: torch.dtype | None = torch.float32,
    device: torch.device | str = "cpu",
) -> UNet:
    """Load a UniAnimate network; every size is read from the tensors.

    Args:
        source: A ``.safetensors``, ``.pth`` or ``.ckpt`` file in the public checkpoint's layout, or its tensors.
        dtype: Precision of the weights; None keeps the file's.
        device: Where the network goes.

    Returns:
        The network in evaluation mode, without gradients.

    Raises:
        InputError: The file cannot be read, is another kind of model, is incomplete, or holds NaN or infinity.
    """
    if isinstance(source, Mapping):
        name = "the checkpoint"
        tensors = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in source.items()}
    else:
        name = str(source)
        tensors, _ = read_tensors(source, dtype, device)
    tensors = unet_tensors(tensors, name)
    check_finite(tensors, name)
    config = UNetConfig.from_tensors(tensors)
    stored = dtype or tensors["out.2.weight"].dtype
    unet = UNet(config, dtype=stored, device="meta")
    return assign_tensors(unet, tensors, name).requires_grad_(False)


def assign_tensors(unet: Network, tensors: dict[str, Tensor], name: str = "the checkpoint") -> Network:
    """Put a checkpoint's tensors in the place of a network's parameters, without a copy.

    Args:
        unet: Made on the ``meta`` device.
        tensors: By plain name; emptied of the empty prompt's tokens, which go beside the parameters.
        name: How messages call the checkpoint.

    Raises:
        InputError: Tensors are missing, left over, or of another shape; the message names them.
    """
    check_keys(unet, tensors, name)
    weights = {key: tensor for key, tensor in tensors.items() if key != EMPTY_PROMPT}
    unet.load_state_dict(weights, assign=True)
    unet.empty_prompt = tensors.get(EMPTY_PROMPT)
    return unet.eval()


def check_keys(unet: UNet, tensors: Mapping[str, Tensor], name: str = "the checkpoint") -> None:
    """Raise InputError where a tensor is missing, left over, or of another shape than the network's."""
    expected = {key: tuple(parameter.shape) for key, parameter in unet.state_dict().items()}
    missing = [key for key in expected if key not in tensors]
    surplus = [key for key in tensors if key not in expected and key != EMPTY_PROMPT]
    reshaped = [
        f"{key} {tuple(tensors[key].shape)} instead of {shape}"
        for key, shape in expected.items()
        if key in tensors and tuple(tensors[key].shape) != shape
    ]
    faults = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("unknown", surplus), ("of another shape", reshaped))
        if keys
    ]
    if faults:
        raise InputError(f"{name} does not fit the network: tensors {'; '.join(faults)}. Download or convert it again")
