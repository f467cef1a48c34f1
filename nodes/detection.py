"""Poses from pictures and videos: the detector, and which of several people is meant."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import io, ui

from ..unianimate_core.errors import InputError
from ..unianimate_core.pose.detection import PoseDetector, people_to_frame
from ..unianimate_core.pose.people import CHOICES, LOST_FRAMES, follow_person
from ..unianimate_core.video import VideoReader
from ..unianimate_core.video.writing import to_uint8
from .motion import CATEGORY, PoseKeypoint, preview, sampled

Detector = io.Custom("UNIANIMATE_POSE_DETECTOR")
AUTOMATIC = "automatic"
USUAL_FPS = 30.0  # of pictures that do not say it
PROVIDERS = ("CUDA", "TensorRT", "DirectML", "CoreML", "CPU")

FOLDER = "dwpose"
NONE_FOUND = "no file found"
SUFFIXES = {".onnx", ".pt"}
CUTS = ("start_time", "duration", "crop")  # attributes of core's VideoFromFile by which it shows a part of its file
PREPROCESSORS = "comfyui_controlnet_aux"
ADVICE = (
    "put yolox_l.onnx and dw-ll_ucoco_384.onnx (huggingface.co/yzd-v/DWPose) into models/dwpose or models/detection, "
    "then press R"
)


def register_detector_folders() -> None:
    """Look for DWPose's files where we, core's nodes and controlnet_aux keep them."""
    models = Path(folder_paths.models_dir)
    places = [models / FOLDER, models / "detection"]
    places += map(Path, folder_paths.folder_names_and_paths.get("detection", ([], set()))[0])
    for packs in map(Path, folder_paths.get_folder_paths("custom_nodes")):
        if packs.is_dir():
            places += [pack / "ckpts" for pack in packs.iterdir() if pack.name.lower() == PREPROCESSORS]
    for place in places:
        folder_paths.add_model_folder_path(FOLDER, str(place))
    paths, suffixes = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(suffixes) | SUFFIXES)


def _files(meant: str, hint: str) -> list[str]:
    """All files found, those first whose name tells that they are meant; or what to do where there is none."""
    names = folder_paths.get_filename_list(FOLDER)
    return sorted(names, key=lambda name: (Path(name).name != meant, hint not in name.lower())) or [NONE_FOUND]


@dataclass
class _Pictures:
    """An IMAGE batch as `VideoReader` gives a video."""

    images: torch.Tensor  # f H W c
    fps: float
    problem: str | None = None

    def __post_init__(self) -> None:
        self.frames, self.height, self.width = self.images.shape[:3]

    def close(self) -> None:
        """There is nothing to close."""

    def __iter__(self) -> Iterator[np.ndarray]:
        for image in self.images:
            yield to_uint8(image[..., :3].expand(*image.shape[:2], 3)).cpu().numpy()


def _whole_file(video: Any) -> str | None:
    """The path of a VIDEO that is all of a file: not trimmed, not cropped, as far as this host can do that."""
    if type(video).__name__ != "VideoFromFile" or any(vars(video).get(f"_VideoFromFile__{name}") for name in CUTS):
        return None
    path = video.get_stream_source()
    return path if isinstance(path, str) else None


def _open(images: torch.Tensor | None, video: Any, fps: float) -> VideoReader | _Pictures:
    """The frames of either, as they are asked for.

    Raises:
        InputError: Both are connected or neither, or the video cannot be read.
    """
    if (images is None) == (video is None):
        raise InputError("Connect images or a video" + ("." if video is None else ", not both."))
    if images is not None:
        return _Pictures(images, fps or USUAL_FPS)
    path = _whole_file(video)
    if path is not None:
        return VideoReader(path, fps or None)
    parts = video.get_components()
    if fps:
        logging.warning("Detect Poses: fps counts for whole video files only; every frame of this one is taken")
    return _Pictures(parts.images, float(parts.frame_rate))


@contextmanager
def _on_card(detector: PoseDetector) -> Iterator[None]:
    """Room for detection on the graphics card while it runs, all of which is given back afterwards.

    ComfyUI's memory management knows PyTorch's models alone, and can neither measure nor unload a session of
    onnxruntime. So none is kept between two nodes, but those that take minutes to start: no model that comes later
    finds the card's memory taken.
    """
    management = comfy.model_management
    device = management.get_torch_device()
    if detector.card_memory and not management.is_device_cpu(device):
        management.free_memory(detector.card_memory, device)
        management.soft_empty_cache()  # onnxruntime cannot use what PyTorch holds in reserve
    try:
        yield
    finally:
        detector.release()


class LoadPoseDetector(io.ComfyNode):
    """DWPose's two networks."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Dropdowns of the files that were found."""
        return io.Schema(
            node_id="UniAnimatePoseDetectorLoader",
            display_name="Load DWPose Detector",
            category=CATEGORY,
            description="Loads DWPose's two networks (.onnx, or .torchscript.pt) from models/dwpose, models/detection "
            "or the folder of the pack comfyui_controlnet_aux. ONNX files need the package onnxruntime.",
            inputs=[
                io.Combo.Input(
                    "detector",
                    options=_files("yolox_l.onnx", "yolox"),
                    tooltip="The network that finds people: yolox_l.onnx.",
                ),
                io.Combo.Input(
                    "keypoints",
                    options=_files("dw-ll_ucoco_384.onnx", "dw-ll"),
                    tooltip="The network that finds a person's joints: dw-ll_ucoco_384.onnx.",
                ),
                io.Combo.Input(
                    "provider",
                    options=[AUTOMATIC, *PROVIDERS],
                    default=AUTOMATIC,
                    tooltip="What the networks run on. Automatic takes the first that is installed; it is told in the "
                    "log and in the report of Detect Poses.",
                ),
            ],
            outputs=[Detector.Output(display_name="pose_detector", tooltip="For Detect Poses.")],
        )

    @classmethod
    def validate_inputs(cls, detector: str, keypoints: str) -> bool | str:
        """Files come and go: ask the disk, not the list that was sent."""
        for name in (detector, keypoints):
            if folder_paths.get_full_path(FOLDER, name) is None:
                return f"{name} was not found: {ADVICE}"
        return True

    @classmethod
    def execute(cls, detector: str, keypoints: str, provider: str) -> io.NodeOutput:
        """Start both networks."""
        paths = [folder_paths.get_full_path_or_raise(FOLDER, name) for name in (detector, keypoints)]
        networks = PoseDetector(*paths, None if provider == AUTOMATIC else [provider])
        networks.release()  # they have shown that they start; other nodes may run before Detect Poses
        return io.NodeOutput(networks)


class DetectPoses(io.ComfyNode):
    """All people of all frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Pictures, or a video that need not fit in memory."""
        return io.Schema(
            node_id="UniAnimateDetectPoses",
            display_name="Detect Poses (DWPose)",
            category=CATEGORY,
            description="Finds the keypoints of all people in pictures or in a video. A video from Load Video is read "
            "bit by bit, so its length does not matter. Choose Person picks one of several people.",
            is_output_node=True,
            inputs=[
                Detector.Input("pose_detector", tooltip="From Load DWPose Detector."),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Of a video: frames a second to take; 0: every frame, as it is. Of images: what they have.",
                ),
                io.Image.Input("images", optional=True, tooltip="Pictures, or the frames of a video."),
                io.Video.Input("video", optional=True, tooltip="From Load Video; instead of images."),
            ],
            outputs=[
                PoseKeypoint.Output(display_name="pose_keypoint", tooltip="One entry per frame, with all people."),
                io.Int.Output(display_name="frames", tooltip="How many frames there are."),
                io.Float.Output(
                    display_name="fps",
                    tooltip="Frames per second, for Smooth Pose and Create Video; 30 where nothing says it.",
                ),
                io.String.Output(display_name="report", tooltip="What it ran on, and how many frames show nobody."),
            ],
        )

    @classmethod
    def execute(
        cls,
        pose_detector: PoseDetector,
        fps: float,
        images: torch.Tensor | None = None,
        video: Any = None,
    ) -> io.NodeOutput:
        """Detect frame by frame, with progress."""
        source = _open(images, video, fps)
        notes = []
        frames: list[dict] = []
        empty = 0
        progress = comfy.utils.ProgressBar(source.frames or 1)
        with closing(source), _on_card(pose_detector), closing(pose_detector.detect_frames(source)) as detected:
            for people in detected:
                frame = people_to_frame(people, source.width, source.height)
                empty += not frame["people"]
                frames.append(frame)
                progress.update_absolute(len(frames), max(source.frames or 0, len(frames)))
        if source.problem:
            notes.append(source.problem)
        if empty == len(frames):
            raise InputError(
                f"Nobody was found in any of {len(frames)} frames: give pictures that show a person larger or brighter."
            )
        if empty:
            notes.append(f"{empty} of {len(frames)} frames show nobody; Fill Pose Gaps can hold the pose before.")
        for note in notes:
            logging.warning("Detect Poses: %s", note)
        if pose_detector.device_note:  # logged already
            notes.append(pose_detector.device_note)
        report = "\n".join([f"{len(frames)} frames, detected on {', '.join(pose_detector.providers)}.", *notes])
        logging.info("Detect Poses: %d frames on %s", len(frames), ", ".join(pose_detector.providers))
        shown = preview(sampled(frames), cls=cls).as_dict() | ui.PreviewText(report).as_dict()
        return io.NodeOutput(frames, len(frames), source.fps or USUAL_FPS, report, ui=shown)


class ChoosePerson(io.ComfyNode):
    """One of several people, followed through time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Which one, in the frame where the choice is made."""
        return io.Schema(
            node_id="UniAnimateChoosePerson",
            display_name="Choose Person",
            category=CATEGORY,
            description="Picks one of several people in a motion and follows that person through time, also across "
            "frames in which the person is lost or two people cross.",
            is_output_node=True,
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="From Detect Poses, or any other pose node."),
                io.Combo.Input(
                    "choose",
                    options=list(CHOICES),
                    default=CHOICES[0],
                    tooltip="Who is meant: largest and highest score over the whole motion; leftmost, rightmost and "
                    "nearest to point (x, y) in the first frame that shows enough people; index by the list.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=99,
                    tooltip="How many to pass over: 0 for the largest, leftmost, rightmost, best scored or nearest "
                    "person, 1 for the second. For index: the place in the detector's list, from 0.",
                ),
                io.Float.Input(
                    "x", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="Nearest to point: 0 left, 1 right."
                ),
                io.Float.Input(
                    "y", default=0.5, min=0.0, max=1.0, step=0.01, tooltip="Nearest to point: 0 top, 1 bottom."
                ),
                io.Int.Input(
                    "lost_frames",
                    default=LOST_FRAMES,
                    min=0,
                    max=100000,
                    tooltip="For so many frames the person may be gone and still be known again.",
                ),
            ],
            outputs=[PoseKeypoint.Output(display_name="pose_keypoint", tooltip="That person alone, or nobody.")],
        )

    @classmethod
    def execute(
        cls, pose_keypoint: list[dict], choose: str, index: int, x: float, y: float, lost_frames: int
    ) -> io.NodeOutput:
        """Choose, follow, show everyone beside the chosen one."""
        chosen = follow_person(pose_keypoint, choose, index=index, point=(x, y), lost_frames=lost_frames)
        if lost := sum(not frame["people"] for frame in chosen):
            logging.warning("Choose Person: %d of %d frames do not show the person", lost, len(chosen))
        shown = preview(sampled(pose_keypoint), sampled(chosen), cls=cls)
        return io.NodeOutput(chosen, ui=shown)


NODES = [LoadPoseDetector, DetectPoses, ChoosePerson]
