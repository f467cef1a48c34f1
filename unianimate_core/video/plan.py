"""Which frames of a motion belong to which segment of a long video (paper, section 3.2, first-frame chaining)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import InputError

LastSegment = Literal["shorten", "overlap", "pad"]


@dataclass(frozen=True)
class Segment:
    """One segment: it is made as ``length`` frames, of which it adds ``added`` to the video.

    Attributes:
        start: The motion's frame that its first one shows.
        length: Frames to make.
        shared: Its first frames, which the segments before have made too; 0 for the first segment. The first of them
            is the start frame that it goes on from.
        padding: Its last frames, beyond the motion's end, where the motion's last pose stands; they are cut.
    """

    start: int
    length: int
    shared: int = 0
    padding: int = 0

    @property
    def end(self) -> int:
        """The first frame of the motion behind it."""
        return self.start + self.length - self.padding

    @property
    def added(self) -> int:
        """Frames that it adds to the video."""
        return self.length - self.shared - self.padding

    def poses(self) -> list[int]:
        """The motion's frame for each of its frames; the last one repeated over the padding."""
        return [min(frame, self.end - 1) for frame in range(self.start, self.start + self.length)]


def plan_segments(frames: int, length: int, shared: int = 1, last: LastSegment = "shorten") -> list[Segment]:
    """Cut a motion into segments, each going on from a frame of the one before.

    10 frames in segments of 4 that share 1 are 0-3, 3-6, 6-9. 9 frames are 0-3, 3-6 and what ``last`` says: 6-8
    (shorten), 5-8, of which 2 are shared (overlap), or 6-9, of which the last is cut (pad).

    Args:
        frames: Of the motion, 1 or more.
        length: Of a segment, 2 or more; the public weights know 16 and 32.
        shared: Frames that a segment has in common with the one before, 1 to length - 1.
        last: What becomes of a last segment that the motion does not fill; a motion shorter than one segment is one
            segment of its own length, or padded.

    Raises:
        InputError: A number is out of range.
    """
    if frames < 1:
        raise InputError(f"a motion of {frames} frames cannot be cut into segments: give 1 or more")
    if length < 2:
        raise InputError(f"segment length is {length}: give 2 or more, 16 and 32 are what the public weights know")
    if not 1 <= shared < length:
        raise InputError(f"{shared} shared frames in segments of {length}: give 1 to {length - 1}")
    if last not in get_args(LastSegment):
        raise InputError(f"last segment {last!r} is unknown: choose {', '.join(get_args(LastSegment))}")
    starts = range(0, max(1, frames - shared), length - shared)
    segments = [Segment(start, length, shared if start else 0) for start in starts]
    if lacking := segments[-1].end - frames:
        start, common = starts[-1], segments[-1].shared
        if last == "pad":
            segments[-1] = Segment(start, length, common, lacking)
        elif last == "shorten" or frames < length:
            segments[-1] = Segment(start, length - lacking, common)
        else:
            segments[-1] = Segment(start - lacking, length, common + lacking)
    return segments


def join_shared(before: Tensor, after: Tensor) -> Tensor:
    """Cross-fade the frames that two segments share; the first of them, which the second began from, stays as it is.

    Args:
        before: The frames as the earlier segment made them, s h w 3.
        after: The same frames as the later segment made them, s h w 3.

    Returns:
        s h w 3.
    """
    share = torch.arange(len(before), device=before.device, dtype=before.dtype) / max(1, len(before))
    return before.lerp(after.to(before), share[:, None, None, None])
