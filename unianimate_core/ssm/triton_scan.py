"""The selective scan by our Triton kernels; importing this needs the package triton."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from .branch import Branch
from .triton_kernels import backward_kernel, forward_kernel

BLOCK, WARPS, STAGES = 64, 1, 2  # channels of a program, its warps, frames read ahead
BACKWARD_BLOCK, BACKWARD_WARPS = 32, 1
PROGRAMS = 8  # on each multiprocessor, in the backward pass


def scan(branches: Sequence[Branch], z: Tensor | None) -> Tensor:
    """See `selective_scan`; without autograd."""
    u, states = branches[0].u, branches[0].A.shape[1]
    rows, frames, channels = u.shape
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    tensors, b_strides = _prepare(branches, state_first=True)
    if z is not None and z.stride(-1) != 1:
        z = z.contiguous()
    block = min(BLOCK, triton.next_power_of_2(channels))
    with _on(u):
        forward_kernel[(rows * triton.cdiv(channels, block),)](
            y,
            y if z is None else z,
            *tensors,
            *((0, 0) if z is None else z.stride()[:2]),
            *b_strides,
            frames,
            channels,
            states,
            BLOCK=block,
            STATES=triton.next_power_of_2(states),
            BOTH=len(branches) > 1,
            GATED=z is not None,
            STAGES=STAGES,
            num_warps=WARPS,
            enable_fp_fusion=True,
        )
    return y


def scan_backward(dy: Tensor, branches: Sequence[Branch]) -> list[Branch]:
    """The gradients of the branches' tensors for one of the ungated output, n f c."""
    u, states = branches[0].u, branches[0].A.shape[1]
    rows, frames, channels = u.shape
    directions = len(branches)
    tensors, b_strides = _prepare(branches, state_first=False)
    block = min(BACKWARD_BLOCK, triton.next_power_of_2(channels))
    blocks, padded = triton.cdiv(channels, block), triton.next_power_of_2(states)
    groups = max(1, min(rows, PROGRAMS * _multiprocessors(u) // (blocks * directions)))

    def sums(*shape: int) -> Tensor:
        return torch.empty(directions, groups, *shape, dtype=torch.float32, device=u.device)

    # B and C are shared by the channels: their gradients are sums over programs.
    wide = [torch.empty_like(u, memory_format=torch.contiguous_format) for _ in range(2 * directions)]
    narrow = [torch.zeros(rows, frames, states, dtype=torch.float32, device=u.device) for _ in range(2 * directions)]
    outputs = [[*wide[i : i + 2], *narrow[i : i + 2]] for i in range(0, 2 * directions, 2)]
    dA, dD = sums(channels, states), sums(channels)
    saved = sums(blocks, triton.cdiv(frames, 4), block, padded)
    with _on(u):
        backward_kernel[(blocks, groups, directions)](
            dy.contiguous(),
            *tensors,
            *outputs[0],
            *outputs[-1],
            dA,
            dD,
            saved,
            *b_strides,
            rows,
            frames,
            channels,
            states,
            BLOCK=block,
            STATES=padded,
            num_warps=BACKWARD_WARPS,
            enable_fp_fusion=True,
        )
    return [Branch(du, ddelta, dA[i].sum(0), dB, dC, dD[i].sum(0)) for i, (du, ddelta, dB, dC) in enumerate(outputs)]


def _prepare(branches: Sequence[Branch], state_first: bool) -> tuple[list[Tensor], tuple[int, int]]:
    """The kernels' twelve tensors, and the strides that all of B and C have.

    A is taken to powers of two, float32, s c or c s. Of one direction, its tensors stand for the other's, too.
    """
    narrow = [tensor for branch in branches for tensor in (branch.B, branch.C)]
    strides = {tensor.stride() for tensor in narrow}
    if len(strides) > 1 or narrow[0].stride(-1) != 1:
        branches = [branch._replace(B=branch.B.contiguous(), C=branch.C.contiguous()) for branch in branches]
    tensors: list[Tensor] = []
    for branch in branches:
        decay = branch.A.float() / math.log(2)
        decay = (decay.mT if state_first else decay).contiguous()
        u, delta, D = branch.u.contiguous(), branch.delta.contiguous(), branch.D.contiguous()
        tensors += [u, delta, decay, branch.B, branch.C, D]
    row, frame, _ = branches[0].B.stride()
    return tensors if len(branches) > 1 else tensors * 2, (row, frame)


def _on(u: Tensor):
    """Triton launches on the current device."""
    return torch.cuda.device(u.device if u.is_cuda else -1)


def _multiprocessors(u: Tensor) -> int:
    return torch.cuda.get_device_properties(u.device).multi_processor_count if u.is_cuda else 2
