"""The networks that are compared, made of the package's own modules."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unianimate_core import Conditions, UNet, UNetConfig
from unianimate_core.training.config import RunConfig
from unianimate_core.training.model import build_unet
from unianimate_core.unet import Features
from unianimate_core.unet.blocks import ResidualBlock, SpatialTransformer, TemporalTransformer

SPATIAL = ("time_embed", "input_blocks", "middle_block", "output_blocks")

Kind = TypeVar("Kind", bound=UNet)


class WithoutReferencePose(UNet):
    """The unified network, to which the reference picture's pose is unknown, in training and afterwards."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.randomref_pose2_embedding.requires_grad_(False)
        self.randomref_pose2_embedding_after.requires_grad_(False)

    def encode_reference(
        self,
        reference: Tensor | None,
        reference_pose: Tensor | None,
        like: Tensor,
        present: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Reference b 4 h w alone → b 12 h w."""
        return super().encode_reference(reference, None, like, present)


@dataclass(frozen=True)
class ReferenceFeatures(Features):
    """Features with what the second network read of the reference.

    Attributes:
        memory: b n c for each spatial transformer, in the network's order; n places of the reference picture.
    """

    memory: tuple[Tensor, ...]


class WithReferenceNetwork(UNet):
    """A video network without a reference frame, and beside it a second network that reads the reference picture.

    The second network is the video network without its temporal layers, with weights of its own. It sees the
    embedded reference latent and pose, as one frame at timestep 0. What enters the self-attention of each of its
    spatial transformers joins the keys and values of the video network's at the same place, in every frame: the way of
    Animate Anyone's ReferenceNet (arXiv 2311.17117, section 3.2). Not for gradient checkpointing.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config)
        self.reference_network = spatial_network(config)

    def encode_conditions(
        self, conditions: Conditions, like: Tensor, present: Mapping[str, Tensor] | None = None
    ) -> ReferenceFeatures:
        """All conditions as features; the second network runs here, once per sampling."""
        features = super().encode_conditions(conditions, like, present)
        memory: list[Tensor] = []
        timestep = torch.zeros(len(like), device=like.device)  # the reference has no noise
        with ExitStack() as hooks:
            for transformer in spatial_transformers(self.reference_network):
                norm = transformer.transformer_blocks[0].norm1
                hooks.enter_context(norm.register_forward_hook(lambda _, __, output: memory.append(output)))
            self.reference_network.unified(features.reference[:, :, None], timestep, features.context)
        return ReferenceFeatures(**vars(features), memory=tuple(memory))

    def denoise(self, latent: Tensor, timestep: Tensor, features: ReferenceFeatures) -> Tensor:
        """Predict v from a noised latent b 4 f h w, timesteps b and ready features → b 4 f h w."""
        video = torch.cat((latent, features.concat), dim=1)  # b 12 f h w
        with ExitStack() as hooks:
            for transformer, memory in zip(spatial_transformers(self), features.memory, strict=True):
                attention = transformer.transformer_blocks[0].attn1
                hooks.enter_context(attention.register_forward_pre_hook(partial(_look_there_too, memory)))
            return self.unified(video, timestep, features.context)


def spatial_network(config: UNetConfig) -> UNet:
    """A network for single pictures: `UNet` without conditions, temporal layers and output."""
    network = UNet(replace(config, prompt_tokens=0))
    for name in [name for name, _ in network.named_children() if name not in SPATIAL]:
        delattr(network, name)
    network.out = nn.Identity()
    for module in list(network.modules()):
        if isinstance(module, ResidualBlock):
            module.temopral_conv = _OneFrame()
        elif isinstance(module, nn.ModuleList):
            for index, layer in enumerate(module):
                if isinstance(layer, TemporalTransformer):
                    module[index] = nn.Identity()
    last = spatial_transformers(network)[-1]
    block = last.transformer_blocks[0]
    for unread in (block.attn1, block.norm2, block.attn2, block.norm3, block.ff, last.proj_out):
        unread.requires_grad_(False)
    return network


def spatial_transformers(network: UNet) -> list[SpatialTransformer]:
    """The spatial transformers of a network, in the order in which they run."""
    modules = nn.ModuleList([network.input_blocks, network.middle_block, network.output_blocks]).modules()
    return [module for module in modules if isinstance(module, SpatialTransformer)]


def build_without_reference_pose(config: RunConfig) -> tuple[UNet, list[str]]:
    """See `build_unet`."""
    plain, new = build_unet(config)
    return _become(WithoutReferencePose, plain), new


def build_with_reference_network(config: RunConfig) -> tuple[UNet, list[str]]:
    """See `build_unet`; both networks begin with the same weights."""
    plain, new = build_unet(config)
    unet = _become(WithReferenceNetwork, plain)
    unet.reference_network.load_state_dict(plain.state_dict(), strict=False)
    return unet, new


def _become(kind: type[Kind], plain: UNet) -> Kind:
    """Another kind of network with the weights of a plain one."""
    unet = kind(plain.config)
    unet.load_state_dict(plain.state_dict(), strict=False)
    if not any(parameter.requires_grad for parameter in plain.pre_image_condition.parameters()):
        unet.pre_image_condition.requires_grad_(False)
    return unet


def _look_there_too(memory: Tensor, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Self-attention of x (b f) l c becomes attention on x and on the memory b n c of its video."""
    (x,) = inputs
    frames = len(x) // len(memory)
    return x, torch.cat((x, memory.repeat_interleave(frames, dim=0)), dim=1)  # (b f) l+n c


class _OneFrame(nn.Module):
    """In the place of the convolutions along the frames, where there is one frame."""

    def forward(self, x: Tensor, *_: Any) -> Tensor:
        return x
