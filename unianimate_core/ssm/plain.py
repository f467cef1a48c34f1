"""The selective scan in plain PyTorch, for any device.

The frames are a loop; all else is vectorised over sequences, channels and states. The sequences go in groups, so that
only a group's states are held: one state a channel in the forward pass, one a frame in the backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from .branch import Branch

GROUP_BYTES = {"cpu": (2 << 20, 16 << 20)}  # of states, forward and backward: near what a core's cache holds
OTHER_GROUP_BYTES = (64 << 20, 512 << 20)


def scan(branches: Sequence[Branch], z: Tensor | None) -> Tensor:
    """See `selective_scan`; without autograd."""
    u = branches[0].u
    dtype = _working_dtype(u)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    for rows in _groups(u, branches[0].A):
        out = torch.zeros(u[rows].shape, dtype=dtype, device=u.device)
        for branch, backwards in zip(branches, (False, True), strict=False):
            _scan_group(_group(branch, rows, dtype), backwards, out)
        if z is not None:
            out *= F.silu(z[rows].to(dtype))
        y[rows] = out
    return y


def scan_backward(dy: Tensor, branches: Sequence[Branch]) -> list[Branch]:
    """The gradients of the branches' tensors for one of the ungated output, n f c, in the working precision."""
    gradients = []
    for branch, backwards in zip(branches, (False, True), strict=False):
        dtype = _working_dtype(branch.u)
        gradient = Branch(*(torch.zeros(t.shape, dtype=dtype, device=t.device) for t in branch))
        for rows in _groups(branch.u, branch.A, backward=True):
            own = gradient._replace(**{name: getattr(gradient, name)[rows] for name in ("u", "delta", "B", "C")})
            _scan_group_backward(_group(branch, rows, dtype), backwards, dy[rows].to(dtype), own)
        gradients.append(gradient)
    return gradients


def _scan_group(branch: Branch, backwards: bool, out: Tensor) -> None:
    """Add a branch's output to ``out``."""
    delta, x, decay = _discretised(branch)
    h = torch.zeros(len(x), *decay.shape, dtype=x.dtype, device=x.device)  # n s c
    factor = torch.empty_like(h)
    for t in _order(x.shape[1], backwards):
        torch.mul(delta[:, t, None], decay, out=factor).exp2_()
        h.mul_(factor).baddbmm_(branch.B[:, t, :, None], x[:, t, None])
        out[:, t] += torch.bmm(branch.C[:, t, None], h)[:, 0]
    out.addcmul_(branch.u, branch.D)


def _scan_group_backward(branch: Branch, backwards: bool, dy: Tensor, gradient: Branch) -> None:
    """Add a group's gradients to ``gradient``."""
    delta, x, decay = _discretised(branch)
    A = branch.A.mT  # s c
    order = _order(x.shape[1], backwards)
    states = torch.empty(len(order) + 1, len(x), *decay.shape, dtype=x.dtype, device=x.device)  # f+1 n s c
    states[0] = 0
    factor = torch.empty_like(states[0])
    for step, t in enumerate(order):
        torch.mul(delta[:, t, None], decay, out=factor).exp2_()
        torch.mul(states[step], factor, out=states[step + 1])
        states[step + 1].baddbmm_(branch.B[:, t, :, None], x[:, t, None])
    g, by_A = torch.zeros_like(states[0]), torch.zeros_like(states[0])  # of the loss, by the state and by A
    for step, t in reversed(list(enumerate(order))):
        g.baddbmm_(branch.C[:, t, :, None], dy[:, t, None])
        gradient.C[:, t] = torch.bmm(states[step + 1], dy[:, t, :, None])[..., 0]
        gradient.B[:, t] = torch.bmm(g, x[:, t, :, None])[..., 0]
        by_x = torch.bmm(branch.B[:, t, None], g)[:, 0]  # n c
        g *= torch.mul(delta[:, t, None], decay, out=factor).exp2_()
        by_exponent = g * states[step]  # n s c
        by_A.addcmul_(by_exponent, delta[:, t, None])
        gradient.delta[:, t] = branch.u[:, t] * by_x + by_exponent.mul_(A).sum(1)
        gradient.u[:, t] = delta[:, t] * by_x
    gradient.delta.mul_(torch.sigmoid(branch.delta))
    gradient.u.addcmul_(dy, branch.D)
    gradient.A.add_(by_A.sum(0).mT)
    gradient.D.add_((dy * branch.u).sum((0, 1)))


def _discretised(branch: Branch) -> tuple[Tensor, Tensor, Tensor]:
    """Δ n f c; Δ u n f c; A s c, for powers of two, which are cheaper than those of e."""
    delta = F.softplus(branch.delta)
    return delta, delta * branch.u, (branch.A.mT / math.log(2)).contiguous()


def _order(frames: int, backwards: bool) -> list[int]:
    return list(range(frames))[:: -1 if backwards else 1]


def _working_dtype(u: Tensor) -> torch.dtype:
    return torch.promote_types(u.dtype, torch.float32)


def _groups(u: Tensor, A: Tensor, backward: bool = False) -> list[slice]:
    """Slices of the sequences whose states fit into a group's bytes."""
    size = (u.shape[1] + 1 if backward else 1) * A.numel() * _working_dtype(u).itemsize
    rows = max(1, GROUP_BYTES.get(u.device.type, OTHER_GROUP_BYTES)[backward] // size)
    return [slice(start, start + rows) for start in range(0, len(u), rows)]


def _group(branch: Branch, rows: slice, dtype: torch.dtype) -> Branch:
    own = {name: getattr(branch, name)[rows] for name in ("u", "delta", "B", "C")}
    return Branch(*(tensor.to(dtype) for tensor in branch._replace(**own)))
