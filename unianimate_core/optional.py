"""Packages that not every user has: imported where they are needed, never before."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import InputError

TRAIN_EXTRA = "the extra `train` of this package"
EVALUATE_EXTRA = "the extra `evaluate` of this package"
ONNXRUNTIME = "the package onnxruntime (for an NVIDIA card onnxruntime-gpu, on Windows for others onnxruntime-directml)"
OPENCV = "the package opencv-python-headless"


def require(module: str, remedy: str) -> ModuleType:
    """Import an optional module.

    Args:
        module: Its dotted name.
        remedy: What to install, as the message ends.

    Raises:
        InputError: It is not installed, or cannot start here.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(f"{module.partition('.')[0]} cannot be imported ({error}): install {remedy}") from error
    except RuntimeError as error:  # torchvision's, when it was built for another torch than this one
        raise InputError(f"{module} cannot start ({error}): install builds that fit this torch") from error
