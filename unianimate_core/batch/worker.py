"""Makes the videos of a batch, one after another; none that fails stops the others."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..errors import InputError
from ..video.formats import PICTURES
from .table import Job

State = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        row: In the table, from 1.
        output: The video.
        state: done, failed, or skipped because the video was there.
        reason: Why it failed.
        seconds: That it took.
    """

    row: int
    output: str
    state: State
    reason: str = ""
    seconds: float = 0.0


class Worker:
    """Makes videos with the same models, which stay loaded from one to the next.

    Args:
        models: The arguments of `choose_models`.
    """

    def __init__(self, models: dict[str, Any]) -> None:
        self._chosen = models
        self._models: Any = None

    def make(self, job: Job) -> Outcome:
        """Make one video, or go on with it where it was begun."""
        begun = time.monotonic()
        state, reason = self._make(job)
        return Outcome(job.row, str(job.output), state, reason, time.monotonic() - begun)

    def _make(self, job: Job) -> tuple[State, str]:
        from ..animate_command import prepare
        from ..model_options import choose_models

        try:
            if is_finished(job):  # by a worker that died before it could tell
                return "done", ""
            if self._models is None:
                self._models = choose_models(**self._chosen)
            prepare(job.options, self._models).make()
        except (InputError, OSError) as error:
            return "failed", " ".join(str(error).splitlines())
        except Exception as error:  # whatever it is: the other jobs shall be made
            reason = f"{type(error).__name__}: {' '.join(str(error).splitlines())}"
        else:
            return "done", ""
        gc.collect()  # what the traceback held
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return "failed", reason


def is_finished(job: Job) -> bool:
    """Whether a job's video is there and may stay: an unfinished one never has its name."""
    if job.options.overwrite:
        return False
    codec = job.options.codec
    folder = codec is not None and codec.value == PICTURES
    return job.output.is_dir() if folder else job.output.is_file()
