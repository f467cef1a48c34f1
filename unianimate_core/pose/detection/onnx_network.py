"""Networks in ONNX files, run by onnxruntime."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import InputError, first_line
from ...optional import ONNXRUNTIME, require
from .networks import Kind, Network, Shape, check_kind
from .providers import CPU, CUDA, DIRECTML, QUICK, TENSORRT, short_name

if TYPE_CHECKING:
    import onnxruntime

_ERRORS_ONLY = 3
# The default searches for the fastest convolution at every new size, and takes twice the memory that it needs.
_CUDA_OPTIONS = {"cudnn_conv_algo_search": "HEURISTIC", "arena_extend_strategy": "kSameAsRequested"}


def import_onnxruntime() -> Any:
    """The package.

    Raises:
        InputError: It is missing.
    """
    return require("onnxruntime", ONNXRUNTIME)


class OnnxNetwork(Network):
    """A network of an ONNX file.

    Args:
        path: The file.
        kind: Which network it should be.
        providers: onnxruntime's names, tried one after the other; the CPU is tried last in any case.

    Attributes:
        failures: Why providers that were tried do not run it.

    Raises:
        InputError: The file cannot be read, or holds something else.
    """

    def __init__(self, path: Path, kind: Kind, providers: Sequence[str]) -> None:
        self.path, self.kind = path, kind
        self.failures: dict[str, str] = {}
        session = self._open(providers)
        self._session: onnxruntime.InferenceSession | None = session
        self.place = session.get_providers()[0]
        self.on_cpu = self.place == CPU
        inputs, outputs = session.get_inputs(), session.get_outputs()
        shapes = [_shape(value) for value in inputs]
        check_kind(path, kind, shapes, [_shape(value) for value in outputs])
        self.height, self.width = kind.input_size(shapes[0])
        self.batch = shapes[0][0]
        self._input = inputs[0].name
        self._dtype = np.float16 if inputs[0].type == "tensor(float16)" else np.float32
        # On the CPU, runs side by side use it best; elsewhere they would only take each other's memory, and DirectML
        # forbids them.
        self._turn = nullcontext() if self.on_cpu else threading.Lock()

    def _open(self, providers: Sequence[str]) -> onnxruntime.InferenceSession:
        """A session on the first provider that starts."""
        runtime = import_onnxruntime()
        session = None
        for name in providers:
            if name == CPU:
                break
            try:
                session = self._session_on(runtime, name)
            except Exception as error:  # a driver's fault can be any
                self.failures[name] = first_line(error)
                continue
            if session.get_providers()[0] == name:
                return session
            # Where a provider's libraries are missing, onnxruntime takes the CPU without a word.
            self.failures[name] = "its libraries cannot be loaded"
        try:
            return session or self._session_on(runtime, CPU)
        except Exception as error:
            raise InputError(
                f"{self.path} cannot be loaded by onnxruntime {runtime.__version__} ({first_line(error)}). It may be "
                "truncated, damaged, no ONNX network, or made for a newer onnxruntime: download "
                f"{self.kind.file} again."
            ) from error

    def _session_on(self, runtime: Any, provider: str) -> onnxruntime.InferenceSession:
        options = runtime.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = torch.get_num_threads()
        options.enable_mem_pattern = provider != DIRECTML
        # Waiting threads would spin, and take the time of those that prepare the next pictures.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        listed = [(provider, _CUDA_OPTIONS if provider == CUDA else {})]
        if provider == TENSORRT and CUDA in runtime.get_available_providers():
            listed.append((CUDA, _CUDA_OPTIONS))  # takes what TensorRT leaves
        if provider != CPU:
            listed.append((CPU, {}))
        return runtime.InferenceSession(str(self.path), options, providers=listed, enable_fallback=0)

    def release(self) -> None:
        """Close the session on a graphics card."""
        with self._turn:
            if self.place in QUICK:
                self._session = None  # its memory goes with it

    def _open_again(self) -> onnxruntime.InferenceSession:
        cause = None
        try:
            session = self._session_on(import_onnxruntime(), self.place)
            if session.get_providers()[0] == self.place:
                return session
            fault = "its libraries cannot be loaded"
        except Exception as error:
            cause, fault = error, first_line(error)
        raise InputError(
            f"{self.path} does not start again on {short_name(self.place)} ({fault}): free some of the card's memory, "
            "or choose the CPU."
        ) from cause

    def _run(self, pictures: np.ndarray) -> list[np.ndarray]:
        with self._turn:
            if self._session is None:
                self._session = self._open_again()
            outputs = self._session.run(None, {self._input: pictures.astype(self._dtype, copy=False)})
        return [output.astype(np.float32, copy=False) for output in outputs]


def _shape(value: Any) -> Shape:
    return tuple(side if isinstance(side, int) and side > 0 else None for side in value.shape or ())
