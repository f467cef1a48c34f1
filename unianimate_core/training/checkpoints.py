"""Checkpoints of a run: whole or not there, whatever happens while one is written."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..errors import InputError
from .config import RunConfig

FIXED = ("seed", "model", "data.width", "data.height")  # what a run cannot change and go on


@dataclass(frozen=True)
class Checkpoint:
    """All that a run goes on from.

    Attributes:
        model: The network's tensors by name, float32.
        ema: Their averages.
        optimizer: The optimiser's state and, under "scaler", the loss scaler's.
        state: Step, smoothed loss, seconds, configuration; as JSON holds it.
    """

    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]


class Checkpoints:
    """The folder ``checkpoints`` of a run.

    Args:
        output: The run's folder.
        keep: How many to keep.
    """

    def __init__(self, output: Path, keep: int) -> None:
        self.folder = output / "checkpoints"
        self.keep = keep

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        return max(self._all(), default=(0, None))[1]

    def read_state(self, config: RunConfig) -> dict[str, Any] | None:
        """The state of the newest checkpoint; None where there is none.

        Raises:
            InputError: It is of a run that this configuration cannot go on with; the message names the key.
        """
        path = self.latest()
        if path is None:
            return None
        try:
            state = json.loads((path / "state.json").read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): remove it, to go on from the one before") from error
        for key, (old, new) in changes(state["config"], config.plain()).items():
            if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED) and key != "model.checkpoint":
                raise InputError(
                    f"{path} was trained with {key} = {old}, the configuration says {new}: "
                    "put it back, or choose another output"
                )
        return state

    def read(self) -> Checkpoint:
        """The newest checkpoint."""
        path = self.latest()
        try:
            return Checkpoint(
                model=load_file(path / "model.safetensors"),
                ema=load_file(path / "ema.safetensors"),
                optimizer=torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True),
                state=json.loads((path / "state.json").read_text()),
            )
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): remove it, to go on from the one before") from error

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint under a temporary name, rename it, and remove the oldest.

        Raises:
            InputError: It cannot be written; those written before are still there.
        """
        path = self.folder / f"step-{checkpoint.state['step']:06d}"
        partial = path.with_suffix(".tmp")
        try:
            self.remove_partial()
            partial.mkdir(parents=True)
            save_file(dict(checkpoint.model), partial / "model.safetensors")
            save_file(dict(checkpoint.ema), partial / "ema.safetensors")
            torch.save(checkpoint.optimizer, partial / "optimizer.pt")
            (partial / "state.json").write_text(json.dumps(checkpoint.state, indent=1))
            partial.rename(path)
        except (OSError, SafetensorError, RuntimeError) as error:
            self.remove_partial()
            latest = self.latest()
            last = f"; the last one, {latest}, is whole" if latest else ""
            raise InputError(f"cannot write {path} ({error}){last}: free some space, then start again") from error
        for _, old in sorted(self._all())[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return path

    def _all(self) -> list[tuple[int, Path]]:
        """All whole checkpoints with their steps."""
        return [
            (int(m[1]), path) for path in self.folder.glob("step-*") if (m := re.fullmatch(r"step-(\d+)", path.name))
        ]

    def remove_partial(self) -> None:
        """Remove what an interrupted writing left."""
        for partial in self.folder.glob("step-*.tmp"):
            shutil.rmtree(partial, ignore_errors=True)


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two configurations differ: old and new value by dotted key."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= changes(before, after, f"{prefix}{key}.")
        elif before != after:
            found[f"{prefix}{key}"] = (before, after)
    return found
