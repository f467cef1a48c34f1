"""Checkpoints of a run: whole or not there, whatever happens while one is written."""

from __future__ import annotations

import json
import logging
import os
import pickle
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
from ..output import rename
from .config import RunConfig

FIXED_KEYS = ("seed", "model", "data.width", "data.height")  # what a run cannot change and go on
FREE_KEYS = ("model.checkpoint",)  # but for these: the file may have been moved

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """All that a run goes on from.

    Attributes:
        model: The network's tensors by name, float32.
        ema: Their averages.
        optimizer: The optimiser's state and, under "scaler", the loss scaler's.
        state: Step, smoothed loss, seconds, configuration; as JSON holds it.
        path: Where it was read from.
    """

    model: Mapping[str, Tensor]
    ema: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    state: dict[str, Any]
    path: Path | None = None

    def check(self, config: RunConfig) -> None:
        """Make sure that a configuration can go on from here.

        Raises:
            InputError: It cannot; the message names the key.
        """
        for key, (old, new) in changed_keys(self.state["config"], config.plain()).items():
            fixed = any(key == name or key.startswith(f"{name}.") for name in FIXED_KEYS) and key not in FREE_KEYS
            if fixed or (key == "data.clip" and None in (old, new)):  # with CLIP there is more to train
                before, after = ("none" if value is None else value for value in (old, new))
                raise InputError(
                    f"{self.path} was trained with {key} = {before}, the configuration says {after}: "
                    "put it back, or choose another output"
                )


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

    def read(self) -> Checkpoint | None:
        """The newest checkpoint that can be read, its tensors memory-mapped; None where there is none.

        Damaged ones, as a power cut leaves them, are passed over with a warning.

        Raises:
            InputError: There are some, and none can be read.
        """
        damaged = []
        for _, path in sorted(self._all(), reverse=True):
            try:
                checkpoint = _read(path)
            except (OSError, EOFError, SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError) as error:
                damaged.append(f"{path} is damaged ({_first_line(error)})")
                continue
            for each in damaged:
                logger.warning("%s: going on from the one before.", each)
            return checkpoint
        if damaged:
            raise InputError(f"{damaged[0]}, and no other checkpoint is whole: choose another output, or remove it")
        return None

    def set_aside(self, step: int) -> None:
        """Rename the checkpoints after a step, which were passed over: they are not to be taken for the newest."""
        for number, path in self._all():
            if number > step:
                aside = path.with_name(f"{path.name}.damaged")
                shutil.rmtree(aside, ignore_errors=True)
                rename(path, aside)

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
            for file in partial.iterdir():  # onto the disk, before the name says that it is whole and an old one goes
                with file.open("rb+") as opened:
                    os.fsync(opened.fileno())
        except (OSError, SafetensorError, RuntimeError) as error:
            self.remove_partial()
            latest = self.latest()
            last = f"; the last one, {latest}, is whole" if latest else ""
            raise InputError(f"cannot write {path} ({error}){last}: free some space, then start again") from error
        try:
            rename(partial, path)
        except OSError as error:
            raise InputError(
                f"{partial} is whole, but cannot be renamed to {path.name} ({error}): rename it"
            ) from error
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


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Where two configurations differ: old and new value by dotted key, of the keys that both have."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in (key for key in old if key in new):  # another version of this package may know others
        before, after = old[key], new[key]
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found |= changed_keys(before, after, f"{prefix}{key}.")
        elif before != after:
            found[f"{prefix}{key}"] = (before, after)
    return found


def _read(path: Path) -> Checkpoint:
    state = json.loads((path / "state.json").read_text())
    if not isinstance(state, dict) or not {"step", "smoothed", "seconds", "videos", "config"} <= state.keys():
        raise ValueError("state.json is incomplete")
    return Checkpoint(
        model=load_file(path / "model.safetensors"),
        ema=load_file(path / "ema.safetensors"),
        optimizer=torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True, mmap=True),
        state=state,
        path=path,
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
