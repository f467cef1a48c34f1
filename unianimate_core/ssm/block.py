"""The bidirectional Mamba block: two selective scans that share the projections around them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import InputError
from .scan import Branch, selective_scan

STEP_RANGE = (1e-3, 1e-1)  # of Δ at the start (arXiv 2312.00752, section 3.6)


@dataclass(frozen=True)
class MambaSizes:
    """Sizes of one block.

    Attributes:
        inner: Channels between the projections.
        state: States of a channel.
        conv: Frames that the convolution sees.
        rank: Width from which the step sizes are projected.
    """

    inner: int
    state: int = 16
    conv: int = 4
    rank: int = 1

    @classmethod
    def of_width(cls, width: int) -> MambaSizes:
        """The usual sizes of a block of so many channels."""
        return cls(inner=2 * width, rank=math.ceil(width / 16))

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], name: str) -> MambaSizes:
        """Read from the tensors of the block called ``name``, of which ``A_log`` must be there.

        Raises:
            InputError: One that tells a size has not as many axes as a block's.
        """
        inner, state = _shape(tensors, f"{name}.A_log", "channels x states")
        # What is missing is named later, when all tensors are compared with the network's.
        *_, conv = _shape(tensors, f"{name}.conv1d.weight", "channels x 1 x frames") or (cls.conv,)
        *_, rank = _shape(tensors, f"{name}.dt_proj.weight", "channels x rank") or (cls.rank,)
        return cls(inner, state, conv, rank)


def _shape(tensors: Mapping[str, Tensor], name: str, axes: str) -> tuple[int, ...]:
    """A tensor's shape; empty where it is missing."""
    if name not in tensors:
        return ()
    shape = tuple(tensors[name].shape)
    if len(shape) != len(axes.split(" x ")):
        raise InputError(
            f"{name} has shape {shape}, expected {axes}: it is another kind of Mamba, or damaged. "
            "Choose a checkpoint with Mamba's first form"
        )
    return shape


class BidirectionalMamba(nn.Module):
    """Scans sequences of frames in both directions (arXiv 2401.09417, algorithm 1; its second form).

    Args:
        width: Channels in and out.
        sizes: Of what is between.
        operations: A namespace of layer classes, ``torch.nn`` or a host's that casts and streams weights.
        factory: ``dtype`` and ``device`` of the parameters.
    """

    def __init__(self, width: int, sizes: MambaSizes, operations: Any, **factory: Any) -> None:
        super().__init__()
        self.sizes = sizes
        inner, state, rank = sizes.inner, sizes.state, sizes.rank
        self.in_proj = operations.Linear(width, 2 * inner, bias=False, **factory)
        self.out_proj = operations.Linear(inner, width, bias=False, **factory)
        decay = torch.arange(1, state + 1, dtype=torch.float32).log().repeat(inner, 1)  # c s
        dtype = factory.get("dtype") or torch.get_default_dtype()
        bare = factory | {"dtype": torch.float16 if dtype.itemsize == 1 else dtype}  # float8 would change the decays
        for suffix, backwards in (("", False), ("_b", True)):
            conv = operations.Conv1d(inner, inner, sizes.conv, groups=inner, **factory)
            conv._conv_forward = partial(_conv_frames, backwards)  # called with weights that a host has cast
            step = operations.Linear(rank, inner, **factory)
            # A host may make layers whose weights come later; float8's are never but a file's.
            if step.weight is not None and step.weight.dtype.itemsize > 1:
                _initialise_step(step)
            self.add_module(f"conv1d{suffix}", conv)
            self.add_module(f"x_proj{suffix}", operations.Linear(inner, rank + 2 * state, bias=False, **factory))
            self.add_module(f"dt_proj{suffix}", step)
            self.register_parameter(f"A{suffix}_log", nn.Parameter(decay.to(**bare, copy=True)))
            self.register_parameter(f"D{suffix}", nn.Parameter(torch.ones(inner, **bare)))

    def forward(self, x: Tensor) -> Tensor:
        """X n f c → n f c."""
        x, z = self.in_proj(x).chunk(2, dim=-1)  # n f inner
        forward = self._branch(x, self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        backward = self._branch(x, self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
        return self.out_proj(selective_scan(forward, backward, z))

    def _branch(
        self, x: Tensor, conv: nn.Module, x_proj: nn.Module, dt_proj: nn.Module, A_log: Tensor, D: Tensor
    ) -> Branch:
        u = F.silu(conv(x).contiguous())  # the convolution's frames are last; projection and scan would each copy them
        dt, B, C = x_proj(u).split((self.sizes.rank, self.sizes.state, self.sizes.state), dim=-1)
        # A host that streams weights leaves these two where they are.
        A_log = A_log.to(x.device, torch.float64 if A_log.dtype == torch.float64 else torch.float32)
        return Branch(u, dt_proj(dt), -A_log.exp(), B, C, D.to(x.device, A_log.dtype))


def _conv_frames(backwards: bool, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Conv1d over n f c, each channel on its own: a frame sees itself and those before, or those after."""
    others = weight.shape[-1] - 1
    if backwards:
        weight = weight.flip(-1)
    y = F.conv1d(x.mT, weight, bias, padding=others, groups=x.shape[-1])  # n c f+others
    return y.mT[:, others * backwards :][:, : x.shape[1]]


@torch.no_grad()
def _initialise_step(layer: nn.Linear) -> None:
    """Step sizes between 1e-3 and 1e-1 for an input of zero, evenly spread on a logarithmic scale."""
    nn.init.uniform_(layer.weight, -(layer.in_features**-0.5), layer.in_features**-0.5)
    step = torch.rand_like(layer.bias, dtype=torch.float32).mul_(math.log(STEP_RANGE[1] / STEP_RANGE[0])).exp_()
    step *= STEP_RANGE[0]
    layer.bias.copy_(step + torch.log(-torch.expm1(-step)))  # softplus's inverse
