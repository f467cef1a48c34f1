"""All that needs a GPU, in one go: `PYTHONPATH=. python benchmarks/gpu.py`, at most 20 minutes.

Correctness on the card, time and memory of guided steps by length, a clip of 30 steps in several ways, the selective
scan. Needs torch, triton, einops, safetensors and numpy; weights are random ones of the public sizes, made on the card.
Where this package is installed, PYTHONPATH is not needed.

Each part runs in a process of its own with a time limit: one that fails, hangs, or breaks the card's context is noted,
and the others go on. Results are written as they come, and those of an earlier run in the same file are kept, so that
the parts can be spread over several runs: `--parts about,correctness,steps`, then `--parts limits,clip,scan`.
`--device cpu --tiny` tries the script where there is no GPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from card.parts import PARTS, run_part
from card.report import report
from card.setup import Setup

from unianimate_core.output import check_folder, replacing

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gpu.json"
SECONDS = {"about": 60, "correctness": 120, "steps": 150, "limits": 120, "clip": 90, "clip-compiled": 240, "scan": 120}


@dataclass(frozen=True)
class Part:
    """A command that measures something and writes JSON, and how long it may take."""

    name: str
    command: list[str]
    seconds: float


def plan(device: str, tiny: bool) -> list[Part]:
    """All parts, the most wanted first."""
    here = ["--device", device, *(["--tiny"] if tiny else [])]
    parts = [Part(name, ["benchmarks/gpu.py", "--run", name, *here], _limit(name)) for name in PARTS]
    small = ["--rows", "2", "--channels", "32", "--repeats", "1"] if tiny else []
    for dtype, frames in [("float32", 5)] if tiny else [(d, f) for d in ("bfloat16", "float32") for f in (33, 361)]:
        command = ["benchmarks/scan.py", "--device", device, "--dtype", dtype, "--frames", str(frames), *small]
        parts.append(Part(f"scan-{dtype}-{frames}", command, _limit("scan")))
    return parts


def _limit(name: str) -> float:
    return next(seconds for start, seconds in reversed(SECONDS.items()) if name.startswith(start))


def run_all(parts: Sequence[Part], output: Path, minutes: float) -> dict[str, Any]:
    """Run parts one after the other.

    Args:
        parts: What to run.
        output: JSON file, written after every part; what it holds of other parts is kept.
        minutes: For all parts together; those that begin no more are noted.

    Returns:
        What the file holds: ``command``, and ``parts`` by name, each with ``command``, ``seconds``, ``measured`` (what
        the part wrote, or None), ``error`` (or None).
    """
    check_folder(output.parent)
    results: dict[str, Any] = json.loads(output.read_text(encoding="utf-8")) if output.exists() else {"parts": {}}
    results["command"] = shlex.join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
    end = time.monotonic() + 60 * minutes
    for part in parts:
        print(f"\n== {part.name}", flush=True)
        left = end - time.monotonic()
        result = _run(part, min(part.seconds, left)) if left > 1 else {"measured": None, "error": "no time was left"}
        if result["error"]:
            print(f"== {part.name}: {result['error']}", flush=True)
        results["parts"][part.name] = {"command": shlex.join(["python", *part.command])} | result
        with replacing(output) as file:
            file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    return results


def _run(part: Part, limit: float) -> dict[str, Any]:
    """Run one part; its whole process group ends with it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "measured.json"
        start, error = time.monotonic(), None
        process = subprocess.Popen(
            [sys.executable, *part.command, "--json", str(file)], cwd=HERE.parent, start_new_session=os.name == "posix"
        )
        try:
            if code := process.wait(limit):
                error = f"ended with {code}"
        except subprocess.TimeoutExpired:
            error = f"stopped after {limit:.0f} s"
        finally:
            _end(process)
        measured = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
        return {"seconds": round(time.monotonic() - start, 1), "measured": measured, "error": error}


def _end(process: subprocess.Popen) -> None:
    """End a process, and the compilers that it may have started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts and print what they say of the goals."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="sizes of seconds, to try the script")
    parser.add_argument("--parts", help="those whose names begin so, separated by commas; default: all")
    parser.add_argument("--minutes", type=float, default=20, help="default: %(default)s")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS, help="default: %(default)s")
    parser.add_argument("--list", action="store_true", help="name the parts")
    parser.add_argument("--run", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run:
        run_part(options.run, Setup(torch.device(options.device), options.tiny), options.json)
        return
    parts = plan(options.device, options.tiny)
    if options.parts:
        wanted = tuple(options.parts.split(","))
        parts = [part for part in parts if part.name.startswith(wanted)]
        if not parts:
            parser.error(f"--parts {options.parts}: no part begins so; --list names them")
    if options.list:
        print("\n".join(part.name for part in parts))
        return
    if options.tiny and options.output == RESULTS:
        parser.error("--tiny measures nothing: name another file by --output")
    results = run_all(parts, options.output, options.minutes)
    print("\n" + report(results))
    with replacing(options.output.with_suffix(".md")) as file:
        file.write_text(report(results), encoding="utf-8")


if __name__ == "__main__":
    main()
