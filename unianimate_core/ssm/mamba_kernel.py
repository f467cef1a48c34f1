"""The selective scan by the kernel of the package mamba-ssm, which wants frames last and knows one direction."""

from __future__ import annotations

from collections.abc import Sequence

from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor
from torch.nn import functional as F

from .branch import Branch


def scan(branches: Sequence[Branch], z: Tensor | None) -> Tensor:
    """See `selective_scan`; with the package's own autograd."""
    y = _scan_one(branches[0])
    if len(branches) > 1:
        y = y + _scan_one(branches[1], backwards=True)
    y = y.mT.contiguous()
    return y if z is None else y * F.silu(z)


def _scan_one(branch: Branch, backwards: bool = False) -> Tensor:
    """N c f."""
    u, delta, B, C = (t.flip(1) if backwards else t for t in (branch.u, branch.delta, branch.B, branch.C))
    dtype = u.dtype
    y = selective_scan_fn(
        u.mT.contiguous(),
        delta.to(dtype).mT.contiguous(),
        branch.A.float(),
        B.to(dtype).mT.contiguous(),
        C.to(dtype).mT.contiguous(),
        branch.D.float(),
        delta_softplus=True,
    )
    return y.flip(-1) if backwards else y
