"""What steers the video, and how each condition becomes a feature of the network (paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..errors import InputError
from .attention import Operations, scaled_dot_product_attention
from .config import PIXELS_PER_LATENT, UNetConfig

Presence = Mapping[str, Tensor]
"""Which videos of a batch have a condition: b booleans by the condition's name."""

EMBEDDING_ELEMENTS = 1 << 26  # hidden values of a pixel embedding held at once


@dataclass(frozen=True)
class Conditions:
    """All that a video is made from, beside noise. An absent condition is None.

    Attributes:
        text: b n d; the empty prompt's tokens (77 x 1024 for the public checkpoint). None takes those that the
            checkpoint brings.
        image: b 1024; CLIP embedding of the reference picture.
        pose: b f 3 H W; drawn driving poses, RGB, 0-1.
        reference: b 4 h w; latent of the reference picture, scaled (x 0.18215).
        reference_pose: b 3 H W; drawn pose of the reference picture, RGB, 0-1.
        first_frame: b 3 H W; the video's first frame, RGB, 0-1.
    """

    text: Tensor | None = None
    image: Tensor | None = None
    pose: Tensor | None = None
    reference: Tensor | None = None
    reference_pose: Tensor | None = None
    first_frame: Tensor | None = None

    def unconditional(self) -> Conditions:
        """Every condition absent but the text."""
        return Conditions(text=self.text)

    def frames(self, index: slice) -> Conditions:
        """The conditions of some of the frames."""
        return self if self.pose is None else replace(self, pose=self.pose[:, index])

    def check(self, config: UNetConfig, batch: int, frames: int, height: int, width: int) -> None:
        """Compare every shape with the latent's, b 4 f h w.

        Raises:
            InputError: Names the condition, its shape, and the expected one.
        """
        pixels = (3, height * PIXELS_PER_LATENT, width * PIXELS_PER_LATENT)
        expected: dict[str, tuple[int | None, ...]] = {
            "text": (batch, None, config.context_width),
            "image": (batch, config.image_width),
            "pose": (batch, frames, *pixels),
            "reference": (batch, config.latent_channels, height, width),
            "reference_pose": (batch, *pixels),
            "first_frame": (batch, *pixels),
        }
        for name, want in expected.items():
            tensor = getattr(self, name)
            if tensor is None:
                continue
            have = tuple(tensor.shape)
            if len(have) != len(want) or any(w not in (None, h) for h, w in zip(have, want, strict=True)):
                shown = " ".join("any" if w is None else str(w) for w in want)
                raise InputError(
                    f"condition {name!r} has shape {' '.join(map(str, have))}, expected {shown} "
                    f"for a latent of {batch} video(s), {frames} frames, {height} x {width}: "
                    "make conditions and latent for the same size and length"
                )


@dataclass(frozen=True)
class Features:
    """The conditions as the network takes them, computed once per sampling.

    Attributes:
        concat: b 8 f h w; pose and first-frame feature, joined to the noised latent's channels.
        reference: b 12 h w; the reference frame that goes in front of the video.
        context: b n d; text and image tokens.
    """

    concat: Tensor
    reference: Tensor
    context: Tensor


class FrameAttention(nn.Module):
    """Self-attention with two heads, each as wide as the input."""

    heads = 2

    def __init__(self, width: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.to_qkv = operations.Linear(width, 3 * self.heads * width, bias=False, **factory)
        self.to_out = nn.Sequential(operations.Linear(self.heads * width, width, **factory))

    def forward(self, x: Tensor) -> Tensor:
        """X n f d → n f d."""
        q, k, v = self.to_qkv(x).chunk(3, dim=-1)
        return self.to_out(scaled_dot_product_attention(q, k, v, self.heads))


class PreNorm(nn.Module):
    """A layer on the normalised input."""

    def __init__(self, width: int, layer: nn.Module, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.norm = operations.LayerNorm(width, **factory)
        self.fn = layer

    def forward(self, x: Tensor) -> Tensor:
        """X n f d → n f d."""
        return self.fn(self.norm(x))


class FrameFeedForward(nn.Module):
    """Four times as wide, GELU, and back; no norm in front."""

    def __init__(self, width: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Sequential(operations.Linear(width, 4 * width, **factory), nn.GELU()),
            nn.Identity(),  # the checkpoint counts a dropout here
            operations.Linear(4 * width, width, **factory),
        )

    def forward(self, x: Tensor) -> Tensor:
        """X n f d → n f d."""
        return self.net(x)


class FrameTransformer(nn.Module):
    """A small transformer along the frames of each pixel."""

    def __init__(self, width: int, operations: Operations, **factory: Any) -> None:
        super().__init__()
        attention = PreNorm(width, FrameAttention(width, operations, **factory), operations, **factory)
        feedforward = FrameFeedForward(width, operations, **factory)
        self.layers = nn.ModuleList([nn.ModuleList([attention, feedforward])])

    def forward(self, x: Tensor) -> Tensor:
        """X n f d → n f d."""
        for attention, feedforward in self.layers:
            x = attention(x) + x
            x = feedforward(x) + x
        return x


def pixel_embedding(hidden: int, out: int, operations: Operations, **factory: Any) -> nn.Sequential:
    """Convolutions from pixels to the latent's size: n 3 H W → n out H/8 W/8."""
    return nn.Sequential(
        operations.Conv2d(3, hidden, 3, padding=1, **factory),
        nn.SiLU(),
        nn.AvgPool2d(2),
        operations.Conv2d(hidden, hidden, 3, stride=2, padding=1, **factory),
        nn.SiLU(),
        operations.Conv2d(hidden, out, 3, stride=2, padding=1, **factory),
    )


def latent_embedding(latent: int, hidden: int, out: int, operations: Operations, **factory: Any) -> nn.Sequential:
    """Convolutions that keep the size: n 4 h w → n out h w."""
    return nn.Sequential(
        operations.Conv2d(latent, hidden, 3, padding=1, **factory),
        nn.SiLU(),
        operations.Conv2d(hidden, hidden, 3, padding=1, **factory),
        nn.SiLU(),
        operations.Conv2d(hidden, out, 3, padding=1, **factory),
    )


def image_tokens(image: int, context: int, tokens: int, operations: Operations, **factory: Any) -> nn.Sequential:
    """Projection of the CLIP embedding: b image → b (tokens context)."""
    return nn.Sequential(
        operations.Linear(image, context, **factory),
        nn.SiLU(),
        operations.Linear(context, tokens * context, **factory),
    )


class ConditionEncoders(nn.Module):
    """The embeddings of all conditions; the network derives from it, so that the checkpoint's names stand as they are.

    An absent condition is zeros at the place where it enters, never zeros sent through its embedding.

    Attributes:
        gradient_checkpointing: In training, compute hidden values anew in the backward pass instead of keeping them.
    """

    gradient_checkpointing = False

    def __init__(self, config: UNetConfig, operations: Operations, **factory: Any) -> None:
        super().__init__()
        self.config = config
        prompt = torch.zeros(config.prompt_tokens, config.context_width, **factory) if config.prompt_tokens else None
        self.register_buffer("empty_prompt", prompt)  # n d, where the checkpoint brings it
        hidden, concat, channels = config.embedding_width, config.concat_channels, config.in_channels
        self.pre_image_condition = image_tokens(
            config.image_width, config.context_width, config.image_tokens, operations, **factory
        )
        self.local_image_embedding = pixel_embedding(hidden, concat, operations, **factory)
        self.local_image_embedding_after = FrameTransformer(concat, operations, **factory)
        self.dwpose_embedding = pixel_embedding(hidden, concat, operations, **factory)
        self.dwpose_embedding_after = FrameTransformer(concat, operations, **factory)
        self.randomref_pose2_embedding = pixel_embedding(hidden, channels, operations, **factory)
        self.randomref_pose2_embedding_after = FrameTransformer(channels, operations, **factory)
        self.randomref_embedding2 = latent_embedding(config.latent_channels, hidden, channels, operations, **factory)
        self.randomref_embedding_after2 = FrameTransformer(channels, operations, **factory)

    def encode_pose(self, pose: Tensor, like: Tensor) -> Tensor:
        """Pose b f 3 H W → b 8 f h w, as all features on the device and in the precision of ``like``."""
        return _along_frames(self.dwpose_embedding_after, self._embed_pixels(self.dwpose_embedding, pose, like))

    def encode_first_frame(self, first_frame: Tensor, like: Tensor) -> Tensor:
        """First frame b 3 H W → b 8 1 h w, the same for all frames."""
        # Attention on f equal frames is attention on one of them.
        x = self._embed_pixels(self.local_image_embedding, first_frame[:, None], like)
        return _along_frames(self.local_image_embedding_after, x)

    def encode_reference(
        self, reference: Tensor | None, reference_pose: Tensor | None, like: Tensor, present: Presence | None = None
    ) -> Tensor:
        """Reference b 4 h w and its pose b 3 H W → b 12 h w."""
        batch, _, _, height, width = like.shape
        feature = like.new_zeros(batch, self.config.in_channels, 1, height, width)  # b 12 1 h w
        if reference is not None:
            x = self.randomref_embedding2(reference.to(like))[:, :, None]
            x = _along_frames(self.randomref_embedding_after2, x)
            feature = feature + _where_present(x, present, "reference")
        if reference_pose is not None:
            x = self._embed_pixels(self.randomref_pose2_embedding, reference_pose[:, None], like)
            x = _along_frames(self.randomref_pose2_embedding_after, x)
            feature = feature + _where_present(x, present, "reference_pose")
        return feature[:, :, 0]

    def encode_context(
        self, text: Tensor | None, image: Tensor | None, like: Tensor, present: Presence | None = None
    ) -> Tensor:
        """Text b n d and image b 1024 → b n+4 d; four zero tokens where the image is absent.

        Raises:
            InputError: There is no text, and the checkpoint brings none.
        """
        if text is None and self.empty_prompt is None:
            raise InputError(
                "no text tokens: the checkpoint does not bring the empty prompt's. Give the empty prompt encoded by "
                "OpenCLIP ViT-H, or store its tokens in the checkpoint (`unianimate convert --clip`)"
            )
        batch = like.shape[0]
        text = self.empty_prompt.expand(batch, -1, -1) if text is None else text  # b n d
        if image is None:
            tokens = like.new_zeros(batch, self.config.image_tokens, text.shape[2])
        else:
            tokens = rearrange(self.pre_image_condition(image.to(like)), "b (n d) -> b n d", d=text.shape[2])
            tokens = _where_present(tokens, present, "image")
        return torch.cat((text.to(like), tokens), dim=1)

    def encode_conditions(self, conditions: Conditions, like: Tensor, present: Presence | None = None) -> Features:
        """All conditions as features.

        Args:
            conditions: Any precision, any device; pictures are moved a few at a time.
            like: The latent b 4 f h w that they belong to; its shape, device and precision count, not its values.
            present: For conditions that only some videos of the batch have: by name, b booleans; where False, that
                video's condition is absent, whatever its tensor holds.

        Raises:
            InputError: A condition's shape does not fit the latent, there is no text, or ``present`` names what is no
                condition.
        """
        batch, _, frames, height, width = like.shape
        names = [item.name for item in fields(Conditions) if item.name != "text"]
        if unknown := [name for name in present or () if name not in names]:
            raise InputError(f"present names {unknown[0]!r}, which is no condition: they are {', '.join(names)}")
        conditions.check(self.config, batch, frames, height, width)
        concat = like.new_zeros(batch, self.config.concat_channels, frames, height, width)  # b 8 f h w
        if conditions.pose is not None:
            concat = concat + _where_present(self.encode_pose(conditions.pose, like), present, "pose")
        if conditions.first_frame is not None:
            x = self.encode_first_frame(conditions.first_frame, like)
            concat = concat + _where_present(x, present, "first_frame")
        reference = self.encode_reference(conditions.reference, conditions.reference_pose, like, present)
        context = self.encode_context(conditions.text, conditions.image, like, present)
        return Features(concat, reference, context)

    def _embed_pixels(self, embedding: nn.Sequential, pixels: Tensor, like: Tensor) -> Tensor:
        """Pixels b f 3 H W → b d f h w, some frames at a time: the first layer holds 32 channels at full size."""
        flat = rearrange(pixels, "b f c h w -> (b f) c h w")
        hidden = embedding[0].out_channels * flat.shape[2] * flat.shape[3]
        embed = embedding
        if self.gradient_checkpointing and torch.is_grad_enabled():
            embed = partial(checkpoint, embedding, use_reentrant=False)
        embedded = [embed(part.to(like)) for part in flat.split(max(1, EMBEDDING_ELEMENTS // hidden))]
        return rearrange(torch.cat(embedded), "(b f) c h w -> b c f h w", f=pixels.shape[1])


def _where_present(feature: Tensor, present: Presence | None, name: str) -> Tensor:
    """Zeros for the videos of a batch that lack a condition."""
    if present is None or name not in present:
        return feature
    rows = present[name].to(feature.device, torch.bool).view(-1, *[1] * (feature.ndim - 1))
    return torch.where(rows, feature, 0)  # not a product: an infinite feature times 0 is NaN


def _along_frames(transformer: FrameTransformer, x: Tensor) -> Tensor:
    """A small transformer along the frames of b d f h w."""
    tokens = transformer(rearrange(x, "b d f h w -> (b h w) f d"))
    return rearrange(tokens, "(b h w) f d -> b d f h w", h=x.shape[3], w=x.shape[4])
