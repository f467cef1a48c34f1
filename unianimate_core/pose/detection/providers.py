"""Where onnxruntime computes, and what keeps it from a better place."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence

import torch

from ...errors import InputError

logger = logging.getLogger(__name__)

CUDA, TENSORRT, DIRECTML = "CUDAExecutionProvider", "TensorrtExecutionProvider", "DmlExecutionProvider"
CPU = "CPUExecutionProvider"
# TensorRT takes minutes to start; the last two, AMD's, come in builds that have none of those before.
ORDER = (CUDA, TENSORRT, DIRECTML, "CoreMLExecutionProvider", "MIGraphXExecutionProvider", "ROCMExecutionProvider", CPU)
_OTHER_NAMES = {"directml": DIRECTML}


def choose_providers(asked: Sequence[str] | None, installed: Sequence[str]) -> list[str]:
    """Which providers to try, best first.

    Args:
        asked: Names, with or without "ExecutionProvider" at the end, in any case; None leaves the choice to `ORDER`.
        installed: Those that onnxruntime was built with.

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
    known |= {other: name for other, name in _OTHER_NAMES.items() if name in installed}
    chosen = []
    for name in asked:
        if (key := short_name(str(name)).lower()) not in known:
            raise InputError(
                f"There is no provider {name!r} in this onnxruntime: choose from "
                f"{', '.join(map(short_name, installed))}, or install the onnxruntime package that has it."
            )
        chosen.append(known[key])
    if not chosen:
        raise InputError("The list of providers is empty: name one or more, or leave it out.")
    return chosen


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
    if used == CPU and asked is None and torch.cuda.is_available():
        if torch.version.hip:
            package = "onnxruntime-directml (Windows) or onnxruntime-migraphx (Linux)"
        else:
            package = "onnxruntime-gpu (on Windows, onnxruntime-directml will also do)"
        return f"{place} though there is {torch.cuda.get_device_name()}: install {package} in place of onnxruntime."
    return None


@functools.cache
def warn_once(message: str) -> None:
    """Log a warning, the first time in this process only."""
    logger.warning(message)
