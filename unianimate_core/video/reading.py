"""Reads videos picture by picture, in the memory that a few pictures take; or whole."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np

from ..errors import InputError
from ..optional import OPENCV, require
from .sources import Broken, Shot, open_source

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm", ".avi", ".gif", ".m4v")


class VideoReader:
    """The frames of a video, one after the other; a context manager, and an iterable that starts anew each time.

    Frames are uint8 (height, width, 3), RGB, each an array of its own. They are upright (the rotation that a phone
    wrote is applied), with square pixels, and in the colours that the file's tags tell (BT.601 where it has none; an
    alpha channel is dropped and the RGB under it kept, as `read_picture` does). Where a frame has another size than the
    first, it is scaled to fit into it, in the middle and on black. No more than one frame is held, apart from those
    that the decoder holds.

    Without `fps`, every frame comes once, however long it is shown. With it, frames come at that constant rate from the
    first frame's time on: each is the latest whose time, rounded to the new rate, has come, as in FFmpeg's fps filter.
    So frames are repeated or left out where the rates differ or the video's own varies, and time stamps that shake by
    less than half an interval change nothing. A time stamp that goes back, or on by more than an hour, counts as one
    usual interval.

    A video that breaks off, or is damaged so that decoding stops, gives the frames before that place; `problem` then
    tells. Damage that the decoder conceals is not noticed, nor that a file was cut which does not store how long it is.

    Args:
        path: A video, or a GIF (any that FFmpeg reads); a picture, which is one frame, or an animated WebP or PNG (any
            that Pillow reads); or a folder of pictures, each a frame, in the order of the numbers in their names. The
            last and a single picture have no times: each comes once, whatever `fps`.
        fps: Frames per second to read at; None for those of the video.

    Attributes:
        path: As given.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        fps: Frames per second as they come, the average where it varies; 0 for pictures without times, unless given.
        frames: How many will come, about; None where the file does not tell.
        problem: What broke the last reading off and after how many frames; None where nothing did.

    Raises:
        InputError: The file is missing, holds no video of which a frame can be read, the folder holds no picture,
            fps is not in 0.1–1000, or PyAV or Pillow is missing.
    """

    def __init__(self, path: str | Path, fps: float | Fraction | None = None) -> None:
        if fps is not None and not (math.isfinite(fps) and 0.1 <= fps <= 1000):
            raise InputError(f"a video cannot be read at {fps} frames per second: give 0.1 to 1000")
        self.path = Path(path)
        self._source = source = open_source(self.path)
        self.width, self.height = source.width, source.height
        self.fps = float(fps or source.fps or 0)
        self.frames = source.frames
        self.problem: str | None = None
        self._rate = None
        if fps is not None and source.fps is not None:
            self._rate = Fraction(fps).limit_denominator(1001)  # as VideoWriter does
            self.frames = None if source.seconds is None else max(1, _whole(source.seconds * self._rate))
        self._reading: Generator[np.ndarray, None, None] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        self.close()
        self.problem = None
        self._reading = self._read()
        return self._reading

    def close(self) -> None:
        """Close the file; the iteration that is under way ends."""
        if self._reading is not None:
            with suppress(ValueError):  # another thread is in it at this moment, and closes it when it lets go
                self._reading.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _read(self) -> Generator[np.ndarray, None, None]:
        given = 0
        with closing(self._source.shots()) as shots:
            pictures = (shot.pixels() for shot in shots) if self._rate is None else _at_rate(shots, self._rate)
            try:
                for pixels in pictures:
                    given += 1
                    yield _fitted(pixels, self.width, self.height)
            except Broken as reason:
                frames = f"{given} frame" if given == 1 else f"{given} frames"
                self.problem = f"{self.path} breaks off after {frames} ({reason}): mend it, or get it again"


def read_video(path: str | Path) -> tuple[np.ndarray, float]:
    """Read a whole video into memory, upright; all that `VideoReader` reads.

    Returns:
        Frames, uint8 f h w 3, RGB; and frames per second.

    Raises:
        InputError: As `VideoReader`; or the video breaks off before its end.
    """
    with VideoReader(path) as reader:
        frames = list(reader)
    if reader.problem is not None:
        raise InputError(reader.problem)
    return np.stack(frames), reader.fps  # f h w 3


def _at_rate(shots: Iterator[Shot], rate: Fraction) -> Iterator[np.ndarray]:
    """Pictures at a constant rate; raises `Broken` after the last, as the shots do."""
    held, given, start, broken = None, 0, Fraction(0), None

    def until(time: Fraction) -> int:
        return _whole((time - start) * rate) - given

    try:
        for shot in shots:
            if held is None:
                start = shot.time
            else:
                times = until(shot.time)
                yield from _repeated(held, times)
                given += times
            held = shot
    except Broken as error:
        broken = error
    if held is not None:
        yield from _repeated(held, max(until(held.time + held.duration), 0 if given else 1))
    if broken is not None:
        raise broken


def _whole(number: Fraction) -> int:
    """Rounded, halves up."""
    return math.floor(number + Fraction(1, 2))


def _repeated(shot: Shot, times: int) -> Iterator[np.ndarray]:
    if times < 1:
        return
    pixels = shot.pixels()
    for _ in range(times - 1):
        yield pixels.copy()
    yield pixels


def _fitted(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scaled into a size without a change of shape, in the middle and on black: uint8 height width 3."""
    own_height, own_width = pixels.shape[:2]
    if (own_width, own_height) == (width, height):
        return pixels
    cv2 = require("cv2", OPENCV)
    scale = min(width / own_width, height / own_height)
    size = max(1, round(own_width * scale)), max(1, round(own_height * scale))
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)  # H W 3
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[top : top + size[1], left : left + size[0]] = cv2.resize(pixels, size, interpolation=way)
    return canvas
