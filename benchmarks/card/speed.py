"""Time, speed and memory of the network on a card."""

from __future__ import annotations

import gc
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from typing import Any
from unittest import mock

import torch
from scan import copy_rate, machine
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten
from torch.utils.flop_counter import FlopCounterMode
from unet import matmul_rate

from unianimate_core import Conditions, UNet, sample
from unianimate_core.unet.config import PIXELS_PER_LATENT
from unianimate_core.unet.memory import LEAST_WORKING_BYTES, activation_bytes

from .setup import DTYPES, Row, Setup, attempt, name_of, network, relative_error

GUIDANCE = 2.5
SIZE, LARGE_SIZE = (768, 512), (1216, 768)
FRAMES = (32, 64, 128, 256, 360)
CLIP_FRAMES, CLIP_STEPS = 32, 30
# Bytes that must do for the network, weights and all: 32 frames, 32 large ones, 360 frames in one pass.
LIMITS = {(32, SIZE): 6 * 10**9, (32, LARGE_SIZE): 10 * 10**9, (360, SIZE): 24 * 10**9}


def about(setup: Setup) -> Iterator[Row]:
    """The machine, its versions and its rates: of a copy, and of matrix products in each precision."""
    row: Row = dict(machine(setup.device.type))
    if setup.on_card:
        card = torch.cuda.get_device_properties(setup.device)
        row |= {"memory": card.total_memory, "capability": f"{card.major}.{card.minor}", "cuda": torch.version.cuda}
        row |= {"cudnn": torch.backends.cudnn.version(), "multiprocessors": card.multi_processor_count}
    yield row | {"copy_bytes_per_second": copy_rate(setup.device.type)}
    for dtype in [torch.float32] if setup.tiny else DTYPES:
        yield {"dtype": name_of(dtype), "matmul_flops_per_second": matmul_rate(setup.device, dtype)}


def steps(setup: Setup, temporal: str, dtype: torch.dtype) -> Iterator[Row]:
    """Time, speed and memory of a guided step by length; what the network may hold on the way is its own choice."""
    dtype = torch.float32 if setup.tiny else dtype
    unet = network(setup, temporal, dtype)
    for frames, size in [*((frames, SIZE) for frames in (FRAMES[-1:] if setup.tiny else FRAMES)), (32, LARGE_SIZE)]:
        what = {"temporal": temporal, "dtype": name_of(dtype), "frames": frames, "size": "x".join(map(str, size))}
        yield what | attempt(lambda frames=frames, size=size: guided_step(setup, unet, frames, size))


def limits(setup: Setup, temporal: str) -> Iterator[Row]:
    """The same on a card with no more memory than the goal allows, weights and all."""
    unet = network(setup, temporal, torch.float32 if setup.tiny else torch.float16)
    for (frames, size), limit in LIMITS.items():
        what = {"temporal": temporal, "frames": frames, "size": "x".join(map(str, size)), "limit": limit}
        with smaller_card(setup, limit):
            row = attempt(lambda frames=frames, size=size: guided_step(setup, unet, frames, size))
        yield what | row


@contextmanager
def smaller_card(setup: Setup, limit: int) -> Iterator[None]:
    """PyTorch gets no more bytes than ``limit``, and is told so where it asks what is free."""
    if not setup.on_card:
        yield
        return

    def free_and_total(*_: object) -> tuple[int, int]:
        return limit - torch.cuda.memory_reserved(), limit

    total = torch.cuda.get_device_properties(setup.device).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total))
    try:
        with mock.patch.object(torch.cuda, "mem_get_info", free_and_total):
            yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def clip(setup: Setup, way: str) -> Iterator[Row]:
    """A clip of 30 steps: ``plain``, ``graphs`` (each pass a CUDA graph), ``compiled``, ``compiled-graphs``."""
    dtype = torch.float32 if setup.tiny else torch.bfloat16
    unet = network(setup, "transformer", dtype)
    what = {"way": way, "dtype": name_of(dtype), "frames": CLIP_FRAMES, "size": "x".join(map(str, SIZE))}
    yield what | attempt(lambda: _clip(setup, unet, way))


def _clip(setup: Setup, unet: UNet, way: str) -> Row:
    conditions, x_T = _inputs(setup, CLIP_FRAMES, SIZE)

    def timed(steps: int) -> tuple[Tensor, float]:
        setup.synchronise()
        start = time.perf_counter()
        x0 = sample(unet, x_T, conditions, steps=steps, guidance=GUIDANCE)
        setup.synchronise()
        return x0, time.perf_counter() - start

    if "graphs" in way and not setup.on_card:
        return {"left_out": "CUDA graphs need CUDA"}
    expected, _ = timed(1)
    match way:
        case "graphs":
            unet.denoise = Graphed(unet.denoise)
        case "compiled":
            unet.unified = torch.compile(unet.unified, backend="eager" if setup.tiny else "inductor")
        case "compiled-graphs":
            unet.unified = torch.compile(unet.unified, mode="reduce-overhead")
    made, first = timed(1)
    row: Row = {"first_step_seconds": first, "difference": relative_error(made, expected)}
    if way.startswith("compiled"):
        row["graph_breaks"] = sum(torch._dynamo.utils.counters["graph_break"].values())
        row["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    timed(2)  # graphs are recorded in the second pass or the third
    _start_counting(setup)
    x0, taken = timed(3 if setup.tiny else CLIP_STEPS)
    return row | {"seconds": taken, "finite": _finite(x0)} | _counted(setup)


class Graphed:
    """`UNet.denoise` recorded once for each shape, then replayed: no time is lost between its kernels."""

    def __init__(self, denoise: Callable[..., Tensor]) -> None:
        self.denoise = denoise
        self.recorded: dict[tuple, tuple] = {}

    def __call__(self, latent: Tensor, timestep: Tensor, features: Any) -> Tensor:
        """As the network's own."""
        names = [field.name for field in fields(features)]
        given, structure = tree_flatten((latent, timestep, [getattr(features, name) for name in names]))
        key = tuple(tuple(tensor.shape) for tensor in given)
        if key not in self.recorded:
            held = [tensor.clone() for tensor in given]
            one, two, values = tree_unflatten(held, structure)
            run = partial(self.denoise, one, two, replace(features, **dict(zip(names, values, strict=True))))
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                run()
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                out = run()
            self.recorded[key] = graph, held, out
        graph, held, out = self.recorded[key]
        for target, tensor in zip(held, given, strict=True):
            target.copy_(tensor)
        graph.replay()
        return out.clone()


def guided_step(setup: Setup, unet: UNet, frames: int, size: tuple[int, int]) -> Row:
    """A guided step of DDIM as `sample` does it: seconds, share of the matrix products' rate, memory."""
    conditions, x_T = _inputs(setup, frames, size)
    with FlopCounterMode(display=False) as counter:
        sample(unet, x_T, conditions, steps=1, guidance=GUIDANCE)
    flops, rate = counter.get_total_flops(), matmul_rate(setup.device, unet.dtype)
    ends: list[float] = []

    def mark(*_: object) -> None:
        setup.synchronise()
        ends.append(time.perf_counter())

    _start_counting(setup)
    x0 = sample(unet, x_T, conditions, steps=4 if frames < 128 else 2, guidance=GUIDANCE, callback=mark)
    counted = _counted(setup)
    taken = min(after - before for before, after in itertools.pairwise(ends))
    rate = (rate + matmul_rate(setup.device, unet.dtype)) / 2
    estimate = activation_bytes(
        unet.config, setup.frames(frames), *setup.cells(size), unet.dtype, unet.working_bytes or LEAST_WORKING_BYTES
    )
    return {
        "seconds": taken,
        "flops": flops,
        "matmul_flops_per_second": rate,
        "share_of_matmul": flops / taken / rate,
        "finite": _finite(x0),
        "weight_bytes": sum(parameter.numel() * parameter.element_size() for parameter in unet.parameters()),
        "most_working_bytes": unet.working_bytes,
        "estimated_activation_bytes": estimate,
        **counted,
    }


def _inputs(setup: Setup, frames: int, size: tuple[int, int]) -> tuple[Conditions, Tensor]:
    """All conditions but the first frame, on the CPU as `animate` has them, and x_T."""
    height, width = setup.cells(size)
    frames, config = setup.frames(frames), setup.config
    picture = torch.rand(1, 3, PIXELS_PER_LATENT * height, PIXELS_PER_LATENT * width)
    conditions = Conditions(
        text=torch.randn(1, 77, config.context_width),
        image=torch.randn(1, config.image_width),
        pose=picture[:, None].expand(-1, frames, -1, -1, -1),
        reference=torch.randn(1, config.latent_channels, height, width),
        reference_pose=picture,
    )
    return conditions, torch.randn(1, config.latent_channels, frames, height, width, device=setup.device)


def _start_counting(setup: Setup) -> None:
    if setup.on_card:
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _counted(setup: Setup) -> Row:
    """Bytes at the worst moment, weights and all: in tensors, and as PyTorch took them from the card."""
    if not setup.on_card:
        return {}
    return {"peak_bytes": torch.cuda.max_memory_allocated(), "reserved_bytes": torch.cuda.max_memory_reserved()}


def _finite(x: Tensor) -> bool:
    return bool(x.isfinite().all())
