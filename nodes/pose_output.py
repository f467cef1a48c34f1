"""A motion looked at, and written to disk."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io, ui

from ..unianimate_core.pose import write_pose_frames
from ..unianimate_core.pose.export import write_csv
from ..unianimate_core.pose.plots import PLOTS
from ..unianimate_core.pose.several import pick_person, split_people
from .motion import CATEGORY, PoseKeypoint, preview

FORMATS = ("one JSON file", "folder of JSON files", "CSV table")


class SavePoseKeypoints(io.ComfyNode):
    """A motion as a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A name below ComfyUI's output folder."""
        return io.Schema(
            node_id="UniAnimateSavePose",
            display_name="Save Pose Keypoints",
            category=CATEGORY,
            description="Saves a motion below ComfyUI's output folder: as OpenPose JSON, which Load Pose Keypoints "
            "reads (put it into the input folder), or as CSV, one table a person, which it reads too, for other "
            "programs.",
            is_output_node=True,
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="A motion, of any number of people."),
                io.String.Input("filename_prefix", default="poses/motion", tooltip="Name; a number is added to it."),
                io.Combo.Input("format", options=list(FORMATS), default=FORMATS[0], tooltip="What to write."),
                io.Float.Input(
                    "fps",
                    default=30.0,
                    min=0.1,
                    max=1000.0,
                    step=0.01,
                    optional=True,
                    tooltip="CSV table: the motion's frames a second, for its column of times; from Detect Poses.",
                ),
            ],
            outputs=[io.String.Output(display_name="path", tooltip="The file or folder.")],
        )

    @classmethod
    def execute(cls, pose_keypoint: list[dict], filename_prefix: str, format: str, fps: float = 30.0) -> io.NodeOutput:
        """Write under the next free number."""
        people = split_people(pose_keypoint)
        folder, name, *_ = folder_paths.get_save_image_path(filename_prefix, folder_paths.get_output_directory())
        ending = {FORMATS[0]: ".json", FORMATS[1]: "", FORMATS[2]: ".csv"}[format]
        number = 1
        while (path := Path(folder) / f"{name}_{number:05}{ending}").exists():
            number += 1
        if format == FORMATS[2]:
            for person, track in enumerate(people):
                write_csv(track, path.with_stem(f"{path.stem}_person{person}") if person else path, fps)
        else:
            write_pose_frames(pose_keypoint, path)
        shown = preview(people, cls=cls).as_dict() | ui.PreviewText(str(path)).as_dict()
        return io.NodeOutput(str(path), ui=shown)


class PlotPose(io.ComfyNode):
    """Where a motion is whole and where it is not."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """What to plot."""
        return io.Schema(
            node_id="UniAnimatePlotPose",
            display_name="Plot Pose",
            category=CATEGORY,
            description="Shows a motion at a glance: a sheet of skeletons, the joints' tracks over time, or which "
            "joints are present when. The last two need the package matplotlib.",
            is_output_node=True,
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="A motion."),
                io.Combo.Input("plot", options=list(PLOTS), default="skeletons", tooltip="What to show."),
                io.Int.Input("person", default=0, min=0, max=99, tooltip="Which of several people, from 0."),
                PoseKeypoint.Input(
                    "compare_with", optional=True, tooltip="The motion before it was cleaned, to be shown beside it."
                ),
            ],
            outputs=[io.Image.Output(display_name="plot", tooltip="One picture.")],
        )

    @classmethod
    def execute(
        cls, pose_keypoint: list[dict], plot: str, person: int, compare_with: list[dict] | None = None
    ) -> io.NodeOutput:
        """Draw it."""
        track = pick_person(split_people(pose_keypoint), person)
        others = split_people(compare_with) if compare_with else []
        before = others[person] if person < len(others) else None
        drawn = torch.from_numpy(PLOTS[plot](track, before=before)).float()[None] / 255  # 1 H W 3
        return io.NodeOutput(drawn, ui=ui.PreviewImage(drawn, cls=cls))


NODES = [SavePoseKeypoints, PlotPose]
