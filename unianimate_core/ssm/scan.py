"""The selective scan: one interface, three implementations, picked when it runs.

To autograd and to the compiler the scan is one operation. Its backward pass keeps nothing but the inputs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError, first_line
from . import plain
from .branch import Branch, branches_of

log = logging.getLogger(__name__)

IMPLEMENTATIONS = ("mamba_ssm", "triton", "torch")
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def selective_scan(
    forward: Branch, backward: Branch | None = None, z: Tensor | None = None, implementation: str = "auto"
) -> Tensor:
    """Scan sequences along their frames in one direction or in both (arXiv 2312.00752; 2401.09417, algorithm 1).

    All arithmetic is in float32, or in float64 where the input is. States begin at zero.

    Args:
        forward: Scanned from the first frame to the last.
        backward: Scanned from the last frame to the first, its tensors in the frames' own order; the two outputs are
            summed. None for one direction.
        z: n f c; the output is multiplied with SiLU(z). None for no gate.
        implementation: ``mamba_ssm``, ``triton``, ``torch``; ``auto`` takes the first that runs here.

    Returns:
        n f c, contiguous, in the precision of ``forward.u``.

    Raises:
        InputError: There is no such implementation.
    """
    if implementation not in (*IMPLEMENTATIONS, "auto"):
        raise InputError(f"implementation is {implementation!r}: choose auto, {', '.join(IMPLEMENTATIONS)}")
    branches = [branch for branch in (forward, backward) if branch is not None]
    if implementation == "auto" and not torch.compiler.is_compiling():
        implementation = _choice(forward.u.device, forward.u.dtype)
    if implementation == "mamba_ssm":  # has an autograd of its own, and no compiler sees through it
        with torch.autocast(forward.u.device.type, enabled=False):
            return _module(implementation).scan(branches, z)
    return _scan([tensor for branch in branches for tensor in branch], z, implementation)


def describe_scan(
    device: torch.device | str, dtype: torch.dtype = torch.float32, names: Sequence[str] = IMPLEMENTATIONS
) -> str:
    """Which implementation ``auto`` takes on a device from those named, and why not those before it."""
    known = scan_implementations(torch.device(device), dtype)
    faults = {name: fault for name, fault in known.items() if name in names}
    chosen = next(name for name, fault in faults.items() if not fault)
    passed = [f"{name}: {fault}" for name, fault in faults.items() if fault]
    return f"{chosen} on {device}" + (f" ({'; '.join(passed)})" if passed else "")


@cache
def scan_implementations(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Why each implementation cannot run on a device, in the order of choice; an empty text where it can.

    The kernels are tried once on a tiny scan: one that is installed may still lack a compiler, or fit another card.
    """
    return {name: _fault(name, device, dtype) for name in IMPLEMENTATIONS}


def _fault(name: str, device: torch.device, dtype: torch.dtype) -> str:
    if name == "torch":
        return ""
    if device.type != "cuda":
        return f"runs on CUDA, not on {device.type}"
    if dtype not in KERNEL_DTYPES:
        return f"does not take {str(dtype).removeprefix('torch.')}"
    try:
        module = _module(name)
    except ImportError as error:
        return f"not installed ({first_line(error)})"
    except Exception as error:  # built for another torch or another system
        return f"cannot start ({first_line(error)})"
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 3, 16), (2, 3, 16), (16, 16), (2, 3, 16), (2, 3, 16), (16,))
    tensors = [torch.rand(shape, generator=generator).to(device, dtype) for shape in shapes]
    branch = Branch(*tensors)._replace(A=-tensors[2])
    try:
        difference = (module.scan([branch, branch], None) - plain.scan([branch, branch], None)).abs().max()
        return "" if difference < (1e-3 if dtype == torch.float32 else 0.1) else f"wrong by {difference:.2g} here"
    except Exception as error:
        return f"fails here ({first_line(error)})"


def _module(name: str) -> ModuleType:
    match name:
        case "mamba_ssm":
            from . import mamba_kernel as module
        case "triton":
            from . import triton_scan as module
        case _:
            module = plain
    return module


@cache
def _choice(device: torch.device, dtype: torch.dtype, names: Sequence[str] = IMPLEMENTATIONS) -> str:
    log.info("UniAnimate: selective scan: %s", describe_scan(device, dtype, names))
    return next(name for name, fault in scan_implementations(device, dtype).items() if name in names and not fault)


def _implementation(name: str, u: Tensor) -> ModuleType:
    return _module(_choice(u.device, u.dtype, ("triton", "torch")) if name == "auto" else name)


@torch.library.custom_op(
    "unianimate::selective_scan",
    mutates_args=(),
    schema="(Tensor[] tensors, Tensor? z, str implementation) -> Tensor",
)
def _scan(tensors: Sequence[Tensor], z: Tensor | None, implementation: str) -> Tensor:
    with torch.autocast(tensors[0].device.type, enabled=False):
        return _implementation(implementation, tensors[0]).scan(branches_of(tensors), z)


@_scan.register_fake
def _(tensors: Sequence[Tensor], z: Tensor | None, implementation: str) -> Tensor:
    return tensors[0].new_empty(tensors[0].shape)


@torch.library.custom_op(
    "unianimate::selective_scan_backward",
    mutates_args=(),
    schema="(Tensor dy, Tensor[] tensors, Tensor? z, str implementation) -> Tensor[]",
)
def _scan_backward(dy: Tensor, tensors: Sequence[Tensor], z: Tensor | None, implementation: str) -> list[Tensor]:
    """The gradients of ``tensors``, then that of ``z``."""
    with torch.autocast(dy.device.type, enabled=False):
        module, branches = _implementation(implementation, tensors[0]), branches_of(tensors)
        gate = []
        if z is not None:
            # The ungated output is made again rather than kept from the forward pass.
            wide = z.to(torch.promote_types(z.dtype, torch.float32))
            sigmoid = torch.sigmoid(wide)
            slope = sigmoid * (1 + wide * (1 - sigmoid))
            gate = [(dy * module.scan(branches, None) * slope).to(z.dtype).contiguous()]
            dy = (dy * F.silu(wide)).to(dy.dtype)
        gradients = [part for branch in module.scan_backward(dy, branches) for part in branch]
    return [part.to(tensor.dtype) for part, tensor in zip(gradients, tensors, strict=True)] + gate


@_scan_backward.register_fake
def _(dy: Tensor, tensors: Sequence[Tensor], z: Tensor | None, implementation: str) -> list[Tensor]:
    return [tensor.new_empty(tensor.shape) for tensor in (*tensors, *(() if z is None else (z,)))]


def _keep(ctx, inputs, output) -> None:
    tensors, z, ctx.implementation = inputs
    ctx.gated = z is not None
    ctx.save_for_backward(*tensors, *((z,) if ctx.gated else ()))


def _gradients(ctx, dy):
    *tensors, z = ctx.saved_tensors if ctx.gated else (*ctx.saved_tensors, None)
    gradients = _scan_backward(dy, tensors, z, ctx.implementation)
    return gradients[: len(tensors)], gradients[-1] if ctx.gated else None, None


_scan.register_autograd(_gradients, setup_context=_keep)
