"""Networks in TorchScript files, run by PyTorch."""

from __future__ import annotations

import threading
import warnings
from pathlib import Path

import numpy as np
import torch

from ...errors import InputError, first_line
from .networks import Kind, Network, Shape, check_kind, other_kind

BATCHES = (2, 1, 5)
"""Tried in this order: a file does not tell how many pictures it takes. One that takes two takes any number; public
files take one or five."""


class TorchScriptNetwork(Network):
    """A network of a TorchScript file.

    Args:
        path: The file.
        kind: Which network it should be.
        device: Where to run it.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """

    def __init__(self, path: Path, kind: Kind, device: torch.device) -> None:
        self.path, self.kind, self._device = path, kind, device
        self.place = f"TorchScript on {device.type}"
        self.on_cpu = device.type == "cpu"
        self.height, self.width = kind.size
        self._turn = threading.Lock()
        self._module: torch.jit.ScriptModule | None = self._load()
        parameter = next(self._module.parameters(), None)
        self._dtype = torch.float32 if parameter is None else parameter.dtype
        self.batch = self._find_batch()

    def _load(self) -> torch.jit.ScriptModule:
        try:
            with self.path.open("rb") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return torch.jit.load(file, map_location=self._device).eval()
        except Exception as error:  # damaged data raises nearly anything
            raise InputError(
                f"{self.path} is no TorchScript network, or is truncated or damaged ({first_line(error)}). "
                f"Download it again, or give {self.kind.file}."
            ) from error

    def release(self) -> None:
        """Drop the network from a graphics card."""
        with self._turn:
            if not self.on_cpu:
                self._module = None

    def _find_batch(self) -> int | None:
        """How many pictures the network takes at once, None for any number."""
        seen, answers = self._try_batches(self.kind)
        if not self.kind.fits([seen], answers):
            other = other_kind(self.kind)
            elsewhere, given = self._try_batches(other)
            if other.fits([elsewhere], given):
                seen, answers = elsewhere, given
            if not answers:
                raise InputError(
                    f"{self.path} is not {self.kind.title} of DWPose: it fails on pictures of {self.width} × "
                    f"{self.height}. Give {self.kind.file}, or its TorchScript version."
                )
            check_kind(self.path, self.kind, [seen], answers)
        return None if seen[0] == BATCHES[0] else seen[0]

    def _try_batches(self, kind: Kind) -> tuple[Shape, list[Shape]]:
        """A shape of input that is right for a kind, and what the network gives for it: nothing if it takes none."""
        for batch in BATCHES:
            seen = (batch, 3, *kind.size)
            try:
                shapes = [output.shape for output in self._run(np.zeros(seen, np.float32))]
            except torch.cuda.OutOfMemoryError:
                raise
            except (RuntimeError, TypeError, AttributeError):  # TorchScript's own, and of what is no tensor
                continue
            if all(shape[:1] == (batch,) for shape in shapes):
                return seen, shapes
        return seen, []

    def _run(self, pictures: np.ndarray) -> list[np.ndarray]:
        with self._turn, torch.no_grad():
            if self._module is None:
                self._module = self._load()
            outputs = self._module(torch.from_numpy(pictures).to(self._device, self._dtype))
            outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
            return [output.float().cpu().numpy() for output in outputs]
