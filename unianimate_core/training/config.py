"""The configuration of a training run; `config_file` reads it."""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..errors import InputError
from ..pose.fitting import Fit
from ..unet import UNetConfig
from ..unet.config import check_size


class Span(NamedTuple):
    """A range of whole numbers, both ends included; in the file one number, or a list of two."""

    low: int
    high: int


CLIP_FRAMES = Span(16, 16)
STRIDE = Span(1, 4)


@dataclass(frozen=True)
class ModelConfig:
    """``[model]``: what is trained. Sizes that are given make a new network; those left out are the checkpoint's.

    Attributes:
        checkpoint: UniAnimate weights to begin from. Alone, the network is theirs; with sizes beside it, a new network
            takes from it all tensors that match in name and shape.
        temporal: Kind of all temporal layers: ``transformer`` or ``mamba``; left out, the checkpoint's, or transformers
            in a network from nothing. Layers of another kind than the checkpoint's are new and begin as the identity.
    """

    checkpoint: Path | None = None
    temporal: Literal["transformer", "mamba"] | None = None
    width: int | None = None
    multipliers: tuple[int, ...] | None = None
    residual_blocks: int | None = None
    attention_levels: tuple[bool, ...] | None = None
    first_temporal_width: int | None = None
    context_width: int | None = None
    image_width: int | None = None
    image_tokens: int | None = None
    embedding_width: int | None = None
    concat_channels: int | None = None
    prompt_tokens: int | None = None

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes that are given, by the names of `UNetConfig`."""
        names = {item.name for item in dataclasses.fields(UNetConfig)}
        return {name: value for name, value in vars(self).items() if name in names and value is not None}

    def unet(self, base: UNetConfig) -> UNetConfig:
        """The network's sizes, those left out from another's."""
        return dataclasses.replace(base, **self.sizes)

    def __post_init__(self) -> None:
        _check(self.checkpoint is not None or self.sizes, "[model] is empty: give checkpoint, or the network's sizes")
        for name, value in self.sizes.items():
            numbers = value if isinstance(value, tuple) else (value,)
            positive = all(isinstance(number, bool) or number >= 1 for number in numbers)
            _check(numbers and positive, f"[model] {name} is {value}: give 1 or more")
        _check((self.width or 32) % 32 == 0, f"[model] width is {self.width}: give a multiple of 32")


@dataclass(frozen=True)
class DataConfig:
    """``[data]``: the videos and how clips are taken from them.

    Attributes:
        folder: Folders of videos, searched with all below them; beside each video its motion under the same stem,
            a JSON file or a folder of OpenPose's. Every video is drawn as often as any other, however long it is.
        vae: SD 1.5's VAE, or a TAESD file.
        cache: Folder for what is computed once of each video: latents, poses, small pictures. Several machines share
            one, as they share the run's.
        width: Of the training pictures, pixels, a multiple of 8.
        height: Of the training pictures, pixels, a multiple of 8.
        frames: Of a clip; of two numbers, each step draws one between them.
        stride: Video frames from one frame of a clip to the next; of two numbers, each sample draws one.
        clip: OpenCLIP ViT-H/14's weights for the image condition; left out, the network is trained without it.
        fit: How pictures and poses are put on the working size: ``crop`` or ``stretch``.
        held_out: Share of the videos that is not trained on; at every checkpoint the averaged weights' loss on clips of
            them is logged. Which videos they are depends on the names alone.
    """

    folder: tuple[Path, ...]
    vae: Path
    cache: Path
    width: int
    height: int
    frames: Span = CLIP_FRAMES
    stride: Span = STRIDE
    clip: Path | None = None
    fit: Fit = "crop"
    held_out: float = 0.0

    def __post_init__(self) -> None:
        check_size(self.width, self.height)
        _check(len(self.folder) > 0, "[data] folder is empty: name a folder of videos")
        _check(self.fit != "pad", "[data] fit is 'pad', which pictures cannot follow: choose crop or stretch")
        _check(0 <= self.held_out < 1, f"[data] held_out is {self.held_out}: give 0 to below 1")
        for name in ("frames", "stride"):
            low, high = getattr(self, name)
            _check(1 <= low <= high, f"[data] {name} is {low} to {high}: give 1 or more, the smaller first")


@dataclass(frozen=True)
class TrainingConfig:
    """``[training]``: how the network learns.

    Attributes:
        batch: Clips a device takes at once.
        accumulate: Such batches to one step.
        learning_rate: Of AdamW.
        warmup: Steps over which the learning rate rises from 0.
        schedule: ``constant``; or ``cosine``, ``linear`` down to 0 at the last step.
        weight_decay: Of AdamW.
        betas: Of AdamW.
        clip_norm: Longest gradient; 0 does not shorten it.
        timestep_shift: s, by which uniformly drawn timesteps t, 0-1, become s t / (1 + (s − 1) t): above 1 for more of
            the noisiest, where the conditions alone decide (arXiv 2403.03206, section 5.3.2).
        ema: Decay of the averaged weights, which are the ones written out; in the first steps it rises from 0.1.
        precision: ``no`` (float32), ``bf16`` or ``fp16``; the weights themselves stay in float32.
        gradient_checkpointing: Less memory for about a third more time.
        workers: Processes that prepare clips on each device; 0 for the main one.
    """

    batch: int = 1
    accumulate: int = 1
    learning_rate: float = 5e-5
    warmup: int = 0
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    timestep_shift: float = 1.0
    ema: float = 0.9999
    precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_checkpointing: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        for name, least in {"batch": 1, "accumulate": 1, "warmup": 0, "workers": 0}.items():
            value = getattr(self, name)
            _check(value >= least, f"[training] {name} is {value}: give {least} or more")
        for name in ("learning_rate", "timestep_shift"):
            _check(0 < getattr(self, name) < math.inf, f"[training] {name} is {getattr(self, name)}: give above 0")
        for name in ("weight_decay", "clip_norm"):
            _check(0 <= getattr(self, name) < math.inf, f"[training] {name} is {getattr(self, name)}: give 0 or more")
        for name, values in {"betas": self.betas, "ema": (self.ema,)}.items():
            _check(all(0 <= v < 1 for v in values), f"[training] {name} is {getattr(self, name)}: give 0 to below 1")


@dataclass(frozen=True)
class DropoutConfig:
    """``[dropout]``: which conditions a sample has (paper, section 3.2).

    Four shares of the samples have fixed sets; all others drop each condition on its own.

    Attributes:
        image: Probability to drop the CLIP embedding.
        pose: Probability to drop the driving pose.
        reference: Probability to drop the reference picture's latent.
        reference_pose: Probability to drop the reference picture's pose.
        first_frame: Probability to drop the first frame.
        all_dropped: Share without any condition, for guidance.
        all_kept: Share with all conditions, as the next segment of a long video has them.
        from_reference: Share with all but the first frame, as a clip from a reference picture has them.
        from_first_frame: Share with image, first frame and driving pose, as a clip from its first frame has them.
    """

    image: float = 0.5
    pose: float = 0.5
    reference: float = 0.5
    reference_pose: float = 0.5
    first_frame: float = 0.5
    all_dropped: float = 0.1
    all_kept: float = 0.1
    from_reference: float = 0.1
    from_first_frame: float = 0.1

    @property
    def shares(self) -> dict[str, float]:
        """The shares with fixed sets."""
        return {name: getattr(self, name) for name in ("all_dropped", "all_kept", "from_reference", "from_first_frame")}

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = getattr(self, item.name)
            _check(0 <= value <= 1, f"[dropout] {item.name} is {value}: give 0 to 1")
        total = sum(self.shares.values())
        _check(total <= 1 + 1e-9, f"[dropout] {' + '.join(self.shares)} is {total:g}: give at most 1 in all")


@dataclass(frozen=True)
class ReportConfig:
    """``[report]``: what is written while it runs.

    Attributes:
        log: Steps from one row of ``log.jsonl`` to the next.
        checkpoint: Steps from one checkpoint to the next; the last step has one too.
        keep: How many checkpoints to keep.
        export: Precision of ``unianimate.safetensors``.
        samples: Steps from one sample sheet to the next; 0 for none.
        sample_clips: Clips on a sheet.
        sampling_steps: Of DDIM.
        guidance: Weight of the conditions.
        tensorboard: Write curves for TensorBoard, too.
    """

    log: int = 10
    checkpoint: int = 500
    keep: int = 2
    export: Literal["fp16", "bf16", "fp32"] = "fp16"
    samples: int = 1000
    sample_clips: int = 2
    sampling_steps: int = 25
    guidance: float = 2.5
    tensorboard: bool = False

    def __post_init__(self) -> None:
        for name in ("log", "checkpoint", "keep", "sample_clips", "sampling_steps"):
            _check(getattr(self, name) >= 1, f"[report] {name} is {getattr(self, name)}: give 1 or more")
        _check(self.samples >= 0, f"[report] samples is {self.samples}: give 0 or more")
        _check(self.sampling_steps <= 1000, f"[report] sampling_steps is {self.sampling_steps}: give 1 to 1000")
        _check(0 <= self.guidance < math.inf, f"[report] guidance is {self.guidance}: give 0 or more")


@dataclass(frozen=True)
class RunConfig:
    """A training run.

    Attributes:
        output: Folder of the run: checkpoints, weights, log, pictures.
        seed: Of everything random.
        steps: Steps of the optimiser in all.
        model: What is trained.
        data: On what.
        training: How.
        dropout: Which conditions samples have.
        report: What is written.
    """

    output: Path
    steps: int
    model: ModelConfig
    data: DataConfig
    seed: int = 0
    training: TrainingConfig = field(default_factory=TrainingConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    report: ReportConfig = field(default_factory=ReportConfig)

    def __post_init__(self) -> None:
        _check(self.steps >= 1, f"steps is {self.steps}: give 1 or more")
        _check(0 <= self.seed < 2**63, f"seed is {self.seed}: give 0 to {2**63 - 1}")

    def plain(self) -> dict[str, Any]:
        """The configuration as JSON can hold it, paths relative to the run's folder, so that both can be moved."""
        return _plain(dataclasses.asdict(self), self.output)


def _check(condition: object, message: str) -> None:
    if not condition:
        raise InputError(message)


def _plain(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item, folder) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, folder) for item in value]
    if not isinstance(value, Path):
        return value
    try:
        return Path(os.path.relpath(value, folder)).as_posix()
    except ValueError:  # on another drive of Windows
        return str(value)
