"""Reads checkpoints safely and tells what they hold.

Two formats, told apart by content and never by the file's name: safetensors, and PyTorch's pickles read with
``weights_only=True`` and nothing else. No tensor is held twice: files are memory-mapped, and a conversion goes
through the file in small groups.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import InputError

GROUP_BYTES = 64 << 20
PREFIXES = ("", "module.", "model.diffusion_model.", "diffusion_model.")


def read_tensors(
    path: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read all tensors of a checkpoint file.

    Args:
        path: A ``.safetensors`` file or a PyTorch pickle, with or without a ``state_dict`` level.
        dtype: Convert floating-point tensors to this; None keeps the file's.
        device: Where the tensors go.

    Returns:
        The tensors by name (memory-mapped where nothing is converted), and the file's text metadata.

    Raises:
        InputError: The file is missing, empty, truncated, not a checkpoint, or holds code.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no checkpoint file at {path}: check the path")
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512)
    if size == 0:
        raise InputError(f"{path} is empty (0 bytes): download or copy it again")
    if head[:2] == b"PK" or head[:1] == b"\x80":
        return _read_pickle(path, dtype, device), {}
    if len(head) >= 9 and head[8:9] == b"{":
        return _read_safetensors(path, size, struct.unpack("<Q", head[:8])[0], dtype, device)
    raise InputError(f"{path} is not a checkpoint: {_describe_bytes(head)}")


def save_tensors(tensors: Mapping[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file under a temporary name, then rename it: a file that is there is whole."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial, metadata=metadata)
        partial.chmod(0o644)  # safetensors leaves it to the owner alone
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot write {path}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def unet_tensors(tensors: dict[str, torch.Tensor], source: str = "the checkpoint") -> dict[str, torch.Tensor]:
    """The U-Net's tensors under their plain names.

    Args:
        tensors: As read; a wrapper's prefix (``module.``, ``model.diffusion_model.``) is taken off.
        source: How messages call the checkpoint.

    Raises:
        InputError: It is another kind of model; the message says which.
    """
    for prefix in PREFIXES:
        if f"{prefix}dwpose_embedding.0.weight" in tensors:
            return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    raise InputError(
        f"{source} is not a UniAnimate model: it looks like {describe(tensors).kind}. "
        "Choose the UniAnimate checkpoint (its tensors include dwpose_embedding.0.weight)"
    )


def check_finite(tensors: Mapping[str, torch.Tensor], source: str = "the checkpoint") -> None:
    """Raise InputError where a weight is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.device.type != "meta":
            total = tensor.sum(dtype=torch.float32) if tensor.element_size() > 1 else tensor.float().sum()
            if not torch.isfinite(total) and not bool(torch.isfinite(tensor.float()).all()):
                bad = int((~torch.isfinite(tensor.float())).sum())
                raise InputError(
                    f"{source} is damaged: {bad} of {tensor.numel()} values of {name} are NaN or infinite. "
                    "Download it again, or convert again from the original"
                )


@dataclass(frozen=True)
class Description:
    """What a checkpoint is, in words."""

    kind: str
    parameters: int
    precision: str

    def __str__(self) -> str:
        return f"{self.kind}; {self.parameters / 1e6:.1f} M parameters; {self.precision}"


def describe(tensors: Mapping[str, torch.Tensor]) -> Description:
    """Say what a checkpoint holds, from its tensors' names alone."""
    bytes_by_dtype: dict[str, int] = {}
    for tensor in tensors.values():
        name = str(tensor.dtype).removeprefix("torch.")
        bytes_by_dtype[name] = bytes_by_dtype.get(name, 0) + tensor.numel() * tensor.element_size()
    precision = ", ".join(sorted(bytes_by_dtype, key=lambda name: -bytes_by_dtype[name])) or "no tensors"
    kind = next((text for text, matches in _KINDS if matches(tensors.keys())), "an unknown model")
    if kind == "an unknown model" and tensors:
        kind += f" (first tensors: {', '.join(list(tensors)[:3])})"
    return Description(kind, sum(tensor.numel() for tensor in tensors.values()), precision)


def _read_safetensors(
    path: Path, size: int, header: int, dtype: torch.dtype | None, device: str | torch.device
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if header + 8 > size:
        raise InputError(f"{path} is truncated: header of {header + 8} bytes, file of {size}. Download it again")
    tensors: dict[str, torch.Tensor] = {}
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            mapped = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
        as_stored = all(dtype in (None, t.dtype) or not t.is_floating_point() for t in mapped.values())
        if as_stored and torch.device(device).type == "cpu":
            return mapped, metadata
        names = list(mapped)
        del mapped
        # A mapping's pages count as resident until it is closed: reopen for every group.
        while len(tensors) < len(names):
            read = 0
            with safe_open(path, framework="pt") as file:
                for name in names[len(tensors) :]:
                    tensor = file.get_tensor(name)
                    read += tensor.numel() * tensor.element_size()
                    tensors[name] = _convert(tensor, dtype, device)
                    if read > GROUP_BYTES:
                        break
    except SafetensorError as error:
        raise InputError(f"{path} is truncated or damaged ({size} bytes; {error}). Download it again") from error
    return tensors, metadata


def _read_pickle(path: Path, dtype: torch.dtype | None, device: str | torch.device) -> dict[str, torch.Tensor]:
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("Please file an issue")[0].strip().splitlines()
        raise InputError(
            f"{path} was refused: it holds Python objects or code beside tensors, which could do anything when loaded "
            f"({next((line.strip() for line in reason if 'GLOBAL' in line), reason[0] if reason else error)}). "
            "Get a .safetensors version from a source you trust"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise InputError(f"{path} is a truncated or damaged PyTorch file ({error}). Download it again") from error
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {
            str(name): value.to(device=device, dtype=dtype if value.is_floating_point() else None)
            for name, value in content.items()
            if isinstance(value, torch.Tensor)
        }
    if not tensors:
        raise InputError(f"{path} holds no tensors (a {type(content).__name__}): it is not a model checkpoint")
    return tensors


def _convert(tensor: torch.Tensor, dtype: torch.dtype | None, device: str | torch.device) -> torch.Tensor:
    """A tensor of its own memory, so that the file's mapping can be closed."""
    converted = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
    return converted.clone() if converted is tensor else converted


def _describe_bytes(head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        return "it is a web page (a failed download). Download the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer. Run `git lfs pull`, or download the file itself"
    if head[:4] == b"GGUF":
        return "it is a GGUF file, which is not supported"
    if b"onnx" in head or b"pytorch" in head[:64]:
        return "it is an ONNX network (a pose detector?), not U-Net weights"
    return f"it begins with {head[:8]!r}, neither safetensors nor a PyTorch file. Check that the download is complete"


def _has(*parts: str) -> Callable[[Iterable[str]], bool]:
    return lambda names: all(any(part in name for name in names) for part in parts)


_KINDS: tuple[tuple[str, Callable[[Iterable[str]], bool]], ...] = (
    ("a LoRA", _has("lora_down")),
    ("a LoRA", _has("lora_A")),
    ("a LoRA", _has("lora_up")),
    ("a UniAnimate model with temporal Mamba", _has("dwpose_embedding.0.weight", "A_log")),
    ("a UniAnimate model with temporal transformers", _has("dwpose_embedding.0.weight", "transformer_blocks")),
    ("a ControlNet", _has("control_model.")),
    ("a ControlNet", _has("controlnet_cond_embedding")),
    ("an AnimateDiff motion module", _has("motion_modules")),
    ("a Stable Diffusion XL checkpoint", _has("model.diffusion_model.label_emb")),
    ("a Stable Diffusion 2 checkpoint", _has("model.diffusion_model.", "cond_stage_model.model.")),
    ("a Stable Diffusion 1.5 checkpoint", _has("model.diffusion_model.", "cond_stage_model.transformer.")),
    ("a Stable Diffusion U-Net in ComfyUI's layout", _has("diffusion_model.input_blocks.")),
    ("a diffusers U-Net", _has("down_blocks.0.resnets", "mid_block", "conv_in.weight", "time_embedding")),
    ("a TAESD autoencoder", _has("taesd_decoder.")),
    ("a VAE", _has("first_stage_model.decoder.")),
    ("a VAE", _has("decoder.conv_in.weight")),
    ("an OpenCLIP model", _has("visual.conv1.weight")),
    ("a CLIP vision model", _has("vision_model.encoder.layers")),
    ("a text encoder", _has("text_model.encoder.layers")),
    ("a Flux model", _has("double_blocks.")),
    ("a video or image U-Net without UniAnimate's conditions", _has("input_blocks.0.0.weight")),
)
