"""Memory of the network over frames and size: `python benchmarks/memory.py --json memory.json`.

For each size, in GiB and for one forward pass (guidance runs two, one after the other):

- *ungrouped*: everything at once, as with gradients;
- *grouped*: with the default of `UNet.working_bytes`; *least*: with the least that is chosen from free memory;
- *estimated*: the model of it, `activation_bytes`, for *grouped*;
- *with weights*: grouped, and the weights in the same precision.

These are counted, not measured: the network runs without numbers on PyTorch's meta device, and live tensors are
summed; workspaces of kernels and gaps of allocators are not in it. With `--device cuda`, or cpu for a small network,
the growth of the allocated (the resident) memory is measured, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from peak import counted_bytes, network_inputs, with_mamba
from resident import WorstMemory
from unet import SMALL

from unianimate_core import UNet, UNetConfig
from unianimate_core.optional import require
from unianimate_core.unet.groups import WORKING_BYTES
from unianimate_core.unet.memory import LEAST_WORKING_BYTES, activation_bytes

CASES = ("32@768x512", "64@768x512", "128@768x512", "256@768x512", "360@768x512", "32@1216x768")
COLUMNS = ("ungrouped", "grouped", "least", "estimated", "with weights", "measured ungrouped", "measured grouped")


def weight_bytes(config: UNetConfig, dtype: torch.dtype) -> int:
    """Of all parameters."""
    return sum(parameter.numel() for parameter in UNet(config, device="meta").parameters()) * dtype.itemsize


def measured_bytes(
    config: UNetConfig, size: tuple[int, int, int], dtype: torch.dtype, working_bytes: int | None, device: str
) -> float:
    """Growth of allocated memory on a GPU, of resident memory on a CPU, in one forward pass with random weights."""
    unet = UNet(config, dtype=dtype, device=device).requires_grad_(False)
    unet.working_bytes = working_bytes
    inputs = network_inputs(config, *size, dtype, device)
    with torch.no_grad():
        unet.unified(*network_inputs(config, 1, 8, 8, dtype, device))  # what libraries keep is not counted
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            unet.unified(*inputs)
            return torch.cuda.max_memory_allocated() - before
        before = require("psutil", "the extra `standalone` of this package").Process().memory_info().rss
        with WorstMemory() as worst:
            unet.unified(*inputs)
        return worst.megabytes * 2**20 - before


def measured_alone(*arguments: Any) -> float:
    """The same in a new process: in one that has run before, memory that was freed may still be resident."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured_bytes, *arguments).result()


def main() -> None:
    """Count, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=CASES, metavar="FRAMES@WIDTHxHEIGHT", help="in pixels")
    parser.add_argument("--network", choices=["public", "small"], default="public")
    parser.add_argument("--mamba", action="store_true", help="temporal Mamba in place of the temporal transformers")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="where to measure as well, with random weights")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float16")
    parser.add_argument("--working-mib", type=int, default=WORKING_BYTES >> 20, help="for grouped")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()

    dtype, working_bytes = getattr(torch, options.dtype), options.working_mib << 20
    config = UNetConfig() if options.network == "public" else SMALL
    config = with_mamba(config) if options.mamba else config
    name = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    about = {"device": name if options.device else "meta", "torch": torch.__version__, "dtype": options.dtype}
    about |= {"network": options.network, "mamba": options.mamba, "working_bytes": working_bytes}
    about |= {"command": " ".join(["python", "benchmarks/memory.py", *sys.argv[1:]])}
    weights = weight_bytes(config, dtype)
    columns = COLUMNS if options.device else COLUMNS[:5]
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(" ".join(f"{column:>{max(12, len(column))}}" for column in ("case", *columns)), flush=True)
    results = []
    for case in options.cases:
        frames, pixels = case.split("@")
        width, height = (int(side) // 8 for side in pixels.split("x"))
        size = int(frames), height, width
        row = {"ungrouped": counted_bytes(config, *size, dtype, None)}
        row["grouped"] = counted_bytes(config, *size, dtype, working_bytes)
        row["least"] = counted_bytes(config, *size, dtype, LEAST_WORKING_BYTES)
        row["estimated"] = activation_bytes(config, *size, dtype, working_bytes)
        row["with weights"] = row["grouped"] + weights
        if options.device:
            row["measured grouped"] = measured_alone(config, size, dtype, working_bytes, options.device)
            row["measured ungrouped"] = measured_alone(config, size, dtype, None, options.device)
        results.append({"case": case, **{name.replace(" ", "_"): row[name] for name in columns}})
        shown = (f"{row[column] / 2**30:>{max(12, len(column))}.3f}" for column in columns)
        print(f"{case:>12} {' '.join(shown)}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(about | {"weights": weights, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
