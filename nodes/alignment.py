"""A motion fitted to the person in the reference picture."""

from __future__ import annotations

import logging

from comfy_api.latest import io

from ..unianimate_core.pose.alignment import MODES, align_motion
from ..unianimate_core.pose.several import join_people, split_people
from .motion import CATEGORY, PoseKeypoint, preview

NAME = "Align Pose"


class AlignPose(io.ComfyNode):
    """The reference person's proportions, size and place."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A motion, and the pose of the person in the picture."""
        return io.Schema(
            node_id="UniAnimateAlignPose",
            display_name=NAME,
            category=CATEGORY,
            description="Gives a motion the proportions, size and place of the person in the reference picture, so "
            "that the video shows that person and not a distorted one. Shows the reference (left), the motion, and the "
            "motion after alignment (right).",
            is_output_node=True,
            inputs=[
                PoseKeypoint.Input("driving_pose", tooltip="The motion of one person; Choose Person picks one."),
                PoseKeypoint.Input(
                    "reference_pose", tooltip="The pose of the person in the reference picture, from Detect Poses."
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="robust",
                    tooltip="robust: limb by limb, lengths measured over all frames, right for every aspect ratio. "
                    "paper: ratios from the first frame alone, as the public code does; it must show the whole person "
                    "from the front. scale and place: the driving person's proportions stay. none: only put on the "
                    "reference's canvas.",
                ),
            ],
            outputs=[PoseKeypoint.Output(display_name="pose_keypoint", tooltip="On the reference picture's canvas.")],
        )

    @classmethod
    def execute(cls, driving_pose: list[dict], reference_pose: list[dict], mode: str) -> io.NodeOutput:
        """Align the first person to the first person."""
        driving, reference = split_people(driving_pose), split_people(reference_pose)
        for name, people in (("driving_pose", driving), ("reference_pose", reference)):
            if len(people) > 1:
                logging.warning("%s: %s shows %d people; the first is taken", NAME, name, len(people))
        aligned = align_motion(driving[0], reference[0], mode)
        shown = preview(reference[:1], driving[:1], [aligned], cls=cls)
        return io.NodeOutput(join_people([aligned]), ui=shown)


NODES = [AlignPose]
