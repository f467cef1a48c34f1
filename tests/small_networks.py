"""A network and an autoencoder of a few thousand parameters, for tests of what is around them."""

import torch
from einops import rearrange

from unianimate_core import UNet, UNetConfig

CONFIG = UNetConfig(
    width=32,
    multipliers=(1,),
    residual_blocks=1,
    attention_levels=(True,),
    first_temporal_width=32,
    context_width=8,
    image_width=8,
    image_tokens=1,
    embedding_width=4,
    prompt_tokens=2,
)


def small_unet(seed=0):
    """Random weights, large enough that every condition shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    unet = UNet(CONFIG).eval().requires_grad_(False)
    for tensor in (*unet.parameters(), *unet.buffers()):
        fan = max(1, tensor[0].numel()) if tensor.ndim > 1 else 10
        tensor.copy_(torch.randn(tensor.shape, generator=generator) * fan**-0.5)
    return unet


class BlockAutoencoder:
    """Latents are 2 x the means of blocks of 8 x 8 pixels less 1, and a fourth channel of ones; it decodes them."""

    def encode(self, pixels):
        means = torch.nn.functional.avg_pool2d(pixels, 8) * 2 - 1  # b 3 h w
        return torch.cat((means, torch.ones_like(means[:, :1])), dim=1)

    def decode(self, latents):
        return ((latents[:, :3] + 1) / 2).repeat_interleave(8, -1).repeat_interleave(8, -2).clamp(0, 1)

    def decode_groups(self, latents):
        for part in latents.split(2):
            yield self.decode(part)


def as_frames(pixels):
    """Pixels f 3 H W, 0-1, to uint8 f H W 3."""
    return (rearrange(pixels, "f c h w -> f h w c") * 255).round().to(torch.uint8)
