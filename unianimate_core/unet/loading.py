"""From a checkpoint to a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import check_finite, read_tensors, unet_tensors
from ..errors import InputError
from .config import UNetConfig
from .network import UNet


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
    config = check_keys(tensors, name)
    unet = UNet(config, dtype=dtype or tensors["out.2.weight"].dtype, device="meta")
    unet.load_state_dict(tensors, assign=True)  # no copy: the network's parameters are the file's tensors
    return unet.eval().requires_grad_(False)


def check_keys(tensors: Mapping[str, Tensor], name: str = "the checkpoint") -> UNetConfig:
    """The sizes that the tensors tell, once every tensor has found its place in a network of them.

    Raises:
        InputError: A tensor is missing, left over, or of another shape than the network's.
    """
    config = UNetConfig.from_tensors(tensors)
    expected = {key: tuple(parameter.shape) for key, parameter in UNet(config, device="meta").state_dict().items()}
    missing = [key for key in expected if key not in tensors]
    surplus = [key for key in tensors if key not in expected]
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
    return config
