"""The temporal layer by a state space model: linear in the frames (paper, section 3.3)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ..ssm import BidirectionalMamba, MambaSizes
from .attention import Operations
from .blocks import GROUPS, TemporalLayer


def mamba_values(sizes: MambaSizes, width: int) -> int:
    """Values held at once for each of the ``width`` given, at the scan."""
    # The input; of the width inside x, z, each direction's u (which no scan copies again) and delta, and the output.
    return math.ceil(1.5 + 7 * sizes.inner / width)


class TemporalMamba(TemporalLayer):
    """A bidirectional Mamba block along the frames of each pixel, in the temporal transformer's place."""

    def __init__(self, channels: int, inner: int, sizes: MambaSizes, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, **factory)
        self.proj_in = operations.Conv1d(channels, inner, 1, **factory)
        self.mamba = BidirectionalMamba(inner, sizes, operations, **factory)
        self.proj_out = operations.Conv1d(inner, channels, 1, **factory)
        self.values = mamba_values(sizes, inner)

    def along_frames(self, x: Tensor, working_bytes: int | None) -> Tensor:
        """N f c → n f c."""
        return self.mamba(x)
