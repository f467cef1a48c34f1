"""On which devices a run trains, and in which precision."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ..errors import InputError
from ..optional import TRAIN_EXTRA, require
from .config import TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


def make_accelerator(training: TrainingConfig) -> Accelerator:
    """Accelerate, set up for a run.

    Raises:
        InputError: The devices lack the precision, or are used in a way that this training does not know.
    """
    accelerate = require("accelerate", TRAIN_EXTRA)
    try:
        accelerator = accelerate.Accelerator(
            mixed_precision=training.precision,
            gradient_accumulation_plugin=accelerate.utils.GradientAccumulationPlugin(
                num_steps=training.accumulate, sync_with_dataloader=False
            ),
            # Processes wait for each other while latents are computed.
            kwargs_handlers=[accelerate.InitProcessGroupKwargs(timeout=timedelta(days=1))],
        )
    except ValueError as error:
        raise InputError(f"[training] precision is {training.precision!r}, which cannot be used: {error}") from error
    kind = accelerator.distributed_type.value
    if getattr(accelerator, "parallelism_config", None):  # tensor parallelism counts as MULTI_GPU
        kind = "a parallelism_config"
    if kind != "NO" and not kind.startswith("MULTI_"):
        raise InputError(
            f"accelerate is set up for {kind}, which parts the network: here every device holds all of it. Start with "
            "`accelerate launch --multi_gpu`, or leave it out of `accelerate config`"
        )
    if training.precision != "no" and not accelerator.native_amp:  # accelerate leaves it out without a word
        device = accelerator.device.type
        raise InputError(f"[training] precision is {training.precision!r}, which {device} has not: choose bf16, or no")
    return accelerator
