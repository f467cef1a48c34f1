"""Loading: the network, and motions from files."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import io

from ..unianimate_core.errors import InputError
from ..unianimate_core.pose import complete_frames, read_pose_frames
from .detection import register_detector_folders
from .model import load_model
from .motion import PoseKeypoint

CATEGORY = "UniAnimate/loaders"
PACK = Path(__file__).resolve().parent.parent
EXAMPLE = "example: dance.json"
DTYPES = {
    "default": None,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
}


def register_folders() -> None:
    """Let core's and our loaders list the small model that ships with the pack, and find DWPose's files."""
    for kind in ("diffusion_models", "vae"):
        folder_paths.add_model_folder_path(kind, str(PACK / "unianimate_core" / "assets" / kind))
    register_detector_folders()


class LoadUniAnimateModel(io.ComfyNode):
    """The network as MODEL."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A dropdown of models/diffusion_models."""
        return io.Schema(
            node_id="UniAnimateModelLoader",
            display_name="Load UniAnimate Model",
            category=CATEGORY,
            description="Loads a UniAnimate checkpoint (.safetensors or .pth) from models/diffusion_models.",
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folder_paths.get_filename_list("diffusion_models"),
                    tooltip="For example unianimate_16f_32f_non_ema_223000.pth. "
                    "unianimate_small.safetensors comes with the pack.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(DTYPES),
                    default="default",
                    tooltip="Precision of the weights. The default suits the card and the file; float8 halves the "
                    "memory of float16's weights, at the cost of the pictures' quality.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For any sampler; connect it to the conditioning's positive and negative.")
            ],
        )

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str) -> io.NodeOutput:
        """Load, or say what the file is instead."""
        path = folder_paths.get_full_path_or_raise("diffusion_models", model_name)
        return io.NodeOutput(load_model(path, DTYPES[weight_dtype]))


class LoadPoseKeypoints(io.ComfyNode):
    """A motion from a JSON or CSV file, or from a folder of OpenPose's files."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A dropdown of the files and folders in ComfyUI's input folder."""
        canvas = (
            "Only for files that do not name their canvas (OpenPose's own do not): {} in pixels of the picture "
            "that the keypoints were measured on. 0: the file says it, as a CSV table always does."
        )
        return io.Schema(
            node_id="UniAnimateLoadPose",
            display_name="Load Pose Keypoints",
            category=CATEGORY,
            description="Loads a motion from ComfyUI's input folder: one JSON file of POSE_KEYPOINT frames, "
            "a folder of OpenPose JSON files, one per frame, or a CSV table as Save Pose Keypoints writes them.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[EXAMPLE, *_motion_files()],
                    tooltip="A .json or .csv file in the input folder, or a folder of .json files. Press R to refresh.",
                ),
                io.Int.Input("canvas_width", default=0, min=0, max=16384, tooltip=canvas.format("width")),
                io.Int.Input("canvas_height", default=0, min=0, max=16384, tooltip=canvas.format("height")),
            ],
            outputs=[
                PoseKeypoint.Output(display_name="pose_keypoint", tooltip="One entry per frame."),
                io.Int.Output(display_name="frames", tooltip="How many frames the motion has."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        """Files come and go: ask the disk, not the list that was sent."""
        try:
            _path(file)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: int) -> float:
        """Load again when the file, or one in the folder, has changed."""
        path = _path(file)
        return max(p.stat().st_mtime for p in (path, *path.glob("*.json")))

    @classmethod
    def execute(cls, file: str, canvas_width: int, canvas_height: int) -> io.NodeOutput:
        """Read all people of all frames; one is chosen where the pose is drawn."""
        if bool(canvas_width) != bool(canvas_height):
            raise InputError(
                f"canvas_width is {canvas_width} and canvas_height {canvas_height}: give both, or 0 for both"
            )
        canvas = (canvas_width, canvas_height) if canvas_width else None
        frames = complete_frames(read_pose_frames(_path(file), canvas))
        return io.NodeOutput(frames, len(frames))


def _motion_files() -> list[str]:
    """JSON and CSV files in the input folder, and the folders in it that hold JSON files."""
    base = Path(folder_paths.get_input_directory())
    names = {file.name for ending in ("json", "csv") for file in base.glob(f"*.{ending}")}
    folders = {f"{file.parent.name}/" for file in base.glob("*/*.json")}
    return sorted(names) + sorted(folders)


def _path(file: str) -> Path:
    """A name from the dropdown as a path inside ComfyUI's input folder, or of our example."""
    if file == EXAMPLE:
        return PACK / "samples" / "dance.json"
    base = os.path.abspath(folder_paths.get_input_directory())
    path = os.path.abspath(os.path.join(base, file))
    if os.path.commonpath((base, path)) != base or path == base or not os.path.exists(path):
        raise InputError(f"{file} is not in ComfyUI's input folder: put it there, then press R")
    return Path(path)


NODES = [LoadUniAnimateModel, LoadPoseKeypoints]
