"""Motion as pictures."""

from __future__ import annotations

import logging

import comfy.utils
import torch
from comfy_api.latest import io

from ..unianimate_core.pose import FITS, MotionTrack, draw_frames, fit_track
from ..unianimate_core.unet.memory import require_memory
from .loaders import PoseKeypoint

CATEGORY = "UniAnimate/pose"


class DrawPose(io.ComfyNode):
    """Keypoints as the skeleton pictures that UniAnimate was trained on."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Keypoints and a size."""
        return io.Schema(
            node_id="UniAnimateDrawPose",
            display_name="Draw UniAnimate Pose",
            category=CATEGORY,
            description="Draws a motion as the skeleton pictures that UniAnimate was trained on. "
            "They differ from ControlNet's (red and blue exchanged, feet drawn): draw with this node.",
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="From a pose detector, or from Load Pose Keypoints."),
                io.Int.Input("width", default=512, min=64, max=16384, step=8, tooltip="Width of the video."),
                io.Int.Input("height", default=768, min=64, max=16384, step=8, tooltip="Height of the video."),
                io.Combo.Input(
                    "fit",
                    options=list(FITS),
                    default="crop",
                    tooltip="Where the motion's canvas has another aspect ratio: crop fills the video (centred), "
                    "pad shows the whole canvas, stretch distorts.",
                ),
                io.Int.Input("person", default=0, min=0, max=99, tooltip="Which of several people, from 0."),
            ],
            outputs=[io.Image.Output(display_name="pose", tooltip="One picture per frame.")],
        )

    @classmethod
    def execute(cls, pose_keypoint: list[dict], width: int, height: int, fit: str, person: int) -> io.NodeOutput:
        """Draw frame by frame, with progress."""
        track = fit_track(MotionTrack.from_pose_keypoints(pose_keypoint, person), width, height, fit)
        if lost := int((~track.present).sum()):
            logging.warning("Draw UniAnimate Pose: %d of %d frames show no person; they are black", lost, len(track))
        what = f"the pictures of {len(track)} frames of {width} x {height}"
        require_memory(len(track) * height * width * 3 * 4, torch.device("cpu"), what, "Lower width or height")
        progress = comfy.utils.ProgressBar(len(track))
        pictures = torch.empty(len(track), height, width, 3)  # f H W 3
        for index, picture in enumerate(draw_frames(track, width, height)):
            pictures[index] = torch.from_numpy(picture) / 255
            progress.update(1)
        return io.NodeOutput(pictures)


NODES = [DrawPose]
