"""From a checkpoint to a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import check_finite, check_shapes, read_tensors, unet_tensors
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
    check_shapes(tensors, UNet(config, device="meta").state_dict(), f"{name} does not fit the network")
    return config
