"""Segments of a video, in memory: joining them, and holding their colours."""

from __future__ import annotations

from typing import get_args

import torch
from comfy_api.latest import io
from einops import rearrange

from ..unianimate_core.errors import InputError
from ..unianimate_core.long_video import HeldColours
from ..unianimate_core.video.colour import (
    ColourStatistics,
    colour_statistics,
    hold_colours,
    mean_statistics,
    person_mask,
)
from ..unianimate_core.video.plan import LastSegment, join_shared, plan_segments
from ..unianimate_core.video.writing import to_uint8
from .conditioning import fitted_pixels

CATEGORY = "UniAnimate/long video"
INTERNAL = f"{CATEGORY}/parts"
HELD_COLOURS = get_args(HeldColours)


def internal_schema(**settings) -> io.Schema:
    """The schema of a node that only our own nodes lay out; hosts that can hide such nodes do."""
    hidden = {"is_dev_only": True} if hasattr(io.Schema, "is_dev_only") else {}
    return io.Schema(category=INTERNAL, **settings, **hidden)


class JoinSegments(io.ComfyNode):
    """Two segments as one video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Two batches of pictures."""
        return io.Schema(
            node_id="UniAnimateJoinSegments",
            display_name="Join Segments",
            category=CATEGORY,
            description="Joins two segments of a video that share some frames: each of these comes once, and over them "
            "the first segment fades into the second.",
            inputs=[
                io.Image.Input("before", tooltip="All frames of the earlier segment, or of what was joined already."),
                io.Image.Input("after", tooltip="All frames of the later segment, those that it shares included."),
                io.Int.Input(
                    "shared_frames",
                    default=1,
                    min=0,
                    max=16384,
                    tooltip="Frames at the end of before that after shows again: trim_image of its conditioning.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="All frames, each once.")],
        )

    @classmethod
    def execute(cls, before: torch.Tensor, after: torch.Tensor, shared_frames: int) -> io.NodeOutput:
        """Cross-fade what is shared."""
        if before.shape[1:] != after.shape[1:]:
            sizes = " and ".join(f"{images.shape[2]} x {images.shape[1]}" for images in (before, after))
            raise InputError(f"the segments are {sizes}: make both in one size")
        if shared_frames > min(len(before), len(after)):
            raise InputError(
                f"{shared_frames} frames are shared, but the segments have {len(before)} and {len(after)}: "
                f"lower shared_frames to {min(len(before), len(after))}"
            )
        kept = len(before) - shared_frames
        shared = join_shared(before[kept:], after[:shared_frames])
        return io.NodeOutput(torch.cat((before[:kept], shared, after[shared_frames:].to(before))))


class FadeShared(io.ComfyNode):
    """A segment as the video shows it, so that the next goes on from that."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """As Join Segments."""
        return internal_schema(
            node_id="UniAnimateFadeShared",
            display_name="Fade Shared Frames",
            description="Part of Animate Long Video: fades the segment before into the first frames of this one.",
            inputs=[
                io.Image.Input("before", tooltip="All frames of the segment before, faded itself."),
                io.Image.Input("images", tooltip="All frames of this segment."),
                io.Int.Input("shared_frames", default=1, min=1, max=16384, tooltip="Frames that both show."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="All frames of this segment.")],
        )

    @classmethod
    def execute(cls, before: torch.Tensor, images: torch.Tensor, shared_frames: int) -> io.NodeOutput:
        """Cross-fade what is shared, in a copy."""
        faded = images.clone()  # f h w 3
        faded[:shared_frames] = join_shared(before[-shared_frames:], images[:shared_frames])
        return io.NodeOutput(faded)


class JoinAll(io.ComfyNode):
    """All segments of a plan as one video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The plan's numbers; segments come as segment_1, segment_2, …, which no schema can list."""
        return internal_schema(
            node_id="UniAnimateJoinAll",
            display_name="Join All Segments",
            description="Part of Animate Long Video: joins the segments that it has laid out.",
            inputs=plan_inputs(),
            outputs=[io.Image.Output(display_name="images", tooltip="All frames, each once.")],
        )

    @classmethod
    def execute(
        cls, frames: int, segment_length: int, shared_frames: int, last_segment: LastSegment, **segments: torch.Tensor
    ) -> io.NodeOutput:
        """Copy every segment to its place."""
        video: torch.Tensor | None = None  # f h w 3
        for number, segment in enumerate(plan_segments(frames, segment_length, shared_frames, last_segment), start=1):
            images = segments[f"segment_{number}"]  # faded, without padding
            if video is None:
                video = images.new_empty(frames, *images.shape[1:])
            known = min(segment.shared, 1)  # its start frame stays as the segment before made it
            video[segment.start + known : segment.end] = images[known:]
        return io.NodeOutput(video)


def plan_inputs() -> list[io.Input]:
    """The numbers that `plan_segments` takes."""
    return [
        io.Int.Input("frames", default=1, min=1, max=1000000, tooltip="Frames of the video."),
        io.Int.Input("segment_length", default=32, min=2, max=16384, tooltip="Frames of a segment."),
        io.Int.Input("shared_frames", default=1, min=1, max=16384, tooltip="Frames that neighbours share."),
        io.Combo.Input("last_segment", options=list(get_args(LastSegment)), tooltip="What became of the last segment."),
    ]


class HoldColours(io.ComfyNode):
    """A segment in the colours of a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Frames and what they shall look like, each with its poses."""
        start = "The frame of {} that belongs to the first of {}."
        return io.Schema(
            node_id="UniAnimateHoldColours",
            display_name="Hold Colours",
            category=CATEGORY,
            description="Against drift in long videos: gives a segment the mean and contrast of a picture's colours, "
            "person and background apart. The result has 8 bits per channel.",
            inputs=[
                io.Image.Input("images", tooltip="Frames of a segment."),
                io.Image.Input("pose", tooltip="Their drawn poses, by which the person is found."),
                io.Image.Input("like", tooltip="What they shall look like: the reference picture, or a segment."),
                io.Image.Input("like_pose", tooltip="The drawn pose of that picture, or of that segment's frames."),
                io.Int.Input("start_frame", default=0, min=0, max=1000000, tooltip=start.format("pose", "images")),
                io.Int.Input(
                    "like_start_frame", default=0, min=0, max=1000000, tooltip=start.format("like_pose", "like")
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The frames, mended.")],
        )

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        pose: torch.Tensor,
        like: torch.Tensor,
        like_pose: torch.Tensor,
        start_frame: int,
        like_start_frame: int,
    ) -> io.NodeOutput:
        """Measure both, and mend the frames."""
        height, width = images.shape[1:3]
        like_mask = pose_mask(like_pose, like_start_frame, len(like), width, height)
        target = colour_target(rearrange(fitted_pixels(like, width, height), "f c h w -> f h w c"), like_mask)
        mended = hold_colours(to_uint8(images), pose_mask(pose, start_frame, len(images), width, height), target)
        return io.NodeOutput(mended / 255)


def pose_mask(pose: torch.Tensor, start: int, frames: int, width: int, height: int) -> torch.Tensor:
    """Where the person is in some frames of drawn poses, the last one held where they end: f height width.

    Raises:
        InputError: The poses end before the first of the frames.
    """
    if start >= len(pose):
        raise InputError(f"there are {len(pose)} drawn poses, but frame {start} is asked for: lower start_frame")
    pictures = fitted_pixels(pose[start : start + frames], width, height)  # f 3 H W
    mask = person_mask(pictures)
    return torch.cat((mask, mask[-1:].expand(frames - len(mask), -1, -1)))


def colour_target(pictures: torch.Tensor, mask: torch.Tensor) -> ColourStatistics:
    """The colours of pictures f h w 3, 0-1, that segments are held to."""
    return mean_statistics(colour_statistics(to_uint8(pictures), mask))


NODES = [JoinSegments, HoldColours, FadeShared, JoinAll]
