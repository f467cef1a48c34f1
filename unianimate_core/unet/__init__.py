"""The unified 3D-UNet and its conditions."""

from .conditions import Conditions, Features
from .config import UNetConfig
from .loading import load_unet
from .network import UNet

__all__ = ["Conditions", "Features", "UNet", "UNetConfig", "load_unet"]
