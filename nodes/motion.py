"""What all nodes share that take or give a motion."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
from comfy_api.latest import io, ui

from ..unianimate_core.pose import MotionTrack, draw_motion, split_people

CATEGORY = "UniAnimate/pose"
PoseKeypoint = io.Custom("POSE_KEYPOINT")

PREVIEW_FRAMES, PREVIEW_HEIGHT, PREVIEW_FPS = 96, 224, 15
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def preview(*motions: Sequence[MotionTrack], cls: type[io.ComfyNode]) -> ui.SavedImages:
    """An animation of some motions side by side, each of one or more people; long ones are shown in fewer frames.

    Args:
        motions: At least one; those with fewer frames are shown slower, so that all begin and end together.
        cls: The node.
    """
    shown = min(PREVIEW_FRAMES, max(len(people[0]) for people in motions))
    panels = [_drawn(people, shown) for people in motions]
    gap = np.full((shown, PREVIEW_HEIGHT, 4, 3), 96, np.uint8)
    row = [picture for panel in panels for picture in (gap, panel)][1:]
    pictures = torch.from_numpy(np.concatenate(row, axis=2)).float() / 255  # f h w 3
    result = ui.ImageSaveHelper.save_animated_webp(
        pictures,
        filename_prefix="ComfyUI_temp_" + "".join(random.choices(LETTERS, k=5)),
        folder_type=io.FolderType.temp,
        cls=cls,
        fps=PREVIEW_FPS,
        lossless=False,
        quality=80,
        method=0,
    )
    return ui.SavedImages([result], is_animated=shown > 1)


def sampled(frames: Sequence[dict]) -> list[MotionTrack]:
    """Everyone in `POSE_KEYPOINT` frames, for a preview: nobody is followed, and of a long motion only some frames."""
    chosen = np.linspace(0, len(frames) - 1, min(PREVIEW_FRAMES, len(frames))).round().astype(int)
    some = [frames[index] for index in chosen]
    if not any(frame.get("people") for frame in some):  # whoever there is, is there between these
        some = [frame for frame in frames if frame.get("people")][:PREVIEW_FRAMES]
    return split_people(some, follow=False)


def _drawn(people: Sequence[MotionTrack], frames: int) -> np.ndarray:
    """So many frames of a motion, f h w 3, uint8, small."""
    first = people[0]
    width = max(8, round(PREVIEW_HEIGHT * first.width / first.height))
    chosen = np.linspace(0, len(first) - 1, frames).round().astype(int)
    return draw_motion([track[chosen] for track in people], width, PREVIEW_HEIGHT)
