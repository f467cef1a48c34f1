"""One budget for all networks: the same data, samples, weights to begin with, and steps or seconds of training."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from unianimate_core import InputError, UNet, console
from unianimate_core.animate import Settings
from unianimate_core.output import replacing
from unianimate_core.training.checkpoints import changed_keys
from unianimate_core.training.config import (
    DataConfig,
    DropoutConfig,
    ModelConfig,
    ReportConfig,
    RunConfig,
    Span,
    TrainingConfig,
)
from unianimate_core.training.loop import Trainer
from unianimate_core.training.model import build_unet
from unianimate_core.training.report import read_log

from .networks import build_with_reference_network, build_without_reference_pose

TIMED_STEPS = 12  # of a short run that tells how many steps fit into given seconds
HELD_OUT = 0.05  # of the training videos
DROPOUT = DropoutConfig(  # mostly clips from a reference picture, as they are measured
    image=1.0,
    pose=0.3,
    reference=0.3,
    reference_pose=0.3,
    all_dropped=0.05,
    all_kept=0.1,
    from_reference=0.6,
    from_first_frame=0.1,
)


@dataclass(frozen=True)
class Network:
    """A network to compare.

    Attributes:
        title: In tables.
        build: See `Trainer`.
    """

    title: str
    build: Callable[[RunConfig], tuple[UNet, list[str]]]


NETWORKS = {
    "unified": Network("unified network", build_unet),
    "without-reference-pose": Network("without the reference pose", build_without_reference_pose),
    "reference-network": Network("second network for the reference", build_with_reference_network),
}


@dataclass(frozen=True)
class Setup:
    """What all networks have in common.

    Attributes:
        data: Folder of the training videos.
        evaluation: Folder of the videos to measure on.
        vae: The autoencoder.
        output: Gets a folder for each network.
        steps: Of the optimiser; None: as many as take ``seconds``.
        seconds: Of training, where ``steps`` is None.
        size: Width and height, pixels.
        frames: Of a clip, in training and measuring.
        start: First frame that is measured; frame 0 is the reference picture, in which the person stands otherwise.
        width: Of the network; its two levels have once and twice as many channels.
        batch: Clips of a step.
        seed: Of weights, samples and noise.
        sampling_steps: Of DDIM.
        guidance: Weight of the conditions.
    """

    data: Path
    evaluation: Path
    vae: Path
    output: Path
    steps: int | None
    seconds: float | None
    size: tuple[int, int]
    frames: int
    start: int
    width: int
    batch: int
    seed: int
    sampling_steps: int
    guidance: float

    def run(self, folder: Path, steps: int) -> RunConfig:
        """The training run of one network."""
        return RunConfig(
            output=folder,
            steps=steps,
            seed=self.seed,
            model=ModelConfig(
                width=self.width,
                multipliers=(1, 2),
                residual_blocks=1,
                attention_levels=(True, True),
                first_temporal_width=self.width,
                context_width=self.width,
                prompt_tokens=4,
                embedding_width=16,
            ),
            data=DataConfig(
                (self.data,),
                self.vae,
                self.output / "cache",
                *self.size,
                frames=Span(self.frames, self.frames),
                stride=Span(1, 2),
                held_out=HELD_OUT,
            ),
            training=TrainingConfig(
                batch=self.batch, learning_rate=8e-4, warmup=min(100, steps // 10), schedule="cosine", ema=0.995
            ),
            dropout=DROPOUT,
            report=ReportConfig(log=10, checkpoint=250, keep=1, export="fp32", samples=0),
        )

    def check(self) -> None:
        """Raise InputError for a value out of range."""
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise InputError(f"seconds is {self.seconds}: give more than 0")
        if self.start < 1:
            raise InputError(f"start is {self.start}: give 1 or more, as frame 0 is the reference picture")
        self.run(self.output, TIMED_STEPS if self.steps is None else self.steps)
        self.sampling().check()

    def sampling(self) -> Settings:
        """How a network's clips are made."""
        return Settings(*self.size, self.frames, self.start, self.sampling_steps, self.guidance, seed=self.seed)

    def described(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            name: value.name if isinstance(value, Path) else value
            for name, value in asdict(self).items()
            if name != "output" and value is not None
        }


def train(key: str, setup: Setup) -> tuple[dict[str, Any], UNet]:
    """Train a network to its last step, or take it as it was trained before; its averaged weights are in it then.

    Raises:
        InputError: It was begun with another setup.
        KeyboardInterrupt: It was interrupted; a later run goes on.
    """
    folder = setup.output / key
    console.note(f"\n{NETWORKS[key].title}: {folder}")
    config = setup.run(folder, _steps(key, setup, folder))
    done = folder / "trained.json"  # written last
    if done.exists():
        facts = json.loads(done.read_text())
        unet = NETWORKS[key].build(config)[0].to(console.choose_device(None))
    else:
        trainer = _run(key, config)
        unet = trainer.unet
        facts = {
            "parameters": sum(p.numel() for p in unet.parameters() if p.requires_grad),
            "steps": config.steps,
            "samples": config.steps * trainer.order.size,
            "seconds": trainer.seconds,
            "held_out_loss": [row["held_out"] for row in read_log(folder / "log.jsonl") if "held_out" in row][-1],
        }
        with replacing(done) as file:
            file.write_text(json.dumps(facts, indent=1))
    unet.load_state_dict(load_file(folder / "unianimate.safetensors"))
    return facts, unet.eval().requires_grad_(False)


def _steps(key: str, setup: Setup, folder: Path) -> int:
    """How many steps a network is trained; chosen once, before the first."""
    asked = {"seconds": setup.seconds, "run": setup.run(folder, setup.steps or TIMED_STEPS).plain()}
    plan = folder / "plan.json"
    if plan.exists():
        saved = json.loads(plan.read_text())
        for name, (old, new) in changed_keys(saved["asked"], asked).items():
            raise InputError(
                f"{folder} was begun with {name} = {old}, it is now {new}: put it back, or choose another output"
            )
        return saved["steps"]
    steps = setup.steps
    if steps is None:
        trial = folder / "trial"
        shutil.rmtree(trial, ignore_errors=True)
        config = setup.run(trial, TIMED_STEPS)
        _run(key, replace(config, report=replace(config.report, log=1)))
        times = np.diff([row["seconds"] for row in read_log(trial / "log.jsonl") if "loss" in row])
        shutil.rmtree(trial)
        steps = max(1, round(setup.seconds / float(np.median(times))))
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(plan) as file:
        file.write_text(json.dumps({"steps": steps, "asked": asked}, indent=1))
    return steps


def _run(key: str, config: RunConfig) -> Trainer:
    trainer = Trainer(config, NETWORKS[key].build)
    trainer.run()
    if trainer.step < config.steps:
        raise KeyboardInterrupt
    return trainer
