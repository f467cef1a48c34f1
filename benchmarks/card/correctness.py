"""Whether a card computes what the CPU does."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from unet import SMALL

from unianimate_core import Conditions, UNet, load_unet, sample
from unianimate_core.ssm import Branch, scan_implementations, selective_scan
from unianimate_core.unet.loading import with_temporal

from .setup import DTYPES, TINY, Row, Setup, fault_of, name_of, relative_error

TESTS = Path(__file__).parents[2] / "tests"
GUIDANCE = 2.5
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
SCAN_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


@torch.no_grad()
def correctness(setup: Setup) -> Iterator[Row]:
    """The device against golden data and against float32 on the CPU, network and scan."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    dtypes = DTYPES[:1] if setup.tiny else DTYPES
    sys.path.append(str(TESTS))
    for dtype in dtypes:
        yield from _attempts(_against_golden_data(setup, dtype), "golden data", dtype)
    for dtype in dtypes:
        yield from _attempts(_mamba(setup, dtype), "network with Mamba", dtype)
    for name, fault in scan_implementations(setup.device, torch.float32).items():
        for dtype in dtypes:
            if fault:
                yield {"check": f"scan by {name}", "dtype": name_of(dtype), "left_out": fault}
            else:
                yield from _attempts(_scan(setup, name, dtype), f"scan by {name}", dtype)


def _mamba(setup: Setup, dtype: torch.dtype) -> Iterator[Row]:
    """A small network with temporal Mamba, whole and in groups, against itself on the CPU in float32."""
    base = TINY if setup.tiny else SMALL
    config = with_temporal(base, base, "mamba")
    torch.manual_seed(0)
    reference = UNet(config).eval().requires_grad_(False)
    x, context = torch.randn(1, config.in_channels, 9, 16, 12), torch.randn(1, 81, config.context_width)
    timestep = torch.tensor([521])
    expected = reference.unified(x, timestep, context)
    unet = load_unet(reference.state_dict(), dtype, setup.device)
    given = x.to(setup.device, dtype), timestep.to(setup.device), context.to(setup.device, dtype)
    made = unet.unified(*given)
    yield _compared("network with Mamba, to the CPU in float32", dtype, made, expected)
    unet.working_bytes = 1 << 16
    yield _compared("network with Mamba in small groups, to it whole", dtype, unet.unified(*given), made)


def _against_golden_data(setup: Setup, dtype: torch.dtype) -> Iterator[Row]:
    """The public implementation's outputs for synthetic weights and inputs."""
    from safetensors.torch import load_file
    from synthetic import GOLDEN, golden_weights, synth

    unet = load_unet(golden_weights(), dtype, setup.device)
    text, image = synth("zero_y", (1, 77, 1024)), synth("image", (1, 1, 1024))[:, 0]

    def conditions(frames: int, height: int, width: int) -> Conditions:
        pose = synth("dwpose", (1, 3, frames + 1, 8 * height, 8 * width)).sigmoid().transpose(1, 2)
        reference = synth("randomref", (1, 4, 1, height, width))[:, :, 0]
        return Conditions(text, image, pose[:, 1:], reference, pose[:, 0])

    present = conditions(5, 16, 12)
    first_frame = synth("local_image", (1, 3, 1, 128, 96)).sigmoid()[:, :, 0]
    given = {"cond": present, "uncond": present.unconditional()}
    given["first_frame"] = replace(present, first_frame=first_frame)
    golden = load_file(GOLDEN / "unet_small.safetensors")
    latent = synth("x", (1, 4, 5, 16, 12)).to(setup.device)
    for output, conditions_given in given.items():
        v = unet(latent, torch.tensor([521], device=setup.device), **vars(conditions_given))
        yield _compared(f"network, golden {output}", dtype, v, golden[f"out.{output}"])
    if setup.tiny:
        return
    golden = load_file(GOLDEN / "sampling_small.safetensors")
    x0 = sample(unet, golden["xT"].to(setup.device), conditions(20, 12, 8), steps=10, guidance=GUIDANCE)
    yield _compared("DDIM of 10 steps, golden", dtype, x0, golden["short"], 2 * TOLERANCE[dtype])


def _scan(setup: Setup, name: str, dtype: torch.dtype) -> Iterator[Row]:
    """One implementation of the scan and its gradients against the plain one in float64."""
    rows, frames, channels, states = (2, 5, 8, 4) if setup.tiny else (48, 65, 128, 16)
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(setup.device, dtype)

    shapes = ((rows, frames, channels),) * 2 + ((channels, states),) + ((rows, frames, states),) * 2 + ((channels,),)
    tensors = [normal(*shape) for _ in range(2) for shape in shapes]
    for decay in tensors[2::6]:
        decay.abs_().neg_()
    tensors.append(normal(*shapes[0]))
    dy = normal(*shapes[0])

    def run(implementation: str, dtype: torch.dtype) -> list[Tensor]:
        leaves = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
        with torch.enable_grad():
            y = selective_scan(Branch(*leaves[:6]), Branch(*leaves[6:12]), leaves[12], implementation)
        return [y.detach(), *torch.autograd.grad(y, leaves, dy.to(dtype))]

    made, expected = run(name, dtype), run("torch", torch.float64)
    limit = SCAN_TOLERANCE[dtype]
    yield _compared(f"scan by {name}, to float64", dtype, made[0], expected[0], limit)
    worst = max(range(1, len(made)), key=lambda index: relative_error(made[index], expected[index]))
    yield _compared(f"its gradients, to float64: the worst, {worst}", dtype, made[worst], expected[worst], limit)


def _attempts(rows: Iterator[Row], check: str, dtype: torch.dtype) -> Iterator[Row]:
    """The rows; the last says why there are no more, where one fails."""
    try:
        yield from rows
    except Exception as error:
        yield {"check": check, "dtype": name_of(dtype), "error": fault_of(error)}


def _compared(check: str, dtype: torch.dtype, made: Tensor, expected: Tensor, tolerance: float | None = None) -> Row:
    error, tolerance = relative_error(made, expected), tolerance or TOLERANCE[dtype]
    row = {"check": check, "dtype": name_of(dtype), "tolerance": tolerance, "passed": error <= tolerance}
    return row | {"difference": error if math.isfinite(error) else str(error)}
