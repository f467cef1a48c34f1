"""Peak of live tensor memory in a forward pass, counted without computing where every tensor is on the meta device."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unianimate_core import UNet, UNetConfig
from unianimate_core.ssm import MambaSizes
from unianimate_core.unet.blocks import TemporalLayer


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), size=0)  # made outside: weights, inputs
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage(), tensor.untyped_storage().nbytes())
        return out

    def _count(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def peak_bytes(run: Callable[[], object]) -> int:
    """Bytes alive at the worst moment of a run, beyond what was alive before it."""
    with torch.no_grad(), LiveBytes() as counter:
        run()
    return counter.peak


def empty_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Stands for an attention that holds no scores, as all fused ones do, while memory is counted."""
    return torch.empty_like(q)


def with_mamba(config: UNetConfig) -> UNetConfig:
    """The same network with temporal Mamba in place of every temporal transformer."""
    layers = UNet(config, device="meta").named_modules()
    widths = {name: layer.proj_in.out_channels for name, layer in layers if isinstance(layer, TemporalLayer)}
    return dataclasses.replace(config, mamba={name: MambaSizes.of_width(width) for name, width in widths.items()})


def network_inputs(
    config: UNetConfig, frames: int, height: int, width: int, dtype: torch.dtype, device: str, videos: int = 1
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random inputs of `UNet.unified` for latents of f frames, the reference frame not counted in f."""
    x = torch.randn(videos, config.in_channels, frames + 1, height, width, device=device, dtype=dtype)  # b 12 f+1 h w
    context = torch.randn(videos, 77 + config.image_tokens, config.context_width, device=device, dtype=dtype)  # b n d
    return x, torch.full((videos,), 500, device=device), context


def counted_bytes(
    config: UNetConfig,
    frames: int,
    height: int,
    width: int,
    dtype: torch.dtype,
    working_bytes: int | None,
    device: str = "meta",
    videos: int = 1,
) -> int:
    """Peak of one forward pass beside weights and inputs; arguments as of `unianimate_core.unet.memory`."""
    unet = UNet(config, attention=empty_attention, dtype=dtype, device=device)
    unet.working_bytes = working_bytes
    inputs = network_inputs(config, frames, height, width, dtype, device, videos)
    return peak_bytes(lambda: unet.unified(*inputs))
