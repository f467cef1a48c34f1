"""The training loop: v-prediction on clips, with accelerate's devices and precisions (paper, sections 3.2 and 4.1)."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..autoencoder import Autoencoder, load_autoencoder
from ..checkpoint import save_tensors
from ..diffusion import Schedule
from ..errors import InputError
from ..optional import require
from .checkpoints import Checkpoint, Checkpoints, changes
from .config import RunConfig, TrainingConfig
from .data import Order, Samples
from .interruption import ignore_interrupts, interruption
from .model import Averages, build_unet, learning_rate, tensors_of, v_loss
from .report import TRAIN_EXTRA, Log, progress, sample_sheet, to_floats
from .videos import prepare_videos

if TYPE_CHECKING:
    from accelerate import Accelerator

SMOOTHING = 0.99  # of the loss that is shown
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Step:
    """A step that was done; ``values`` are each process's losses, gradient norm, and whether it is to stop."""

    step: int
    learning_rate: float
    values: Tensor


class Trainer:
    """A run: prepares its data, goes on where it stopped, trains to the last step.

    Args:
        config: The run's.

    Raises:
        InputError: Something in the configuration or the data cannot be used.
    """

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        require("matplotlib", TRAIN_EXTRA)
        self.accelerator = _make_accelerator(config.training)
        self.device = self.accelerator.device
        self.checkpoints = Checkpoints(config.output, config.report.keep)
        saved = self.checkpoints.read_state(config)
        self.unet, new = build_unet(config)
        self.unet.gradient_checkpointing = config.training.gradient_checkpointing
        self.say(f"The network has {sum(p.numel() for p in self.unet.parameters()) / 1e6:.1f} M parameters.")
        if config.model.checkpoint and new:
            shown = ", ".join(new[:5]) + (", …" if len(new) > 5 else "")
            self.say(f"{len(new)} tensors are new, not from {config.model.checkpoint}: {shown}")
        self.videos = prepare_videos(config.data, self.accelerator)
        training = config.training
        self.order = Order(training.batch, training.accumulate, self.accelerator.num_processes)
        self.samples = Samples(self.videos, config, self.order)
        self.schedule = Schedule()
        self.step, self.smoothed, self.seconds = 0, None, 0.0
        self.resume(saved)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    def say(self, message: str) -> None:
        """Log a line, once for all processes."""
        if self.is_main:
            logger.info(message)

    def resume(self, saved: dict[str, Any] | None) -> None:
        """Prepare network and optimiser, at their start or as the newest checkpoint has them."""
        training = self.config.training
        parameters = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, training.learning_rate, training.betas, weight_decay=training.weight_decay, foreach=True
        )
        checkpoint = None if saved is None else self.checkpoints.read()
        if checkpoint is not None:
            self.unet.load_state_dict(checkpoint.model)
        self.unet.train()
        self.model, self.optimizer = self.accelerator.prepare(self.unet, optimizer)
        self.averages = Averages(self.unet, training.ema) if self.is_main else None
        if checkpoint is None:
            return
        scaler = checkpoint.optimizer.pop("scaler", None)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        if scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        if self.averages is not None:
            self.averages.load(checkpoint.ema)
        self.step, self.smoothed, self.seconds = (saved[name] for name in ("step", "smoothed", "seconds"))
        self.say(f"Going on after step {self.step}, from {self.checkpoints.latest()}.")
        for key, (old, new) in changes(saved["config"], self.config.plain()).items():
            self.say(f"{key} was {old}, is now {new}.")
        if saved["videos"] != len(self.videos):
            self.say(f"There were {saved['videos']} videos, there are now {len(self.videos)}: other samples follow.")

    def run(self) -> None:
        """Train to the last step.

        Raises:
            InputError: A loss or gradient is NaN or infinite, or a checkpoint cannot be written.
        """
        config, steps = self.config, self.config.steps
        if self.is_main:
            config.output.mkdir(parents=True, exist_ok=True)
            self.checkpoints.remove_partial()
            self.log = Log(config.output, self.step, config.report.tensorboard)
            if self.step:
                self.export()  # again, in case the run was killed after its checkpoint
        batches = iter(self.loader())
        self.clock = time.perf_counter() - self.seconds
        pending, stop = None, False
        with interruption() as interrupted, progress(self.step, steps, self.is_main) as show:
            while self.step < steps and not stop:
                latest = self.train_step(batches, interrupted)
                # The device works on this step while the one before is looked at.
                stop = self.examine(pending, show)
                pending = latest
                save = self.step == steps or self.step % config.report.checkpoint == 0
                draw = config.report.samples and self.step % config.report.samples == 0
                if save or draw or stop:
                    stop |= self.examine(pending, show)
                    pending = None
                if save or stop:
                    self.save()
                if draw and not stop:
                    self.draw_samples()
        if self.is_main:
            self.log.close()
        self.say(f"Stopped after step {self.step}: the same command goes on." if stop else f"Done: {config.output}")
        self.accelerator.end_training()

    def loader(self) -> DataLoader:
        """This process's batches from the present step on."""
        workers = self.config.training.workers
        return DataLoader(
            self.samples,
            batch_sampler=self.order.batches(self.accelerator.process_index, self.step, self.config.steps),
            num_workers=workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=ignore_interrupts,
            prefetch_factor=4 if workers else None,
        )

    def train_step(self, batches: Iterator[dict[str, Any]], interrupted: threading.Event) -> _Step:
        """One step of the optimiser; what it gives stays on the device."""
        training = self.config.training
        rate = learning_rate(training, self.step, self.config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        losses = []
        norm = torch.zeros((), device=self.device)
        for _ in range(training.accumulate):
            batch = next(batches)
            with self.accelerator.accumulate(self.model):
                loss = self.loss(batch)
                self.accelerator.backward(loss.mean())
                losses.append(loss.detach())
                if self.accelerator.sync_gradients:
                    norm = self.accelerator.clip_grad_norm_(self.unet.parameters(), training.clip_norm or math.inf)
                self.optimizer.step()
                self.optimizer.zero_grad()
        if self.averages is not None:
            self.averages.update(self.step)
        self.step += 1
        own = torch.cat([*losses, norm.view(1), norm.new_tensor([float(interrupted.is_set())])])
        return _Step(self.step, rate, self.accelerator.gather(own))

    def loss(self, batch: dict[str, Any]) -> Tensor:
        """The loss of each clip of a batch."""
        alphas = self.schedule.alphas_cumprod[batch["timestep"]]  # b
        conditions = {name: to_floats(tensor, self.device) for name, tensor in batch["conditions"].items()}
        present = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch["present"].items()}
        latents, noise, timestep = (
            batch[name].to(self.device, non_blocking=True) for name in ("latents", "noise", "timestep")
        )

        def predict(noised: Tensor) -> Tensor:
            return self.model(noised, timestep, **conditions, present=present)

        return v_loss(predict, latents, noise, alphas)

    def examine(self, done: _Step | None, show: Callable[[int, float], None]) -> bool:
        """Look at a step's losses, and log them; whether any process is to stop.

        Raises:
            InputError: One is NaN or infinite.
        """
        if done is None:
            return False
        rows = done.values.view(self.order.processes, -1).tolist()
        batch, processes = self.order.batch, self.order.processes
        losses = [loss for row in rows for loss in row[:-2]]
        norm = rows[0][-2]
        first = (done.step - 1) * self.order.size
        bad = [
            first + (place // batch * processes + rank) * batch + place % batch
            for rank, row in enumerate(rows)
            for place, loss in enumerate(row[:-2])
            if not math.isfinite(loss)
        ]
        scaled = self.accelerator.scaler is not None  # float16's overflows: the scaler leaves such steps out
        if bad or not (math.isfinite(norm) or scaled):
            what = "loss" if bad else "gradient"
            numbers = bad or range(first, first + self.order.size)
            shown = "; ".join(self.samples.describe(number) for number in numbers[:3])
            latest = self.checkpoints.latest()
            raise InputError(
                f"the {what} is NaN or infinite at step {done.step} ({shown}): look at that video, lower "
                f"learning_rate, or use bf16. {f'{latest} is the last checkpoint' if latest else 'No checkpoint yet'}"
            )
        loss = sum(losses) / len(losses)
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        self.seconds = time.perf_counter() - self.clock
        show(done.step, self.smoothed)
        if self.is_main and (done.step % self.config.report.log == 0 or done.step in (1, self.config.steps)):
            self.log.write(
                {
                    "step": done.step,
                    "loss": loss,
                    "smoothed": self.smoothed,
                    "learning_rate": done.learning_rate,
                    "gradient_norm": norm if math.isfinite(norm) else None,
                    "seconds": round(self.seconds, 3),
                    "samples": done.step * self.order.size,
                }
            )
            if not sys.stderr.isatty():  # no progress bar is seen there
                steps = self.config.steps
                self.say(f"step {done.step}/{steps}: loss {loss:.4f} ({self.smoothed:.4f}), {self.seconds:.0f} s")
        return any(row[-1] for row in rows)

    def save(self) -> None:
        """Write a checkpoint, and what others read."""
        if self.averages is not None:
            scaler = self.accelerator.scaler
            state = {
                "step": self.step,
                "smoothed": self.smoothed,
                "seconds": self.seconds,
                "videos": len(self.videos),
                "config": self.config.plain(),
            }
            optimizer = self.optimizer.state_dict() | ({"scaler": scaler.state_dict()} if scaler else {})
            self.checkpoints.write(Checkpoint(tensors_of(self.unet), self.averages.state(), optimizer, state))
            self.export()
        self.accelerator.wait_for_everyone()

    def export(self) -> None:
        """Write the averaged weights, as `load_unet` and the nodes read them, and the loss plot."""
        dtype = DTYPES[self.config.report.export]
        tensors = tensors_of(self.unet) | self.averages.state()
        weights = {name: tensor.to(dtype) for name, tensor in tensors.items()}
        metadata = {"format": "pt", "steps": str(self.step), "config": json.dumps(self.config.plain())}
        save_tensors(weights, self.config.output / "unianimate.safetensors", metadata)
        self.log.plot()

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """For sample sheets."""
        return load_autoencoder(self.config.data.vae, device=self.device)

    def draw_samples(self) -> None:
        """Write a sample sheet, made with the averaged weights."""
        if self.averages is not None:
            path = self.config.output / "samples" / f"step-{self.step:06d}.png"
            with self.averages.in_place(), self.accelerator.autocast():
                sample_sheet(self.unet, self.autoencoder, self.samples, self.config, path)
            self.log.picture("samples", path, self.step)
        self.accelerator.wait_for_everyone()


def _make_accelerator(training: TrainingConfig) -> Accelerator:
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
    if training.precision != "no" and not accelerator.native_amp:  # accelerate leaves it out without a word
        device = accelerator.device.type
        raise InputError(f"[training] precision is {training.precision!r}, which {device} has not: choose bf16, or no")
    return accelerator


def train(config: RunConfig) -> None:
    """Train, or go on; see `Trainer`."""
    Trainer(config).run()
