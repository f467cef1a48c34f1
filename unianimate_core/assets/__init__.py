"""The small trained model that comes with the package."""

from pathlib import Path

ASSETS = Path(__file__).parent
SMALL_UNET = ASSETS / "diffusion_models" / "unianimate_small.safetensors"
SMALL_VAE = ASSETS / "vae" / "unianimate_small_vae.safetensors"
SMALL_SIZE = "128x192"
SMALL_GUIDANCE = 1.0
"""It was trained for few steps on simple pictures: guidance, which trades likeness for contrast, does not help it."""
