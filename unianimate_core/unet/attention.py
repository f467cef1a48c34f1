"""Attention and the transformer block that the spatial and the temporal layers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
Operations = Any
"""A namespace of layer classes: ``torch.nn``, or the host's, which cast and stream weights."""

MAX_BATCH = 1 << 15  # CUDA's attention kernels put batch x heads in a grid dimension of 16 bits


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Softmax(q kᵀ / √width) v, head by head; q b n (h d), k and v b m (h d) → b n (h d)."""
    q, k, v = (rearrange(t, "b n (h d) -> b h n d", h=heads) for t in (q, k, v))
    size = max(1, MAX_BATCH // heads)
    parts = [
        F.scaled_dot_product_attention(q[i : i + size], k[i : i + size], v[i : i + size])
        for i in range(0, q.shape[0], size)
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return rearrange(out, "b h n d -> b n (h d)")


class MultiHeadAttention(nn.Module):
    """Attention of x on a context, or on x itself; no bias on queries, keys and values."""

    def __init__(
        self, width: int, context_width: int, heads: int, attention: Attention, operations: Operations, **factory: Any
    ) -> None:
        super().__init__()
        self.heads = heads
        self.attention = attention
        self.to_q = operations.Linear(width, width, bias=False, **factory)
        self.to_k = operations.Linear(context_width, width, bias=False, **factory)
        self.to_v = operations.Linear(context_width, width, bias=False, **factory)
        self.to_out = nn.Sequential(operations.Linear(width, width, **factory))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """X b n c; context b m c', None for self-attention → b n c."""
        context = x if context is None else context
        return self.to_out(self.attention(self.to_q(x), self.to_k(context), self.to_v(context), self.heads))


class GEGLU(nn.Module):
    """Linear to twice the width; the first half times GELU of the second."""

    def __init__(self, width: int, inner: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.proj = operations.Linear(width, 2 * inner, **factory)

    def forward(self, x: Tensor) -> Tensor:
        """X b n c → b n inner."""
        value, gate = self.proj(x).chunk(2, dim=-1)
        return value * F.gelu(gate)


class FeedForward(nn.Module):
    """GEGLU with four times the width, and back."""

    def __init__(self, width: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(
            GEGLU(width, 4 * width, operations, **factory),
            nn.Identity(),  # the checkpoint counts a dropout here
            operations.Linear(4 * width, width, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        """X b n c → b n c."""
        return self.net(x)


class TransformerBlock(nn.Module):
    """Pre-norm: self-attention, attention on the context (or itself again), GEGLU."""

    def __init__(
        self, width: int, context_width: int, heads: int, attention: Attention, operations: Operations, **factory: Any
    ) -> None:
        super().__init__()
        self.attn1 = MultiHeadAttention(width, width, heads, attention, operations, **factory)
        self.ff = FeedForward(width, operations, **factory)
        self.attn2 = MultiHeadAttention(width, context_width, heads, attention, operations, **factory)
        self.norm1 = operations.LayerNorm(width, **factory)
        self.norm2 = operations.LayerNorm(width, **factory)
        self.norm3 = operations.LayerNorm(width, **factory)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """X n l c; context b m c' of the n / b rows' videos, None for self-attention → n l c."""
        x = x + self.attn1(self.norm1(x))
        h = self.norm2(x)
        if context is None:
            x = x + self.attn2(h)
        else:
            # A video's frames ask one context: side by side in one sequence, its keys are made once.
            h = rearrange(h, "(b f) l c -> b (f l) c", b=context.shape[0])
            x = x + self.attn2(h, context).view_as(x)
        return x + self.ff(self.norm3(x))
