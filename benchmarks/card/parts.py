"""The parts of `gpu.py`: each makes rows, runs in a process of its own, and goes on where one of them fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from unet import MATRIX

from unianimate_core.output import replacing

from .correctness import correctness
from .setup import Row, Setup, name_of
from .speed import about, clip, limits, steps

PARTS: dict[str, Callable[[Setup], Iterator[Row]]] = {
    "about": about,
    "correctness": correctness,
    **{
        f"steps-{temporal}-{name_of(dtype)}": partial(steps, temporal=temporal, dtype=dtype)
        for dtype in (torch.bfloat16, torch.float16)
        for temporal in ("transformer", "mamba")
    },
    **{f"limits-{temporal}": partial(limits, temporal=temporal) for temporal in ("transformer", "mamba")},
    **{f"clip-{way}": partial(clip, way=way) for way in ("plain", "graphs", "compiled", "compiled-graphs")},
}


def run_part(name: str, setup: Setup, file: Path | None = None) -> list[Row]:
    """All rows of a part, printed, and written to the file, as they come."""
    if setup.tiny:
        MATRIX[setup.device.type] = 256
    rows: list[Row] = []
    for row in PARTS[name](setup):
        rows.append(row)
        shown = (f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items())
        print(f"{name}: " + ", ".join(shown), flush=True)
        if file is not None:
            with replacing(file) as partial_file:
                partial_file.write_text(json.dumps(rows), encoding="utf-8")
    return rows
