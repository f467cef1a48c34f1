"""Time of the selective scan's implementations: `python benchmarks/scan.py --device cuda --json scan.json`.

Both directions with the gate, as the temporal Mamba layer scans: rows are the pixels of a 768 x 512 video, channels
those of the first level. Beside each time: the rate at which the bytes that no scan can do without were moved, and its
share of a copy's rate, measured in the same run. On a CPU there are fewer rows; a GPU's bounds on paper come last.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from unet import seconds

from unianimate_core.ssm import Branch, scan_implementations, selective_scan

ROWS = {"cuda": 6144, "mps": 512}
CPU_ROWS = 32
COPY_BYTES = {"cuda": 1 << 31}
# Data sheet of an H100 SXM: bytes/s; multiprocessors, special-function results of one a clock, clocks/s.
PAPER_RATE, PAPER_UNITS, UNITS, PAPER_CLOCK = 3.35e12, 132, 16, 1.755e9
GENERAL_BYTES = 4 << 30  # of one tensor of states


def branches_for(rows: int, frames: int, channels: int, states: int, device: str, dtype: torch.dtype) -> list[Branch]:
    """Two directions with values as in a trained layer and its layouts; B and C are parts of one projection."""
    found = []
    for _ in range(2):
        projected = torch.randn(rows, frames, 20 + 2 * states, device=device, dtype=dtype)
        _, B, C = projected.split((20, states, states), dim=-1)
        u, delta = (torch.randn(rows, frames, channels, device=device, dtype=dtype) for _ in range(2))
        A = -torch.rand(channels, states, device=device) * states
        found.append(Branch(u, delta - 3, A, B, C, torch.randn(channels, device=device)))
    return found


def general_scan(branches: list[Branch], z: Tensor) -> Tensor:
    """For comparison: a parallel scan over the frames that doubles its reach, with all states of a group in memory."""
    u = branches[0].u
    y = torch.zeros(u.shape, device=u.device)
    rows = max(1, GENERAL_BYTES // (4 * u[0].numel() * branches[0].A.shape[1]))
    for start, (branch, backwards) in itertools.product(
        range(0, len(u), rows), zip(branches, (False, True), strict=True)
    ):
        part = slice(start, start + rows)
        x, delta, B, C = (t[part].float() for t in (branch.u, branch.delta, branch.B, branch.C))
        if backwards:
            x, delta, B, C = (t.flip(1) for t in (x, delta, B, C))
        delta = F.softplus(delta)
        factor = torch.exp(delta[..., None] * branch.A)  # n f c s
        state = (delta * x)[..., None] * B[:, :, None]
        reach = 1
        while reach < u.shape[1]:
            state = torch.cat((state[:, :reach], state[:, reach:] + factor[:, reach:] * state[:, :-reach]), dim=1)
            factor = torch.cat((factor[:, :reach], factor[:, reach:] * factor[:, :-reach]), dim=1)
            reach *= 2
        out = (state * C[:, :, None]).sum(-1) + branch.D * x
        y[part] += out.flip(1) if backwards else out
    return (y * F.silu(z.float())).to(u.dtype)


def on_paper(rows: int, frames: int, channels: int, states: int, itemsize: int, backward: bool) -> tuple[int, int]:
    """Bytes that must be moved at least, and special-function results (powers of two; 2 of a softplus, 2 of a gate)."""
    wide, narrow = rows * frames * channels * itemsize, rows * frames * states * itemsize
    read = 2 * (2 * wide + 2 * narrow) + wide  # each direction's u, delta, B and C; z
    powers = rows * frames * channels * (2 * (states + 2) + 2)
    if not backward:
        return read + wide, powers
    return 2 * read + 2 * wide, 4 * powers  # again, and dy; as many gradients. States are made three times more


def copy_rate(device: str) -> float:
    """Bytes/s of a large copy, read and written."""
    source = torch.empty(COPY_BYTES.get(device, 1 << 28), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / seconds(lambda: target.copy_(source), torch.device(device), 10)


def machine(device: str) -> dict[str, str]:
    """What was measured on, and with which versions."""

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    name = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    found = {"device": torch.cuda.get_device_name() if device == "cuda" else name, "python": platform.python_version()}
    return found | {name: installed(name) for name in ("torch", "triton", "mamba-ssm")}


def measure(
    runs: dict[str, Callable[[], Tensor]], device: str, repeats: int, count: tuple[int, int], rate: float, what
):
    """Rows of the table, printed as they come."""
    expected = None
    for name, run in runs.items():
        y = run().float()
        expected = y if expected is None else expected
        taken = seconds(run, torch.device(device), repeats)
        row = {
            **what,
            "implementation": name,
            "seconds": taken,
            "bytes": count[0],
            "bytes_per_second": count[0] / taken,
            "share_of_copy": count[0] / taken / rate,
            "difference": float((y - expected).norm() / expected.norm()),
        }
        speed = f"{1e3 * taken:10.2f} ms {count[0] / taken / 1e9:9.1f} GB/s {row['share_of_copy']:6.0%}"
        print(f"{what['frames']:6d} {what['pass']:9s} {name:22s} {speed}   {row['difference']:.1e}")
        yield row


def sweep(branches: list[Branch], z: Tensor, device: str, repeats: int) -> list[dict]:
    """The Triton kernel with other numbers of channels, warps and frames read ahead."""
    from unianimate_core.ssm import triton_scan

    rows = []
    for block, warps, stages in itertools.product((32, 64, 128, 256), (1, 2, 4), (1, 2, 3)):
        triton_scan.BLOCK, triton_scan.WARPS, triton_scan.STAGES = block, warps, stages
        taken = seconds(lambda: selective_scan(*branches, z, "triton"), torch.device(device), repeats)
        rows.append({"block": block, "warps": warps, "stages": stages, "seconds": taken})
    for row in sorted(rows, key=lambda row: row["seconds"]):
        print("{block:4d} channels, {warps} warps, {stages} stages: {seconds:.6f} s".format(**row))
    return rows


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="+", choices=["float32", "float16", "bfloat16"], default=None)
    parser.add_argument("--rows", type=int, help="sequences: pixels of the latent")
    parser.add_argument("--frames", type=int, nargs="+", default=None, help="with the reference frame")
    parser.add_argument("--channels", type=int, default=640, help="twice the width of the level")
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sweep", action="store_true", help="time the Triton kernel's block sizes, too")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args()

    device = options.device
    rows = options.rows or ROWS.get(device, CPU_ROWS)
    about = machine(device) | {"command": " ".join(["python", "benchmarks/scan.py", *sys.argv[1:]])}
    rate = copy_rate(device)
    print(f"{about['device']}; torch {about['torch']}; triton {about['triton']}; mamba-ssm {about['mamba-ssm']}")
    print(f"copy: {rate / 1e9:.1f} GB/s; {rows} sequences, {options.channels} channels, {options.states} states")
    results: list[dict] = []
    for name in options.dtype or (["bfloat16", "float32"] if device == "cuda" else ["float32"]):
        dtype = getattr(torch, name)
        faults = scan_implementations(torch.device(device), dtype)
        print(f"\n{name}: " + "; ".join(f"{other} {fault or 'runs'}" for other, fault in faults.items()))
        for frames in options.frames or ([33, 361] if device == "cuda" else [33]):
            shape = rows, frames, options.channels, options.states
            branches = branches_for(*shape, device, dtype)
            dy = torch.randn(shape[:3], device=device, dtype=dtype)
            z = torch.randn(*shape[:2], 2 * shape[2], device=device, dtype=dtype).chunk(2, dim=-1)[1]  # as in the layer
            leaves = [tensor.detach().requires_grad_() for branch in branches for tensor in branch]

            def forward(implementation: str, given=branches, z=z) -> Tensor:
                with torch.no_grad():
                    return selective_scan(*given, z, implementation)

            def both(implementation: str, leaves=leaves, z=z, dy=dy) -> Tensor:
                y = selective_scan(Branch(*leaves[:6]), Branch(*leaves[6:]), z, implementation)
                return torch.autograd.grad(y, leaves, dy)[0]

            runs = {other: fault for other, fault in faults.items() if not fault}
            for kind, run in (("forward", forward), ("training", both)):
                timed = {other: (lambda other=other, run=run: run(other)) for other in reversed(runs)}
                if kind == "forward":
                    timed["general, plain PyTorch"] = lambda given=branches, z=z: general_scan(given, z)
                count = on_paper(*shape, dtype.itemsize, kind == "training")
                what = {"dtype": name, "rows": rows, "frames": frames, "channels": options.channels, "pass": kind}
                results += measure(timed, device, options.repeats, count, rate, what)
            if options.sweep and not faults["triton"]:
                about[f"sweep {name} {frames}"] = sweep(branches, z, device, options.repeats)
    print("\nOn paper, an H100 SXM (3.35 TB/s; 132 x 16 special-function results a clock at 1.755 GHz):")
    for dtype, frames in itertools.product((torch.bfloat16, torch.float32), (33, 361)):
        moved, powers = on_paper(ROWS["cuda"], frames, options.channels, options.states, dtype.itemsize, False)
        slowest = max(moved / PAPER_RATE, powers / (PAPER_UNITS * UNITS * PAPER_CLOCK))
        print(
            f"  {ROWS['cuda']} sequences of {frames}, {str(dtype).removeprefix('torch.')}: {moved / 1e9:.2f} GB in "
            f"{1e3 * moved / PAPER_RATE:.2f} ms; {powers / 1e9:.2f} G powers in "
            f"{1e3 * powers / (PAPER_UNITS * UNITS * PAPER_CLOCK):.2f} ms: at most "
            f"{moved / PAPER_RATE / slowest:.0%} of the memory's rate"
        )
    if options.json:
        options.json.write_text(
            json.dumps(about | {"copy_bytes_per_second": rate, "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
