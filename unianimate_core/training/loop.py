"""The training loop: v-prediction on clips, with accelerate's devices and precisions (paper, sections 3.2 and 4.1)."""

from __future__ import annotations

import json
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..autoencoder import Autoencoder, load_autoencoder
from ..checkpoint import check_finite, save_tensors
from ..diffusion import Schedule
from ..errors import InputError
from ..optional import TRAIN_EXTRA, require
from ..output import check_folder, remove_partial, write_picture
from ..unet import UNet
from .checkpoints import Checkpoint, Checkpoints, changed_keys
from .config import RunConfig
from .data import BatchOrder, Samples
from .devices import make_accelerator
from .held_out import HeldOutClips, hold_out
from .interruption import ignore_interrupts, interruption
from .model import ExponentialAverage, build_unet, learning_rate, tensors_of, v_loss
from .report import Log, progress, require_tensorboard, sample_sheet, to_floats
from .videos import prepare_videos

SMOOTHING = 0.99  # of the loss that is shown
SKIPPED_STEPS = 100  # in a row, of float16's loss scaler, after which a run stops
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
        build: Makes the network at its start, and names its tensors that no checkpoint gave.

    Raises:
        InputError: Something in the configuration or the data cannot be used.
    """

    def __init__(self, config: RunConfig, build: Callable[[RunConfig], tuple[UNet, list[str]]] = build_unet) -> None:
        self.config = config
        require("matplotlib", TRAIN_EXTRA)
        self.accelerator = make_accelerator(config.training)
        self.device = self.accelerator.device
        if self.is_main:
            check_folder(config.output)
            if config.report.tensorboard:
                require_tensorboard()
        self.checkpoints = Checkpoints(config.output, config.report.keep)
        checkpoint = self.checkpoints.read()
        if checkpoint is not None:
            checkpoint.check(config)
        self.unet, new = build(config)
        if checkpoint is not None:
            try:
                self.unet.load_state_dict(checkpoint.model)
            except RuntimeError as error:
                raise InputError(
                    f"{checkpoint.path} is of a network of other sizes than {config.model.checkpoint or '[model]'} "
                    "gives: put back the [model] checkpoint that the run began with, or choose another output"
                ) from error
        self.unet.gradient_checkpointing = config.training.gradient_checkpointing
        self.say(f"The network has {sum(p.numel() for p in self.unet.parameters()) / 1e6:.1f} M parameters.")
        if config.model.checkpoint and new:
            shown = ", ".join(new[:5]) + (", …" if len(new) > 5 else "")
            self.say(f"{len(new)} tensors are new, not from {config.model.checkpoint}: {shown}")
        self.videos, held_out = hold_out(prepare_videos(config.data, self.accelerator), config.data.held_out)
        self.held_out = HeldOutClips(held_out, config) if held_out else None
        training = config.training
        self.order = BatchOrder(training.batch, training.accumulate, self.accelerator.num_processes)
        self.samples = Samples(self.videos, config, self.order)
        self.schedule = Schedule()
        self.step, self.smoothed, self.seconds = 0, None, 0.0
        self.skipped = 0  # steps in a row
        self.start(checkpoint)

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.accelerator.is_main_process

    def say(self, message: str) -> None:
        """Log a line, once for all processes."""
        if self.is_main:
            logger.info(message)

    def start(self, checkpoint: Checkpoint | None) -> None:
        """Prepare network and optimiser, at their start or as a checkpoint has them."""
        training = self.config.training
        parameters = [parameter for parameter in self.unet.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, training.learning_rate, training.betas, weight_decay=training.weight_decay, foreach=True
        )
        self.unet.train()
        self.model, self.optimizer = self.accelerator.prepare(self.unet, optimizer)
        self.averages = ExponentialAverage(self.unet, training.ema) if self.is_main else None
        if checkpoint is None:
            return
        scaler = checkpoint.optimizer.pop("scaler", None)
        self.optimizer.load_state_dict(checkpoint.optimizer)
        for group in self.optimizer.param_groups:  # the checkpoint's are not the configuration's
            group.update(betas=training.betas, weight_decay=training.weight_decay)
        for values in self.optimizer.state.values():  # what stays on the CPU is the file's memory
            values.update({name: value.clone() for name, value in values.items() if value.device.type == "cpu"})
        if scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(scaler)
        if self.averages is not None:
            self.averages.load(checkpoint.ema)
        saved = checkpoint.state
        self.step, self.smoothed, self.seconds = (saved[name] for name in ("step", "smoothed", "seconds"))
        self.say(f"Going on after step {self.step}, from {checkpoint.path}.")
        for key, (old, new) in changed_keys(saved["config"], self.config.plain()).items():
            self.say(f"{key} was {old}, is now {new}.")
        if saved["videos"] != len(self.videos):
            self.say(f"There were {saved['videos']} videos, there are now {len(self.videos)}: other samples follow.")
        size = saved.get("samples_per_step", self.order.size)
        if size != self.order.size:
            self.say(f"A step had {size} samples, it now has {self.order.size}: other samples follow.")

    def run(self) -> None:
        """Train to the last step.

        Raises:
            InputError: A loss or gradient is NaN or infinite, or a checkpoint cannot be written.
        """
        config, steps = self.config, self.config.steps
        if self.is_main:
            self.checkpoints.remove_partial()
            self.checkpoints.set_aside(self.step)
            for folder in (config.output, config.output / "samples"):
                remove_partial(folder)
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
                if save and not stop:
                    self.measure_held_out()
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
            try:
                batch = next(batches)
            except InputError as error:  # from another process it comes with that one's traceback
                raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error
            with self.accelerator.accumulate(self.model):
                loss = self.loss(batch, self.model)
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

    def loss(self, batch: dict[str, Any], model: nn.Module) -> Tensor:
        """The loss of each clip of a batch."""
        alphas = self.schedule.alphas_cumprod[batch["timestep"]]  # b
        conditions = {name: to_floats(tensor, self.device) for name, tensor in batch["conditions"].items()}
        present = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch["present"].items()}
        latents, noise, timestep = (
            batch[name].to(self.device, non_blocking=True) for name in ("latents", "noise", "timestep")
        )

        def predict(noised: Tensor) -> Tensor:
            return model(noised, timestep, **conditions, present=present)

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
        self.skipped = 0 if math.isfinite(norm) else self.skipped + 1
        if self.skipped >= SKIPPED_STEPS:
            raise InputError(
                f"the gradients of {self.skipped} steps in a row, to step {done.step}, are infinite in float16: none "
                "of them changed the network. Use bf16, or lower learning_rate"
            )
        loss = sum(losses) / len(losses)
        self.smoothed = loss if self.smoothed is None else SMOOTHING * self.smoothed + (1 - SMOOTHING) * loss
        self.seconds = time.perf_counter() - self.clock
        show(done.step, self.smoothed)
        if self.is_main and (done.step % self.config.report.log == 0 or done.step in (1, self.config.steps)):
            row = {
                "step": done.step,
                "loss": loss,
                "smoothed": self.smoothed,
                "learning_rate": done.learning_rate,
                "gradient_norm": norm if math.isfinite(norm) else None,
                "seconds": round(self.seconds, 3),
                "samples": done.step * self.order.size,
            }
            with _going_on():
                self.log.write(row)
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
                "samples_per_step": self.order.size,
                "config": self.config.plain(),
            }
            optimizer = self.optimizer.state_dict() | ({"scaler": scaler.state_dict()} if scaler else {})
            self.checkpoints.write(Checkpoint(tensors_of(self.unet), self.averages.state(), optimizer, state))
            self.export()
        self.accelerator.wait_for_everyone()

    def export(self) -> None:
        """Write the averaged weights, as `load_unet` and the nodes read them, and the loss plot."""
        path, precision = self.config.output / "unianimate.safetensors", self.config.report.export
        tensors = tensors_of(self.unet) | self.averages.state()
        weights = {name: tensor.to("cpu", DTYPES[precision]) for name, tensor in tensors.items()}
        metadata = {"format": "pt", "steps": str(self.step), "config": json.dumps(self.config.plain())}
        with _going_on():
            check_finite(weights, f"{path} in {precision}, [report] export")
            save_tensors(weights, path, metadata)
        with _going_on():
            self.log.plot()

    def measure_held_out(self) -> None:
        """Log the averaged weights' loss on clips of the videos that are held out."""
        if self.averages is not None and self.held_out is not None:
            with _going_on():
                with torch.no_grad(), self.averages.in_place(), self.accelerator.autocast():
                    losses = [self.loss(batch, self.unet) for batch in DataLoader(self.held_out)]
                loss = float(torch.cat(losses).mean())
                self.say(f"step {self.step}: held-out loss {loss:.4f}")
                self.log.write({"step": self.step, "held_out": loss if math.isfinite(loss) else None})
        self.accelerator.wait_for_everyone()

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """For sample sheets."""
        return load_autoencoder(self.config.data.vae, device=self.device)

    def draw_samples(self) -> None:
        """Write a sample sheet, made with the averaged weights."""
        if self.averages is not None:
            path = self.config.output / "samples" / f"step-{self.step:06d}.png"
            with _going_on():
                with self.averages.in_place(), self.accelerator.autocast():
                    sheet = sample_sheet(self.unet, self.autoencoder, self.samples, self.config)
                path.parent.mkdir(exist_ok=True)
                write_picture(sheet, path)
                self.log.picture("samples", sheet, self.step)
        self.accelerator.wait_for_everyone()


@contextmanager
def _going_on() -> Iterator[None]:
    """For what is only to be looked at: where it cannot be written, the training goes on."""
    try:
        yield
    except (InputError, OSError) as error:
        logger.warning("%s. The training goes on.", error)


def train(config: RunConfig) -> None:
    """Train, or go on; see `Trainer`."""
    Trainer(config).run()
