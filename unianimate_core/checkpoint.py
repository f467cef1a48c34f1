"""Reads checkpoints safely and tells what they hold.

Two formats, told apart by content and never by the file's name: safetensors, and PyTorch's pickles read with
``weights_only=True`` and nothing else. No tensor is held twice: files are memory-mapped, and a conversion goes
through the file in small groups.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .errors import InputError
from .output import replacing

GROUP_BYTES = 64 << 20
BARE = (".A_log", ".A_b_log", ".D", ".D_b")  # endings of Mamba's tensors that belong to no layer
PREFIXES = ("", "module.", "model.diffusion_model.", "diffusion_model.")
MAX_HEADER = 100 << 20  # bytes, by the definition of safetensors
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how PyTorch's files begin since 1.6, and before

Tensors = dict[str, torch.Tensor]


def read_tensors(
    path: str | Path, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> tuple[Tensors, dict[str, str]]:
    """Read all tensors of a checkpoint file.

    Args:
        path: A ``.safetensors`` file or a PyTorch pickle, with or without a ``state_dict`` level.
        dtype: Convert floating-point tensors to this; None keeps the file's. Of float8, decays and skips of Mamba
            become float16: they are few, and no layer casts them.
        device: Where the tensors go.

    Returns:
        The tensors by name (memory-mapped where nothing is converted), and the file's text metadata.

    Raises:
        InputError: The file is missing, empty, truncated, not a checkpoint, or holds code.
    """
    path = Path(path)
    head = _read_head(path)
    pickled = not _begins_safetensors(head)
    # PyTorch cannot map its old format, and opens a path that ends in .safetensors as such, whatever it holds.
    mapped = not pickled or (head.startswith(ZIP) and path.suffix != ".safetensors")

    def read() -> tuple[Tensors, dict[str, str]]:
        return _read_pickle(path, mapped) if pickled else _read_safetensors(path)

    tensors, metadata = read()
    as_stored = all(dtype in (None, t.dtype) or not t.is_floating_point() for t in tensors.values())
    if as_stored and torch.device(device).type == "cpu":
        return tensors, metadata
    converted, since_opened = {}, 0
    for name in list(tensors):
        tensor = tensors.pop(name)
        wide = dtype is not None and dtype.itemsize == 1 and name.endswith(BARE)
        converted[name] = _convert(tensor, torch.float16 if wide else dtype, device)
        since_opened += tensor.nbytes
        if mapped and since_opened > GROUP_BYTES:
            # A mapping's pages count as resident until it is closed: drop all that refers to it, and map anew.
            del tensor, tensors
            tensors, since_opened = read()[0], 0
    return converted, metadata


def save_tensors(tensors: Mapping[str, torch.Tensor], path: str | Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file under a temporary name, then rename it: a file that is there is whole.

    Raises:
        InputError: It cannot be written; what was there before is still there.
    """
    path = Path(path)
    with replacing(path) as partial:
        partial.touch()
        mode = partial.stat().st_mode
        try:
            save_file(_apart(tensors), partial, metadata=metadata)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        partial.chmod(mode)  # safetensors leaves a file to its owner alone


def unwrap(content: object, source: str = "the checkpoint") -> Tensors:
    """The tensors of what a pickle held: without a ``state_dict`` level, and without entries that are no tensors.

    Raises:
        InputError: There are none.
    """
    while isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    entries = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(name): value.detach() for name, value in entries if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{source} holds no tensors (but a {type(content).__name__}): it is not a model checkpoint")
    return tensors


def is_safetensors(path: str | Path) -> bool:
    """Whether a file is of that format, by its content."""
    return _begins_safetensors(_read_head(Path(path)))


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


def check_shapes(given: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], what: str) -> None:
    """Compare a checkpoint's tensors with those of the network that they are for.

    Args:
        given: The checkpoint's.
        wanted: The network's, which may be on the ``meta`` device.
        what: Begins the message: which file is not which model.

    Raises:
        InputError: Tensors are missing, left over, or of another shape; the message names the first of each.
    """
    faults = {
        "missing": [name for name in wanted if name not in given],
        "left over": [name for name in given if name not in wanted],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            for name, tensor in given.items()
            if name in wanted and tensor.shape != wanted[name].shape
        ],
    }
    shown = [
        f"{len(names)} {fault} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for fault, names in faults.items()
        if names
    ]
    if shown:
        raise InputError(f"{what}: tensors {'; '.join(shown)}. Download it again, or choose another file")


def check_finite(tensors: Mapping[str, torch.Tensor], source: str = "the checkpoint") -> None:
    """Raise InputError where a weight is NaN or infinite."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.is_meta:
            continue
        values = tensor if tensor.element_size() > 1 else tensor.float()  # float8 has no arithmetic
        if torch.isfinite(values.sum(dtype=torch.float32)):  # a finite tensor's sum may overflow, but few do
            continue
        bad = values.numel() - int(torch.isfinite(values).sum())
        if bad:
            overflow = tensor.dtype == torch.float16 and not torch.isnan(values).any()
            what = "infinite" if overflow else "NaN or infinite"
            advice = (
                "float16 ends at 65504, so convert the original with bf16 or fp32"
                if overflow
                else "the file is damaged, so download it again, or convert it again from the original"
            )
            raise InputError(f"{source}: {bad} of {values.numel()} values of {name} are {what}; {advice}")


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


def _read_head(path: Path) -> bytes:
    """The first bytes of a file that can be a checkpoint."""
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder: give the checkpoint file in it")
        if not path.exists():
            raise InputError(f"no checkpoint file at {path}: check the path")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror or error}): check its permissions") from error
    if not head:
        raise InputError(f"{path} is empty (0 bytes): download or copy it again")
    if _begins_safetensors(head):
        header = 8 + struct.unpack("<Q", head[:8])[0]
        if header > size:
            raise InputError(f"{path} is truncated: it has {size} bytes, its header alone {header}. Download it again")
    elif not head.startswith((ZIP, PICKLE)):
        raise InputError(f"{path} ({size} bytes) is not a checkpoint: {_describe_bytes(head)}")
    return head


def _begins_safetensors(head: bytes) -> bool:
    """The length of a JSON header, 8 bytes that may begin as a pickle does; then the header."""
    return head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= MAX_HEADER


def _read_safetensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no iterator)
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}). Download it again") from error
    if not tensors:
        raise InputError(f"{path} holds no tensors: it is not a model checkpoint")
    return tensors, metadata


def _read_pickle(path: Path, mapped: bool) -> tuple[Tensors, dict[str, str]]:
    try:
        with path.open("rb") as file:
            content = torch.load(path if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryError:
        raise
    except Exception as error:  # damaged data raises nearly anything
        if refused := re.search(r"GLOBAL (\S+)", str(error)):
            raise InputError(
                f"{path} was refused: beside tensors it holds Python objects or code ({refused[1]}), which could do "
                "anything when loaded. Get a .safetensors version from a source you trust"
            ) from error
        reason = (str(error) or type(error).__name__).splitlines()[0].split(". ")[0]
        raise InputError(
            f"{path} is truncated, damaged, or no PyTorch checkpoint ({reason}). Download it again, or get a "
            ".safetensors version"
        ) from error
    return unwrap(content, str(path)), {}


def _convert(tensor: torch.Tensor, dtype: torch.dtype | None, device: str | torch.device) -> torch.Tensor:
    """A tensor of its own memory, so that the file's mapping can be closed."""
    converted = tensor.to(device=device, dtype=dtype if tensor.is_floating_point() else None)
    return converted.clone() if converted is tensor else converted


def _apart(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Contiguous tensors of which no two share memory, as safetensors wants them."""
    apart: Tensors = {}
    ends: dict[torch.device, int] = {}
    for name, tensor in sorted(tensors.items(), key=lambda item: item[1].data_ptr()):
        if not tensor.is_contiguous():
            apart[name] = tensor.contiguous()
            continue
        start, end = tensor.data_ptr(), ends.get(tensor.device, 0)
        apart[name] = tensor.clone() if start < end else tensor
        ends[tensor.device] = max(end, start + tensor.nbytes)
    return apart


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
    ("a LoRA", _has("lora")),
    ("a LoRA (LyCORIS)", _has("hada_w1")),
    ("a LoRA (LyCORIS)", _has("lokr_w1")),
    ("a UniAnimate model with temporal Mamba", _has("dwpose_embedding.0.weight", "A_log")),
    ("a UniAnimate model with temporal transformers", _has("dwpose_embedding.0.weight", "transformer_blocks")),
    ("a ControlNet", _has("control_model.")),
    ("a ControlNet", _has("input_hint_block.")),
    ("a ControlNet", _has("controlnet_cond_embedding")),
    ("an AnimateDiff motion module", _has("motion_modules")),
    ("a Flux model", _has("double_blocks.", "single_blocks.")),
    ("a Stable Diffusion 3 model", _has("joint_blocks.")),
    ("a Wan video model", _has("head.modulation")),
    ("a Stable Video Diffusion checkpoint", _has("model.diffusion_model.", "time_stack")),
    ("a Stable Diffusion XL checkpoint", _has("model.diffusion_model.label_emb", "conditioner.embedders.")),
    ("a Stable Diffusion 2 checkpoint", _has("model.diffusion_model.", "cond_stage_model.model.")),
    ("a Stable Diffusion 1.5 checkpoint", _has("model.diffusion_model.", "cond_stage_model.transformer.")),
    ("a Stable Diffusion U-Net in ComfyUI's layout", _has("diffusion_model.input_blocks.")),
    ("a diffusers U-Net", _has("down_blocks.0.resnets", "mid_block", "conv_in.weight", "time_embedding")),
    ("a TAESD autoencoder", _has("taesd_decoder.")),
    ("a TAESD autoencoder", _has("encoder.layers.0.weight", "decoder.layers.0.weight")),
    ("a VAE", _has("first_stage_model.decoder.")),
    ("a VAE", _has("decoder.conv_in.weight")),
    ("an OpenCLIP model", _has("visual.conv1.weight")),
    ("a CLIP vision model", _has("vision_model.encoder.layers")),
    ("a text encoder", _has("text_model.encoder.layers")),
    ("a text encoder", _has("SelfAttention.relative_attention_bias")),
    ("a video or image U-Net without UniAnimate's conditions", _has("input_blocks.0.0.weight")),
)
