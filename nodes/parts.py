"""Which segments a long video is made of, and from which seeds."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from ..unianimate_core.errors import InputError
from ..unianimate_core.video.plan import LastSegment, Segment, plan_segments

FRAMES_OF_THE_STACK = 150  # that Python's recursion limit leaves to ComfyUI itself


@dataclass(frozen=True)
class Part:
    """One segment to make.

    Attributes:
        number: From 1.
        segment: Its frames, counted from the first frame of the motion that is used.
        start_frame: That of the motion itself.
        seed: Of its noise.
    """

    number: int
    segment: Segment
    start_frame: int
    seed: int

    def describe(self) -> str:
        """One line for a person."""
        last = self.start_frame + self.segment.length - self.segment.padding - 1
        shared = f", {self.segment.shared} of them shared" if self.segment.shared else ""
        padding = f", {self.segment.padding} more made and cut" if self.segment.padding else ""
        return f"segment {self.number}: frames {self.start_frame} to {last}{shared}{padding}, seed {self.seed}"


def plan_parts(
    available: int,
    start_frame: int,
    length: int,
    segment_length: int,
    shared_frames: int,
    last_segment: LastSegment,
    noise_seed: int,
    segment_seeds: str,
) -> list[Part]:
    """Cut a motion into segments, and give each its seed: that of the first, and one more for each further one.

    Args:
        available: Frames of the motion.
        start_frame: First one to use.
        length: Frames to use; 0 for all that are left.
        segment_length: See `plan_segments`, as the two that follow.
        shared_frames: The same.
        last_segment: The same.
        noise_seed: Of segment 1.
        segment_seeds: Other seeds for some segments, such as ``3: 77, 5: 12``.

    Raises:
        InputError: A number is out of range, or the seeds cannot be read.
    """
    if start_frame >= available:
        raise InputError(f"the motion has {available} frames: lower start_frame from {start_frame} below that")
    if length > available - start_frame:
        raise InputError(
            f"the motion has {available} frames, but start_frame {start_frame} and length {length} need "
            f"{start_frame + length}: lower length to {available - start_frame}, or set it to 0 for all"
        )
    segments = plan_segments(length or available - start_frame, segment_length, shared_frames, last_segment)
    seeds = _read_seeds(segment_seeds, len(segments))
    return [
        Part(number, segment, start_frame + segment.start, seeds.get(number, (noise_seed + number - 1) % 2**64))
        for number, segment in enumerate(segments, start=1)
    ]


def describe(parts: Sequence[Part]) -> str:
    """The plan for a person, a line each."""
    return "\n".join(part.describe() for part in parts)


def _read_seeds(text: str, segments: int) -> dict[int, int]:
    """Seeds by the segment's number."""
    seeds = {}
    for entry in filter(None, re.split(r"[,;\s]*[,;\n]\s*", text.strip())):
        match = re.fullmatch(r"(\d+)\s*:\s*(\d+)", entry)
        if not match:
            raise InputError(f"segment_seeds: {entry!r} is not a segment and its seed: write for example 3: 77, 5: 12")
        number, seed = map(int, match.groups())
        if not (1 <= number <= segments and seed < 2**64):
            raise InputError(
                f"segment_seeds: {entry!r} is out of range: segments are 1 to {segments}, seeds 0 to {2**64 - 1}"
            )
        seeds[number] = seed
    return seeds


def check_chain(parts: Sequence[Part], nodes_of_a_segment: int) -> None:
    """Raise InputError where the executor, which follows the chain of nodes recursively, would not reach its end."""
    most = (sys.getrecursionlimit() - FRAMES_OF_THE_STACK) // nodes_of_a_segment
    if len(parts) > most:
        raise InputError(
            f"{len(parts)} segments are more than the {most} that ComfyUI can follow here: raise segment_length, or "
            "make the video in parts by start_frame and length (Animate Long Video to File can follow more)"
        )
