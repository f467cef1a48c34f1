"""Motion as pictures."""

from __future__ import annotations

import logging

import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io

from ..unianimate_core.pose import FITS, draw_frames, fit_track, split_people
from ..unianimate_core.pose.several import pick_person
from ..unianimate_core.unet.memory import require_memory
from .motion import CATEGORY, PoseKeypoint


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
                io.Int.Input(
                    "person", default=0, min=-1, max=99, tooltip="Which of several people, from 0; -1 for all of them."
                ),
                io.Boolean.Input("hands", default=True, optional=True, tooltip="Draw the hands."),
                io.Boolean.Input(
                    "face", default=False, optional=True, tooltip="Draw the face: UniAnimate's weights never saw one."
                ),
                io.Float.Input(
                    "line_width",
                    default=1.0,
                    min=0.1,
                    max=10.0,
                    step=0.1,
                    optional=True,
                    tooltip="Factor on the widths that the weights were trained on, which follow the size.",
                ),
            ],
            outputs=[io.Image.Output(display_name="pose", tooltip="One picture per frame.")],
        )

    @classmethod
    def execute(
        cls,
        pose_keypoint: list[dict],
        width: int,
        height: int,
        fit: str,
        person: int,
        hands: bool = True,
        face: bool = False,
        line_width: float = 1.0,
    ) -> io.NodeOutput:
        """Draw frame by frame, with progress."""
        people = split_people(pose_keypoint)
        if person >= 0:
            one = pick_person(people, person)
            if len(people) > 1:
                logging.warning(
                    "Draw UniAnimate Pose: the motion shows %d people; number %d is drawn. Choose Person chooses",
                    len(people),
                    person,
                )
            people = [one]
        people = [fit_track(track, width, height, fit) for track in people]
        frames = len(pose_keypoint)
        if lost := int((~np.any([track.present for track in people], axis=0)).sum()):
            logging.warning(
                "Draw UniAnimate Pose: %d of %d frames show no person; they are black. Fill Pose Gaps can fill them",
                lost,
                frames,
            )
        what = f"the pictures of {frames} frames of {width} x {height}"
        require_memory(frames * height * width * 3 * 4, torch.device("cpu"), what, "Lower width or height")
        progress = comfy.utils.ProgressBar(frames)
        pictures = torch.empty(frames, height, width, 3)  # f H W 3
        drawn = draw_frames(people, width, height, hands=hands, face=face, line_width=line_width)
        for index, picture in enumerate(drawn):
            pictures[index] = torch.from_numpy(picture) / 255
            progress.update(1)
        return io.NodeOutput(pictures)


NODES = [DrawPose]
