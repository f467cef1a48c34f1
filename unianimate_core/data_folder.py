"""A folder of videos with their poses, as training and evaluation read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .errors import InputError
from .pose import MotionTrack, read_motion
from .video.reading import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Source:
    """A video of a data folder.

    Attributes:
        name: Its path below the data folder, for messages.
        video: The file.
        motion: A JSON file of keypoints, or a folder of them; None where there is none.
    """

    name: str
    video: Path
    motion: Path | None

    def poses(self) -> Path:
        """The motion.

        Raises:
            InputError: There is none; the video is called "it".
        """
        if self.motion is None:
            stem = self.video.stem
            raise InputError(
                f"there are no poses beside it: give {stem}.json, or a folder {stem} of OpenPose's files, or find them "
                "with `unianimate pose`"
            )
        return self.motion

    def pose_files(self) -> list[Path]:
        """The files of the motion, by name; as `poses`."""
        poses = self.poses()
        return [poses] if poses.is_file() else sorted(poses.glob("*.json"))


def find_sources(folders: Sequence[Path]) -> list[Source]:
    """All videos in and below some folders, by name.

    The poses of ``clip.mp4`` are ``clip.json`` or the files in a folder ``clip``, beside it.

    Raises:
        InputError: A folder is missing, or there is no video in any.
    """
    sources = []
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}: give a folder of videos")
        for video in sorted(folder.rglob("*")):
            if video.suffix.lower() in VIDEO_SUFFIXES and not video.name.startswith(".") and video.is_file():
                beside = (video.with_suffix(".json"), video.with_suffix(""))
                motion = next((path for path in beside if path.exists()), None)
                sources.append(Source(video.relative_to(folder).as_posix(), video, motion))
    if not sources:
        shown, suffixes = ", ".join(map(str, folders)), ", ".join(VIDEO_SUFFIXES)
        raise InputError(f"there is no video in {shown}: give a folder of {suffixes} files")
    return sources


def read_track(source: Source, frames: np.ndarray) -> MotionTrack:
    """The poses of a video, as fractions of its picture; files that do not name a canvas have the video's.

    Args:
        source: The video.
        frames: Of the video, f h w 3.

    Raises:
        InputError: There are none, they cannot be read, or are of another length; the video is called "it".
    """
    poses = source.poses()
    track = read_motion(poses, canvas=(frames.shape[2], frames.shape[1]))
    if len(track) != len(frames):
        raise InputError(f"it has {len(frames)} frames, its poses {poses.name} {len(track)}: give as many")
    return track
