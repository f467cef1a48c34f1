"""Makes the files that stand here until training has made better ones.

Run it as `python -m unianimate_core.assets.make_untrained`.

The network is a small one with random weights. The autoencoder has TAESD's layout with weights written by hand: it
keeps the mean colour of every block of 8 x 8 pixels, and paints the block with it on the way back.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import save_tensors
from ..unet import UNet, UNetConfig

HERE = Path(__file__).parent
SMALL = UNetConfig(
    width=32,
    multipliers=(1, 2),
    residual_blocks=1,
    attention_levels=(False, True),
    first_temporal_width=32,
    context_width=64,
    prompt_tokens=77,
)
TAESD_WIDTH = 64
LATENT_SCALE = 2.0


def untrained_unet(config: UNetConfig = SMALL, seed: int = 0) -> dict[str, Tensor]:
    """Random weights for a network of some size, in float16."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {name: tensor.half() for name, tensor in UNet(config).state_dict().items()}


def block_mean_autoencoder() -> dict[str, Tensor]:
    """Weights in TAESD's layout that average blocks of 8 x 8 pixels, in float16."""

    def conv(out_channels: int, in_channels: int) -> Tensor:
        return torch.zeros(out_channels, in_channels, 3, 3)

    tensors: dict[str, Tensor] = {}

    def block(name: str) -> None:  # three silent convolutions beside an identity
        for layer in (0, 2, 4):
            tensors[f"{name}.conv.{layer}.weight"] = conv(TAESD_WIDTH, TAESD_WIDTH)
            tensors[f"{name}.conv.{layer}.bias"] = torch.zeros(TAESD_WIDTH)

    colours = torch.arange(3)
    first = conv(TAESD_WIDTH, 3)
    first[colours, colours, 1, 1] = 1
    tensors["taesd_encoder.0.weight"], tensors["taesd_encoder.0.bias"] = first, torch.zeros(TAESD_WIDTH)
    block("taesd_encoder.1")
    for down in (2, 6, 10):
        halve = conv(TAESD_WIDTH, TAESD_WIDTH)
        halve[colours, colours, 1:, 1:] = 0.25
        tensors[f"taesd_encoder.{down}.weight"] = halve
        for index in range(down + 1, down + 4):
            block(f"taesd_encoder.{index}")
    last = conv(4, TAESD_WIDTH)
    last[colours, colours, 1, 1] = LATENT_SCALE
    last[3, :3, 1, 1] = LATENT_SCALE / 3
    tensors["taesd_encoder.14.weight"] = last
    tensors["taesd_encoder.14.bias"] = torch.full((4,), -LATENT_SCALE / 2)

    # The decoder begins by 3 tanh(x / 3); over ±1 a line of this slope is within 2 % of its inverse.
    first = conv(TAESD_WIDTH, 4)
    first[colours, colours, 1, 1] = 1.035 / LATENT_SCALE
    tensors["taesd_decoder.1.weight"], tensors["taesd_decoder.1.bias"] = first, torch.full((TAESD_WIDTH,), 0.5)
    for start in (3, 8, 13):
        for index in range(start, start + 3):
            block(f"taesd_decoder.{index}")
        same = conv(TAESD_WIDTH, TAESD_WIDTH)
        same[colours, colours, 1, 1] = 1
        tensors[f"taesd_decoder.{start + 4}.weight"] = same
    block("taesd_decoder.18")
    last = conv(3, TAESD_WIDTH)
    last[colours, colours, 1, 1] = 1
    tensors["taesd_decoder.19.weight"], tensors["taesd_decoder.19.bias"] = last, torch.zeros(3)
    tensors = {name: tensor.half() for name, tensor in tensors.items()}
    # Its latents are the network's own: this undoes the scale that Stable Diffusion's latent format puts on them.
    return tensors | {"vae_scale": torch.tensor(0.18215), "vae_shift": torch.tensor(0.0)}


if __name__ == "__main__":
    untrained = {"unianimate": "untrained"}
    save_tensors(untrained_unet(), HERE / "diffusion_models" / "unianimate_small.safetensors", untrained)
    save_tensors(block_mean_autoencoder(), HERE / "vae" / "unianimate_small_vae.safetensors", untrained)
