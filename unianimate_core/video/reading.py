"""Reads a whole video: for contact sheets, and to look at what was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..optional import require
from .writing import BT709

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".gif", ".m4v")


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """Read a whole video into memory, upright.

    Args:
        path: Any video that FFmpeg reads.

    Returns:
        Frames, uint8 f h w 3, RGB; and frames per second.

    Raises:
        InputError: The file is missing or holds no readable video, or PyAV is missing.
    """
    path = Path(path)
    pyav = require("av", "the extra `standalone` of this package")
    if not path.is_file():
        raise InputError(f"no video at {path}: check the path")
    try:
        with pyav.open(str(path)) as container:
            if not container.streams.video:
                raise InputError(f"{path} has no video in it: give another file")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            frames = [_upright(frame) for frame in container.decode(stream)]
            rate = stream.average_rate or stream.guessed_rate
    except (OSError, pyav.FFmpegError) as error:
        raise InputError(f"{path} cannot be read as a video ({error}): it may be truncated or damaged") from error
    if not frames:
        raise InputError(f"{path} has no frames: give another file")
    return np.stack(frames), float(rate or 0)  # f h w 3


def _upright(frame: av.VideoFrame) -> np.ndarray:
    # A phone stores upright video lying, with the angle beside it, counter-clockwise (known to PyAV from 14.2 on).
    quarters = round((getattr(frame, "rotation", 0) or 0) / 90)
    if frame.colorspace == BT709:  # PyAV before 17 looks at the tag only where source and target differ
        frame = frame.reformat(format="rgb24", src_colorspace="ITU709", dst_colorspace="DEFAULT")
    return np.rot90(frame.to_ndarray(format="rgb24"), quarters)
