"""`unianimate pose`."""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..output import check_folder, check_output, write_picture
from .people import CHOICES
from .plots import PLOTS, check_plot

if TYPE_CHECKING:
    from .detection import PoseDetector
    from .keypoints import MotionTrack

Choice = Enum("Choice", {choice: choice.replace(" ", "-") for choice in CHOICES}, type=str)
LARGEST = Choice[CHOICES[0]]
Plot = Enum("Plot", {name: name for name in PLOTS}, type=str)
TRACKS = Plot["tracks"]


def pose(
    source: Annotated[Path, typer.Argument(help="A video, a picture, or a folder of videos as `train` reads it.")],
    detector: Annotated[Path, typer.Option(help="DWPose's yolox_l.onnx, or its TorchScript version.")],
    keypoints: Annotated[Path, typer.Option(help="DWPose's dw-ll_ucoco_384.onnx, or its TorchScript version.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="JSON file, or a folder for a file a frame.", show_default="beside"),
    ] = None,
    provider: Annotated[
        list[str] | None,
        typer.Option(help="CUDA, TensorRT, DirectML, CoreML or CPU; may be repeated.", show_default="best installed"),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second to take.", show_default="the video's")] = None,
    choose: Annotated[Choice, typer.Option(help="Who of several people.")] = LARGEST,
    index: Annotated[int, typer.Option(min=0, help="See --choose: how many to pass over, or place in the list.")] = 0,
    point: Annotated[str, typer.Option(help="See --choose: x,y as fractions of the picture.")] = "0.5,0.5",
    everyone: Annotated[bool, typer.Option("--everyone", help="Keep all people.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="As detected: outliers, gaps and jitter are left in.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Also a PNG of the motion, before and after cleaning.")] = None,
    plot_kind: Annotated[Plot, typer.Option(help="See --plot; of several people the first.")] = TRACKS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
) -> None:
    """Find the poses of people in videos (DWPose), as JSON that the other commands and the nodes read."""
    from ..console import note, progress_bars
    from ..data_folder import find_sources
    from .detection import PoseDetector

    place = _point(point)
    if output is not None:
        check_folder(output.parent)
    if plot is not None:
        check_plot(plot_kind.value)
        check_output(plot, (".png",), overwrite)

    def pick(frames: list[dict[str, Any]]) -> list[dict[str, Any]]:
        from .people import follow_everyone, follow_person

        if everyone:
            return follow_everyone(frames)
        return follow_person(frames, choose.name, index=index, point=place)

    if not source.is_dir():
        jobs = [(source, output or source.with_suffix(".json"))]
    else:
        single = {"--output": output, "--fps": fps, "--plot": plot}
        if what := next((option for option, value in single.items() if value is not None), None):
            raise InputError(f"{what} is for one video: in a folder, poses go beside each video, frame by frame")
        found = find_sources([source])
        jobs = [(one.video, one.video.with_suffix(".json")) for one in found if one.motion is None or overwrite]
        note(f"{len(found)} videos, {len(found) - len(jobs)} of them with poses already.")
    for _, target in jobs:
        if target.exists() and not overwrite:
            raise InputError(f"{target} exists already: choose another name, or give --overwrite")
    networks = PoseDetector(detector, keypoints, provider or None)
    note(f"Detecting on {', '.join(networks.providers)}.")
    failed = []
    with progress_bars() as progress:
        videos = progress.add_task("videos", total=len(jobs), visible=len(jobs) > 1)
        for video, target in jobs:
            bar = progress.add_task(video.name, total=None)

            def show(done: int, total: int | None, bar: Any = bar) -> None:
                progress.update(bar, completed=done, total=total)

            try:
                before, after, said = _extract(networks, video, target, fps, pick, raw, overwrite, show)
                note(f"{target}: {said}")
            except InputError as error:
                if not source.is_dir():
                    raise
                failed.append(f"{video}: {error}")
            progress.update(bar, visible=len(jobs) == 1)
            progress.advance(videos)
    if plot is not None:
        write_picture(PLOTS[plot_kind.value](after, before=None if raw else before), plot)
    for line in failed:
        note(f"Skipped {line}")
    if failed and len(failed) == len(jobs):
        raise InputError(f"none of the {len(jobs)} videos in {source} could be used")


def _extract(
    detector: PoseDetector,
    video: Path,
    target: Path,
    fps: float | None,
    pick: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    raw: bool,
    overwrite: bool,
    show: Callable[[int, int | None], None],
) -> tuple[MotionTrack, MotionTrack, str]:
    """Write one video's poses; the first person's motion before and after cleaning, and what there is to say."""
    from ..video import VideoReader
    from .detection import people_to_frame
    from .files import write_pose_frames
    from .several import join_people, split_people

    with VideoReader(video, fps) as reader:
        frames = []
        for people in detector.detect_frames(reader):
            frames.append(people_to_frame(people, reader.width, reader.height))
            show(len(frames), reader.frames)
        show(len(frames), len(frames))
    if not any(frame["people"] for frame in frames):
        raise InputError(f"nobody was found in any of the {len(frames)} frames of {video}")
    try:
        frames = pick(frames)
    except InputError as error:
        write_pose_frames(frames, target, overwrite)
        raise InputError(f"{error} All people are in {target}, as detected.") from error
    before = after = split_people(frames)
    if not raw:
        after = [_cleaned(track, reader.fps or 30.0) for track in before]
        frames = join_people(after)
    write_pose_frames(frames, target, overwrite)
    empty = sum(not frame["people"] for frame in frames)
    said = [f"{len(frames)} frames"] + ([f"{empty} of them show nobody"] if empty else [])
    return before[0], after[0], ", ".join(said) + (f". {reader.problem}" if reader.problem else ".")


def _cleaned(track: MotionTrack, fps: float) -> MotionTrack:
    from .cleaning import drop_flicker, drop_outliers, fill_gaps, smooth

    return smooth(fill_gaps(drop_outliers(drop_flicker(track)), method="linear"), fps=min(max(fps, 1.0), 1000.0))


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise InputError(f"--point is {text!r}: write x,y, for example 0.5,0.5") from None
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InputError(f"--point is {text!r}: write two numbers, for example 0.5,0.5")
    return x, y
