"""What one direction of a selective scan is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class Branch(NamedTuple):
    """One direction of a scan; n sequences of f frames with c channels, s states a channel.

    With Δ = softplus(delta), per channel (arXiv 2312.00752, equations 2a and 4, B discretised as Δ B)::

        h[t] = exp(Δ[t] A) h[t-1] + Δ[t] B[t] u[t]
        y[t] = C[t] · h[t] + D u[t]

    Attributes:
        u: Input, n f c.
        delta: Step size before softplus, n f c.
        A: Decay, negative, c s.
        B: Input's weights, n f s.
        C: Output's weights, n f s.
        D: Skip, c.
    """

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor


def branches_of(tensors: Sequence[Tensor]) -> list[Branch]:
    """The branches whose tensors stand in one list."""
    size = len(Branch._fields)
    return [Branch(*tensors[i : i + size]) for i in range(0, len(tensors), size)]
