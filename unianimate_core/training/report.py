"""What a run shows: log, loss plot, sample sheets, progress bar."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..autoencoder import Autoencoder
from ..diffusion import noise_prior, sample
from ..figures import draw_figure, new_figure
from ..optional import TRAIN_EXTRA, require
from ..output import replacing, write_picture
from ..unet import Conditions, UNet
from .config import RunConfig
from .data import SamplePlan, Samples

SHOWN = 6  # frames of a clip on a sheet


class Log:
    """``log.jsonl``, a row every few steps, and what is drawn from it.

    Args:
        output: The run's folder.
        step: Rows after this step are of a run that was cut off, and go.
        tensorboard: Write for TensorBoard, too.
    """

    def __init__(self, output: Path, step: int, tensorboard: bool = False) -> None:
        self.output = output
        self.path = output / "log.jsonl"
        self.rows = [row for row in read_log(self.path) if row["step"] <= step]
        with replacing(self.path) as partial:
            partial.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        self._board = None
        if tensorboard:
            self._board = require_tensorboard().SummaryWriter(str(output / "tensorboard"), purge_step=step + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row: of a step, or with ``step`` and ``held_out`` of a checkpoint."""
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if self._board is not None:
            for name in (name for name, value in row.items() if name != "step" and value is not None):
                self._board.add_scalar(name, row[name], row["step"])

    def picture(self, name: str, picture: np.ndarray, step: int) -> None:
        """Hand a picture, uint8 H W 3, RGB, to TensorBoard."""
        if self._board is not None:
            self._board.add_image(name, picture, step, dataformats="HWC")

    def plot(self) -> None:
        """Draw ``loss.png``."""
        of_steps = [row for row in self.rows if "loss" in row]
        held_out = [row for row in self.rows if "held_out" in row]
        if not of_steps:
            return
        figure = new_figure(8, 4.5, TRAIN_EXTRA)
        axes = figure.add_subplot()
        steps = [row["step"] for row in of_steps]
        axes.plot(steps, [row["loss"] for row in of_steps], color="0.8", linewidth=0.8, label="loss")
        axes.plot(steps, [row["smoothed"] for row in of_steps], color="tab:blue", label="smoothed")
        if held_out:
            values = [row["held_out"] for row in held_out]
            axes.plot([row["step"] for row in held_out], values, color="tab:orange", marker=".", label="held out")
        axes.set(xlabel="step", ylabel="v-prediction MSE", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
        write_picture(draw_figure(figure), self.output / "loss.png")

    def close(self) -> None:
        """Finish TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def require_tensorboard() -> ModuleType:
    """What TensorBoard's files are written with.

    Raises:
        InputError: It is not installed.
    """
    return require("torch.utils.tensorboard", "the package tensorboard")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; those that were cut off are left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


@contextmanager
def progress(step: int, steps: int, shown: bool) -> Iterator[Callable[[int, float], None]]:
    """A progress bar with loss and speed.

    Args:
        step: Steps done before.
        steps: Steps in all.
        shown: Whether this process shows one.

    Yields:
        What is to be called after each step, with its number and the smoothed loss.
    """
    import rich.progress as bars
    from rich.console import Console

    columns = (
        *("training", bars.BarColumn(), bars.MofNCompleteColumn(), "loss {task.fields[loss]:.4f}"),
        *("{task.fields[speed]:.2f} steps/s", bars.TimeElapsedColumn(), bars.TimeRemainingColumn()),
    )
    with bars.Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("training", total=steps, completed=step, loss=math.nan, speed=0.0)
        start = time.perf_counter()

        def show(done: int, loss: float) -> None:
            bar.update(task, completed=done, loss=loss, speed=(done - step) / (time.perf_counter() - start))

        yield show


def sample_sheet(unet: UNet, autoencoder: Autoencoder, samples: Samples, config: RunConfig) -> np.ndarray:
    """Sample a few fixed clips and draw them: left the reference and its pose, then poses, truth, and sampled frames.

    Args:
        unet: With the weights to show.
        autoencoder: To decode with.
        samples: The run's.
        config: How many clips, and how they are sampled.

    Returns:
        uint8 H W 3, RGB.
    """
    count = min(config.report.sample_clips, len(samples.videos))
    chosen = np.linspace(0, len(samples.videos) - 1, count).round().astype(int)
    return np.concatenate([_clip(unet, autoencoder, samples, config, int(video)) for video in chosen])


def _clip(unet: UNet, autoencoder: Autoencoder, samples: Samples, config: RunConfig, index: int) -> np.ndarray:
    """Three rows of pictures of one clip, sampled as from its reference picture."""
    video = samples.videos[index]
    count = min(config.data.frames.high, video.frames)
    stride = min(config.data.stride.low, (video.frames - 1) // max(1, count - 1))
    present = dict.fromkeys(("image", "pose", "reference", "reference_pose"), True) | {"first_frame": False}
    plan = SamplePlan(index, [n * stride for n in range(count)], video.frames - 1, 0, index, present)
    clip = samples.make(plan)
    device = next(unet.parameters()).device
    given = {name: to_floats(tensor[None], device) for name, tensor in clip["conditions"].items()}
    del given["first_frame"]
    x_T = noise_prior(given["reference"], clip["noise"][None].to(device))
    x0 = sample(unet, x_T, Conditions(**given), config.report.sampling_steps, config.report.guidance)
    shown = np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int).tolist()
    pictures = _pixels(autoencoder.decode(rearrange(x0[:, :, shown], "1 c f h w -> f c h w")))
    reference = video.picture(plan.reference)
    poses = _pixels(given["pose"][0, shown])
    truth = [video.picture(plan.frames[n]) for n in shown]
    rows = [
        [reference, *poses],
        [_pixels(given["reference_pose"])[0], *truth],
        [np.full_like(reference, 255), *pictures],
    ]
    return np.concatenate([np.concatenate(row, axis=1) for row in rows])  # 3H (1+n)W 3


def to_floats(tensor: Tensor, device: torch.device) -> Tensor:
    """To a device; pictures from bytes to 0-1."""
    tensor = tensor.to(device, non_blocking=True)
    return tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor


def _pixels(pictures: Tensor) -> np.ndarray:
    return rearrange(pictures.clamp(0, 1) * 255, "n c h w -> n h w c").round().byte().cpu().numpy()
