"""Which kind of file a network is in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from .networks import Kind, Network
from .onnx_network import OnnxNetwork, import_onnxruntime
from .providers import choose_providers, choose_torch_device, describe_shortfall, describe_torch_shortfall
from .torchscript_network import TorchScriptNetwork

_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_NO_NETWORK = {
    b"version https://git-lfs": "is a Git LFS pointer: download the file itself",
    b"<": "is a web page (a failed download): download the file itself",
    b"{": "is text: download the file itself",
    _PICKLE: "is a PyTorch checkpoint, not a TorchScript network: get the ONNX file",
    b"GGUF": "is a GGUF file: get the ONNX file",
}


def load_network(path: str | Path, kind: Kind, asked: Sequence[str] | None) -> tuple[Network, str | None]:
    """Load a network from an ONNX or TorchScript file, told apart by content.

    Args:
        path: The file.
        kind: Which network it should be.
        asked: Providers, by onnxruntime's names; None leaves the choice.

    Returns:
        The network, and why it runs in a slower place than it could.

    Raises:
        InputError: The file cannot be used, a provider is not installed, or onnxruntime is missing.
    """
    path = Path(path)
    if _read_head(path, kind).startswith(_ZIP):
        device = choose_torch_device(asked)
        return TorchScriptNetwork(path, kind, device), describe_torch_shortfall(device, asked)
    runtime = import_onnxruntime()
    network = OnnxNetwork(path, kind, choose_providers(asked, runtime.get_available_providers()))
    return network, describe_shortfall(network.place, network.failures, asked, runtime.__version__)


def _read_head(path: Path, kind: Kind) -> bytes:
    """The first bytes of a file that can be a network.

    Raises:
        InputError: There is no such file, or it is no network for certain.
    """
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the file of {kind.title}, {kind.file}, in it.")
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path} of {kind.title}: check the path, or get {kind.file}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}): check its permissions.") from error
    if not head:
        raise InputError(f"{path} is empty: download {kind.file} again.")
    for start, what in _NO_NETWORK.items():
        if head.lstrip().startswith(start):
            raise InputError(f"{path} {what}, {kind.file}.")
    return head
