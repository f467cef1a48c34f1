"""The small trained model that comes with the package."""

from pathlib import Path

ASSETS = Path(__file__).parent
SMALL_UNET = ASSETS / "diffusion_models" / "unianimate_small.safetensors"
SMALL_VAE = ASSETS / "vae" / "unianimate_small_vae.safetensors"
SMALL_SIZE = "128x192"
