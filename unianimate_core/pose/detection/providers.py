"""Where the networks compute, and what keeps them from a better place."""

from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Mapping, Sequence

import torch

from ...errors import InputError

logger = logging.getLogger(__name__)

CUDA, TENSORRT, DIRECTML = "CUDAExecutionProvider", "TensorrtExecutionProvider", "DmlExecutionProvider"
ROCM, CPU = "ROCMExecutionProvider", "CPUExecutionProvider"
# TensorRT takes minutes to start; the last two, AMD's, come in builds that have none of those before.
ORDER = (CUDA, TENSORRT, DIRECTML, "CoreMLExecutionProvider", "MIGraphXExecutionProvider", ROCM, CPU)
QUICK = (CUDA, DIRECTML, ROCM)
"""Those on a graphics card that start in a second or two; the others compile the network first, for up to minutes."""

_OTHER_NAMES = {"directml": DIRECTML}
_TORCH_NAMES = {"tensorrt": CUDA}  # so that one choice does for two files of which one is TorchScript


def choose_providers(
    asked: Sequence[str] | None,
    installed: Sequence[str],
    runtime: str = "onnxruntime",
    other_names: Mapping[str, str] = _OTHER_NAMES,
) -> list[str]:
    """Which providers to try, best first.

    Args:
        asked: Names, with or without "ExecutionProvider" at the end, in any case; None leaves the choice to `ORDER`.
        installed: Those that onnxruntime was built with.
        runtime: What messages call it.
        other_names: What users may call a provider, in lower case.

    Returns:
        onnxruntime's names.

    Raises:
        InputError: One is unknown or not installed.
    """
    if asked is None:
        return [name for name in ORDER if name in installed]
    if isinstance(asked, str):
        asked = [asked]
    known = {short_name(name).lower(): name for name in installed}
    known |= {other: name for other, name in other_names.items() if name in installed}
    chosen = []
    for name in asked:
        if (key := short_name(str(name)).lower()) not in known:
            raise InputError(
                f"There is no provider {name!r} in this {runtime}: choose from "
                f"{', '.join(map(short_name, installed))}, or install the {runtime} package that has it."
            )
        chosen.append(known[key])
    if not chosen:
        raise InputError("The list of providers is empty: name one or more, or leave it out.")
    return chosen


def choose_torch_device(asked: Sequence[str] | None) -> torch.device:
    """Which of PyTorch's devices TorchScript networks run on: CUDA where PyTorch has it, or the CPU.

    Args:
        asked: As `choose_providers`; the first counts. TensorRT stands for CUDA.

    Raises:
        InputError: One is unknown, or PyTorch does not have it.
    """
    installed = [CUDA, CPU] if torch.cuda.is_available() else [CPU]
    best = choose_providers(asked, installed, "PyTorch", _TORCH_NAMES)[0]
    return torch.device("cuda" if best == CUDA else "cpu")


def short_name(provider: str) -> str:
    """A provider as messages call it: CUDA, Tensorrt, Dml, CPU."""
    return provider[: -len("ExecutionProvider")] if provider.lower().endswith("executionprovider") else provider


def describe_shortfall(used: str, failures: Mapping[str, str], asked: Sequence[str] | None, version: str) -> str | None:
    """Say why detection runs in a slower place than it could, and what to do; None if it does not.

    Args:
        used: The provider that both networks run on.
        failures: Why others, tried before, do not run.
        asked: What the user asked for; None for nothing.
        version: Of onnxruntime.
    """
    place = f"Pose detection runs on the {short_name(used)} provider of onnxruntime {version}"
    if failures:
        reasons = "; ".join(f"{short_name(name)} did not start ({reason})" for name, reason in failures.items())
        libraries = "libraries (for CUDA: CUDA and cuDNN)"
        return (
            f"{place}: {reasons}. Install the {libraries} that this onnxruntime was built for, or one built for yours."
        )
    card = find_card() if used == CPU and asked is None else None
    if card:
        if torch.version.hip:
            package = "onnxruntime-directml (Windows) or onnxruntime-migraphx (Linux)"
        else:
            package = "onnxruntime-gpu (on Windows, onnxruntime-directml will also do)"
        return f"{place} though there is {card}: install {package} in place of onnxruntime."
    return None


def describe_torch_shortfall(device: torch.device, asked: Sequence[str] | None) -> str | None:
    """As `describe_shortfall`, of TorchScript networks."""
    if device.type != "cpu" or asked is not None:
        return None
    place = f"Pose detection runs on the CPU by PyTorch {torch.__version__}"
    if card := find_card():
        return f"{place} though there is {card}: install a PyTorch that is built for CUDA and fits the card's driver."
    if torch.backends.mps.is_available() or torch.xpu.is_available():
        return f"{place}: TorchScript files run on CUDA or the CPU only. For this graphics card give the ONNX files."
    return None


def find_card() -> str | None:
    """The name of a graphics card that PyTorch sees, or of an NVIDIA one whose driver alone is installed."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "an NVIDIA card" if shutil.which("nvidia-smi") else None


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, the first time in this process only."""
    logger.warning(message)
