"""Attention and the transformer block that the spatial and the temporal layers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .groups import add, group_count, nbytes

Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]
Operations = Any
"""A namespace of layer classes: ``torch.nn``, or the host's, which cast and stream weights."""

MAX_BATCH = 1 << 15  # CUDA's attention kernels put batch x heads in a grid dimension of 16 bits


def scaled_dot_product_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Softmax(q kᵀ / √width) v, head by head; q b n (h d), k and v b m (h d) → b n (h d)."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # b h n d
    size = max(1, MAX_BATCH // heads)
    parts = [
        F.scaled_dot_product_attention(q[i : i + size], k[i : i + size], v[i : i + size])
        for i in range(0, q.shape[0], size)
    ]
    out = parts[0] if len(parts) == 1 else torch.cat(parts)
    return out.transpose(1, 2).flatten(2)


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
        gate = F.gelu(gate)
        return value * gate if torch.is_grad_enabled() else gate.mul_(value)


class FeedForward(nn.Module):
    """GEGLU with four times the width, and back."""

    values = 14  # as many as the input has are held at once: normalised input, projection, gate

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

    values = 7  # as many as the input has are held at once: itself, normalised, q, k, v, the answer, a copy

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

    def forward(self, x: Tensor, context: Tensor | None = None, working_bytes: int | None = None) -> Tensor:
        """One block.

        Args:
            x: n l c; overwritten where working_bytes is given.
            context: b m c' of the n / b rows' videos, None for self-attention.
            working_bytes: What the feed-forward may hold beside x; None for no limit, as autograd needs.

        Returns:
            n l c.
        """
        in_place = working_bytes is not None
        x = add(x, self.attn1(self.norm1(x)), in_place)
        h = self.norm2(x)
        if context is None:
            h = self.attn2(h)
        else:
            # A video's frames ask one context: side by side in one sequence, its keys are made once.
            h = self.attn2(h.reshape(len(context), -1, h.shape[-1]), context).view_as(x)
        x = add(x, h, in_place)
        del h
        spare = working_bytes and max(working_bytes - nbytes(x), working_bytes // 4)  # x itself may be as large
        chunks = group_count(self.ff.values * nbytes(x), spare)
        if chunks == 1:
            return add(x, self.ff(self.norm3(x)), in_place)
        for chunk in x.view(-1, x.shape[-1]).chunk(chunks):
            chunk += self.ff(self.norm3(chunk))
        return x
