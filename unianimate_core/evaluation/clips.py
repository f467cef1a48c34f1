"""The clips that are evaluated: videos on disk with the poses in them, cut and brought to one size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..data_folder import Source, find_sources, read_track
from ..errors import InputError
from ..pose import MotionTrack, draw_motion
from ..video import fit_picture, read_video
from .parts import Parts, read_parts

USUAL_FPS = 30.0


@dataclass(frozen=True)
class Clip:
    """A true video, as it is on disk.

    Attributes:
        source: Its files.
        frames: uint8 f h w 3.
        fps: Frames per second; 30 where the file names none that a video can be written with.
        track: The person's pose in each frame, as fractions of it; None where there is none.
        parts: Of a synthetic person.
    """

    source: Source
    frames: np.ndarray
    fps: float
    track: MotionTrack | None
    parts: Parts | None

    @property
    def path(self) -> Path:
        """Of the video."""
        return self.source.video


@dataclass(frozen=True)
class GroundTruth:
    """A clip in the size and length in which it is compared.

    Attributes:
        name: Of the clip, see `list_videos`.
        frames: uint8 f H W 3.
        reference: The reference picture, uint8 H W 3.
        track: The person's pose in each frame, on a canvas of W x H, or None.
        fps: Frames per second.
        parts: Of a synthetic person, in this size and length.
    """

    name: str
    frames: np.ndarray
    reference: np.ndarray
    track: MotionTrack | None
    fps: float
    parts: Parts | None

    @property
    def pose(self) -> np.ndarray | None:
        """Skeleton pictures, uint8 f H W 3, or None."""
        return None if self.track is None else draw_motion(self.track, self.track.width, self.track.height)


def list_videos(folder: str | Path) -> dict[str, Source]:
    """The videos in and below a folder by their names: the path below the folder, without the suffix.

    Raises:
        InputError: There is no such folder, no video in it, or two with one name.
    """
    sources = find_sources((Path(folder),))
    names = [clip_name(source) for source in sources]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise InputError(f"{folder} has {times} videos named {name}: leave one")
    return dict(zip(names, sources, strict=True))


def clip_name(source: Source) -> str:
    """A video's path below its folder, without the suffix, as ``dancers/anna``."""
    return source.name.removesuffix(source.video.suffix)


def read_clip(source: Source, poses: bool = True) -> Clip:
    """Read a video with what lies beside it: its poses, and ``parts/<stem>.npz`` if there is one.

    Args:
        source: Its files.
        poses: Whether its poses are needed; else they are read where there are any.

    Raises:
        InputError: A file is missing or damaged, or one has another number of frames than the video.
    """
    path = source.video
    frames, fps = read_video(path)
    parts_file = path.parent / "parts" / f"{path.stem}.npz"
    track = parts = None
    if poses or source.motion is not None:
        try:
            track = read_track(source, frames)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
    if parts_file.exists():
        parts = read_parts(parts_file)
        if len(frames) != len(parts):
            raise InputError(f"{path} has {len(frames)} frames, {parts_file} has {len(parts)}: give as many")
        if parts.labels.shape[1:] != frames.shape[1:3]:
            raise InputError(f"{parts_file} is for pictures of {parts.labels.shape[1:]}, not {frames.shape[1:3]} (H W)")
    return Clip(source, frames, fps if 0.1 <= fps <= 1000 else USUAL_FPS, track, parts)


def cut_clip(
    clip: Clip, size: tuple[int, int] | None, start: int, frames: int | None, reference: int, least: int = 1
) -> GroundTruth:
    """Cut a clip and fit it to the size of the comparison.

    Args:
        clip: From `read_clip`.
        size: Width and height; video and poses are cropped at the centre to that shape and resized, as in training.
            None leaves the video's own.
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
    picture, box = fit_picture(_floats(clip.frames[reference]), width, height)
    track = None
    if clip.track is not None:
        track = replace(clip.track[start:stop].crop(*box), width=width, height=height)
    return GroundTruth(
        name=clip_name(clip.source),
        frames=fit_frames(clip.frames[start:stop], width, height),
        reference=_bytes(picture),
        track=track,
        fps=clip.fps,
        parts=None if clip.parts is None else clip.parts.cut(start, stop).fit(width, height),
    )


def fit_frames(frames: np.ndarray, width: int, height: int) -> np.ndarray:
    """Frames uint8 f h w 3 cropped and resized as `fit_picture` does, rounded to uint8 f height width 3."""
    if frames.shape[1:3] == (height, width):
        return frames
    return np.stack([_bytes(fit_picture(_floats(frame), width, height)[0]) for frame in frames])


def _floats(frame: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(frame)) / 255


def _bytes(picture: torch.Tensor) -> np.ndarray:
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
