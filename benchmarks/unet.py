"""Time, speed and memory of one forward pass: `python benchmarks/unet.py --size 512x768 --frames 32 --device cuda`.

Prints the machine's own rate of matrix products, measured in the same run, and how much of it the network reaches.
Weights are random; on a CPU choose a small size, or `--network small`.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from peak import counted_bytes, network_inputs
from torch.utils.flop_counter import FlopCounterMode

from unianimate_core import UNet, UNetConfig, load_unet
from unianimate_core.unet.memory import activation_bytes

SMALL = UNetConfig(
    width=96,
    multipliers=(1, 2, 3),
    residual_blocks=1,
    attention_levels=(True, True, True),
    first_temporal_width=96,
    context_width=256,
)
MATRIX = {"cpu": 1536, "cuda": 8192, "mps": 4096}


def seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a run, after one to warm up."""

    def synchronise() -> None:
        if device.type in ("cuda", "mps"):
            getattr(torch, device.type).synchronize()

    times = []
    for _ in range(repeats + 1):
        synchronise()
        start = time.perf_counter()
        run()
        synchronise()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large square matrix product."""
    side = MATRIX.get(device.type, 2048)
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    return 2 * side**3 / seconds(lambda: matrix @ matrix, device, 10)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="128x192", help="pixels, width x height")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--network", choices=["public", "small"], default="public")
    parser.add_argument("--checkpoint", type=Path, help="real weights instead of random ones")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default=None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--working-mib", type=int, help="what a layer may hold; 0 for no limit, as with gradients")
    options = parser.parse_args()

    device = torch.device(options.device)
    dtype = getattr(torch, options.dtype or ("float32" if device.type == "cpu" else "float16"))
    width, height = (int(side) // 8 for side in options.size.split("x"))
    if options.checkpoint:
        unet = load_unet(options.checkpoint, dtype, device)
    else:
        unet = UNet(UNetConfig() if options.network == "public" else SMALL, dtype=dtype, device=device)
        unet.eval().requires_grad_(False)
    config = unet.config
    if options.working_mib is not None:
        unet.working_bytes = options.working_mib * 2**20 or None

    with torch.no_grad():
        arguments = network_inputs(config, options.frames, height, width, dtype, options.device)
        with FlopCounterMode(display=False) as counter:
            unet.unified(*arguments)
        flops = counter.get_total_flops()
        before = matmul_rate(device, dtype)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            resident = torch.cuda.memory_allocated()
        elapsed = seconds(lambda: unet.unified(*arguments), device, options.repeats)
        rate = (before + matmul_rate(device, dtype)) / 2
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() - resident
        name = torch.cuda.get_device_name()
    else:
        peak = counted_bytes(config, options.frames, height, width, dtype, unet.working_bytes)
        name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    estimate = activation_bytes(config, options.frames, height, width, dtype, unet.working_bytes or sys.maxsize)

    print(f"{name}; torch {torch.__version__}; {dtype}; {options.frames} frames of {options.size}")
    print(f"one forward pass: {elapsed:.3f} s, {flops / 1e12:.3f} TFLOP, {flops / elapsed / 1e12:.3f} TFLOP/s")
    print(f"matrix product:   {rate / 1e12:.3f} TFLOP/s; the network reaches {flops / elapsed / rate:.0%} of it")
    print(f"activations:      {peak / 2**30:.2f} GiB at the peak; estimated {estimate / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
