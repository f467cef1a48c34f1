"""The clips that are evaluated: videos on disk with the poses in them, cut and brought to one size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..errors import InputError
from ..pose import MotionTrack, draw_motion, fit_track, read_motion
from ..video import fit_picture, read_video
from .parts import Parts, read_parts

VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif")


@dataclass(frozen=True)
class Clip:
    """A true video, as it is on disk.

    Attributes:
        path: Of the video; its stem names the clip.
        frames: uint8 f h w 3.
        fps: Frames per second.
        track: The person's pose in each frame; None where it was not asked for.
        parts: Of a synthetic person.
    """

    path: Path
    frames: np.ndarray
    fps: float
    track: MotionTrack | None
    parts: Parts | None


@dataclass(frozen=True)
class Truth:
    """A clip in the size and length in which it is compared.

    Attributes:
        name: Of the clip.
        frames: uint8 f H W 3.
        reference: The reference picture, uint8 H W 3.
        pose: Skeleton pictures, uint8 f H W 3, or None.
        fps: Frames per second.
        parts: Of a synthetic person, in this size and length.
    """

    name: str
    frames: np.ndarray
    reference: np.ndarray
    pose: np.ndarray | None
    fps: float
    parts: Parts | None


def list_videos(folder: str | Path) -> dict[str, Path]:
    """The videos of a folder by their stems, in the order of their names.

    Raises:
        InputError: There is no such folder, no video in it, or two with one stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}: give a folder of videos")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in VIDEO_SUFFIXES and file.is_file())
    files = [file for file in files if not file.name.startswith(".")]
    if not files:
        raise InputError(f"{folder} has no video in it: put {', '.join(VIDEO_SUFFIXES)} files there")
    stem, times = Counter(file.stem for file in files).most_common(1)[0]
    if times > 1:
        raise InputError(f"{folder} has {times} videos named {stem}: leave one")
    return {file.stem: file for file in files}


def read_clip(path: Path, poses: bool = True) -> Clip:
    """Read a video with what lies beside it: ``<stem>.json`` with its poses, ``parts/<stem>.npz`` if there is one.

    Args:
        path: The video.
        poses: Whether its poses are needed; else they are read where there are any.

    Raises:
        InputError: A file is missing or damaged, or one has another number of frames than the video.
    """
    frames, fps = read_video(path)
    track_file, parts_file = path.with_suffix(".json"), path.parent / "parts" / f"{path.stem}.npz"
    track = parts = None
    if poses or track_file.exists():
        if not track_file.exists():
            raise InputError(f"{path} has no poses: put {track_file.name} beside it")
        track = read_motion(track_file)
        _check_length(path, frames, track_file, len(track))
    if parts_file.exists():
        parts = read_parts(parts_file)
        _check_length(path, frames, parts_file, len(parts))
        if parts.labels.shape[1:] != frames.shape[1:3]:
            raise InputError(f"{parts_file} is for pictures of {parts.labels.shape[1:]}, not {frames.shape[1:3]} (H W)")
    return Clip(path, frames, fps, track, parts)


def cut_clip(
    clip: Clip, size: tuple[int, int] | None, start: int, frames: int | None, reference: int, least: int = 1
) -> Truth:
    """Cut a clip and fit it to the size of the comparison.

    Args:
        clip: From `read_clip`.
        size: Width and height; cropped at the centre to that shape and resized, as `animate` does with the reference
            picture and the motion. None leaves the video's own.
        start: First frame to compare.
        frames: How many at most; None for all.
        reference: The frame that is the reference picture.
        least: How many frames there must be.

    Raises:
        InputError: The video has too few frames for that.
    """
    count = len(clip.frames)
    needed = max(start + least, reference + 1)
    if count < needed:
        raise InputError(f"{clip.path} has {count} frames, {needed} are needed")
    stop = count if frames is None else min(count, start + frames)
    width, height = size or (clip.frames.shape[2], clip.frames.shape[1])
    pose = None
    if clip.track is not None:
        pose = draw_motion(fit_track(clip.track[start:stop], width, height), width, height)
    return Truth(
        name=clip.path.stem,
        frames=fit_frames(clip.frames[start:stop], width, height),
        reference=fit_frames(clip.frames[reference : reference + 1], width, height)[0],
        pose=pose,
        fps=clip.fps,
        parts=None if clip.parts is None else clip.parts.cut(start, stop).fit(width, height),
    )


def fit_frames(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """Frames uint8 f h w 3 cropped and resized as `fit_picture` does, rounded to uint8 f height width 3."""
    if frames.shape[1:3] == (height, width):
        return frames
    fitted = (fit_picture(torch.from_numpy(frame) / 255, width, height)[0] for frame in frames)
    return np.stack([(picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy() for picture in fitted])


def _check_length(video: Path, frames: np.ndarray, other: Path, count: int) -> None:
    if len(frames) != count:
        raise InputError(f"{video} has {len(frames)} frames, {other} has {count}: they must be of the same length")
