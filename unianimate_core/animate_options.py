"""The options of `unianimate animate`, which are the columns of `unianimate batch`'s table, too."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from .assets import SMALL_SIZE
from .console import PUBLIC_SIZE
from .diffusion.noise import CLIP_PRIOR, LONG_VIDEO_PRIOR
from .diffusion.windows import WindowWeights
from .model_options import (
    CheckpointOption,
    ClipOption,
    DeviceOption,
    DTypeOption,
    GuidanceOption,
    StepsOption,
    VaeOption,
)
from .pose.alignment import MODES
from .video.formats import CODECS, PICTURES
from .video.plan import LastSegment

CLIP_FRAMES = 16
SEGMENT_FRAMES = {True: 16, False: 32}
"""Of a segment, where none are asked for: of the small model, of others."""


def _names(title: str, values: tuple[str, ...]) -> Any:
    return Enum(title, {value: value for value in values}, type=str)


AlignMode = Enum("AlignMode", {mode: mode.replace(" ", "-") for mode in MODES if mode != "none"}, type=str)
FitName = _names("FitName", ("crop", "pad", "stretch"))
CodecName = _names("CodecName", (*CODECS, PICTURES))
LastName = _names("LastName", get_args(LastSegment))
WeightsName = _names("WeightsName", get_args(WindowWeights))
PriorName = _names("PriorName", ("reference", "start-frame", "nothing"))
ColoursName = _names("ColoursName", ("free", "reference", "first-segment"))


@dataclass(frozen=True)
class AnimateOptions:
    """As they were given, not checked yet; what each means is its help."""

    reference: Annotated[Path, typer.Option(help="Picture of the person to animate.")]
    motion: Annotated[Path, typer.Option(help="JSON of POSE_KEYPOINT frames, a folder of OpenPose JSON files, or CSV.")]
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Video to write: .mp4, .mov, .mkv, .webm, .gif, .webp; see --codec.")
    ]
    checkpoint: CheckpointOption = None
    vae: VaeOption = None
    clip: ClipOption = None
    reference_pose: Annotated[
        Path | None,
        typer.Option(help="JSON with the pose of the person in the picture.", show_default="as in the motion"),
    ] = None
    align: Annotated[
        AlignMode | None,
        typer.Option(help="Give the motion the proportions and place of --reference-pose.", show_default="not"),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(help="Width x height.", show_default=f"{PUBLIC_SIZE}, {SMALL_SIZE} for the small model"),
    ] = None
    frames: Annotated[
        str | None,
        typer.Option(
            help="Frames of the video; all (or 0) for all of the motion.", show_default=f"up to {CLIP_FRAMES}"
        ),
    ] = None
    start: Annotated[int, typer.Option(help="First frame of the motion to use, from 0.")] = 0
    steps: StepsOption = 30
    guidance: GuidanceOption = None
    noise_prior: Annotated[
        int | None,
        typer.Option(
            help="Timestep of the noise prior, 0 to 999; 0 for pure noise.",
            show_default=f"{CLIP_PRIOR}, {LONG_VIDEO_PRIOR} for a long video",
        ),
    ] = None
    seed: Annotated[int, typer.Option(help="Same seed, same video.")] = 0
    fps: Annotated[float, typer.Option(help="Frames per second of the video.")] = 30.0
    fit: Annotated[FitName, typer.Option(help="Motion on a canvas of another aspect ratio.")] = FitName.crop
    person: Annotated[int, typer.Option(help="Which of several people in the motion, from 0, the largest first.")] = 0
    canvas: Annotated[
        str | None, typer.Option(help="Width x height of the motion's pictures, where its files do not say it.")
    ] = None
    codec: Annotated[
        CodecName | None,
        typer.Option(
            help="How frames are stored; png makes --output a folder of pictures.", show_default="by --output"
        ),
    ] = None
    audio: Annotated[
        Path | None, typer.Option(help="Video or sound file, as long as the video, whose sound goes into it.")
    ] = None
    segment: Annotated[
        int | None,
        typer.Option(
            help="Make the video in segments of so many frames, each from the last one of the one before; 0 for one "
            "clip of all frames.",
            show_default=f"{SEGMENT_FRAMES[False]}, {SEGMENT_FRAMES[True]} for the small model; none for fewer frames "
            "or with --window",
            rich_help_panel="Long videos",
        ),
    ] = None
    shared: Annotated[
        int,
        typer.Option(
            help="Frames that neighbouring segments share; cross-faded where there are several.",
            rich_help_panel="Long videos",
        ),
    ] = 1
    last: Annotated[
        LastName,
        typer.Option(
            help="A last segment that the motion does not fill is made shorter, shares more, or is made whole and cut.",
            rich_help_panel="Long videos",
        ),
    ] = LastName.shorten
    segment_prior: Annotated[
        PriorName,
        typer.Option(
            help="What the noise prior of later segments is made of.",
            rich_help_panel="Long videos",
        ),
    ] = PriorName.reference
    colours: Annotated[
        ColoursName,
        typer.Option(
            help="Hold the segments' colours, of person and background apart, to those of the picture or of the first "
            "segment.",
            rich_help_panel="Long videos",
        ),
    ] = ColoursName.free
    window: Annotated[
        int | None,
        typer.Option(
            help="Frames the network sees at once; windows slide over a segment, or over the video.",
            show_default="all of a segment",
            rich_help_panel="Long videos",
        ),
    ] = None
    overlap: Annotated[
        int, typer.Option(help="Frames that neighbouring windows share.", rich_help_panel="Long videos")
    ] = 0
    window_weights: Annotated[
        WeightsName, typer.Option(help="Of a window's frames in the average.", rich_help_panel="Long videos")
    ] = WeightsName.uniform
    windows_at_once: Annotated[
        int | None,
        typer.Option(
            help="Windows in one pass of the network.", show_default="as many as fit", rich_help_panel="Long videos"
        ),
    ] = None
    dtype: DTypeOption = None
    device: DeviceOption = None
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing video.")] = False
