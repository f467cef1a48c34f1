"""Segments of a video on disk, so that memory holds one at a time."""

from __future__ import annotations

import secrets
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl, io, ui
from einops import rearrange

import nodes as core_nodes

from ..unianimate_core.diffusion.noise import OFFSET
from ..unianimate_core.errors import InputError
from ..unianimate_core.pose import draw_frames, fit_track, split_people
from ..unianimate_core.pose.several import pick_person
from ..unianimate_core.video import VideoReader, VideoWriter, colour
from ..unianimate_core.video.plan import LastSegment, join_shared, plan_segments
from ..unianimate_core.video.writing import to_uint8
from .conditioning import UniAnimateConditioning, fitted_pixels
from .motion import PoseKeypoint
from .sampling import OffsetNoise
from .segments import HELD_COLOURS, colour_target, internal_schema, plan_inputs, pose_mask

FORMATS = {
    "mp4, H.264": (".mp4", "h264"),
    "mp4, H.265": (".mp4", "h265"),
    "mov, ProRes": (".mov", "prores"),
    "mkv, FFV1 (lossless)": (".mkv", "ffv1"),
    "webm, VP9": (".webm", "vp9"),
    "gif": (".gif", "gif"),
    "webp": (".webp", "webp"),
}
DECODED_AT_ONCE = 8  # frames; a cancel is heard between

Setup = io.Custom("UNIANIMATE_SEGMENT_SETUP")
SegmentFrames = io.Custom("UNIANIMATE_SEGMENT_FILE")


def output_path(prefix: str, chosen: str, width: int, height: int) -> tuple[Path, str]:
    """The next free file of a name in ComfyUI's output folder, and its sub-folder there."""
    output = folder_paths.get_output_directory()
    folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, output, width, height)
    return Path(folder) / f"{name}_{counter:05}_{FORMATS[chosen][0]}", subfolder


class SegmentOnDisk:
    """The frames of a finished segment in a lossless file, which goes when ComfyUI forgets the segment.

    Args:
        frames: uint8 n h w 3.
        start_frame: The motion's frame that the first of them shows.
    """

    def __init__(self, frames: torch.Tensor, start_frame: int) -> None:
        self.start_frame = start_frame
        folder = Path(folder_paths.get_temp_directory())
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"unianimate-segment-{secrets.token_hex(8)}.mkv"
        with VideoWriter(self.path, frames.shape[2], frames.shape[1], lossless=True) as writer:
            writer.write(frames)
        weakref.finalize(self, _remove, self.path)

    def read(self) -> torch.Tensor:
        """Its frames, uint8 n h w 3.

        Raises:
            InputError: The file is gone.
        """
        if not self.path.exists():
            raise InputError(
                f"{self.path}, a finished segment, is gone: was the temp folder emptied? Free ComfyUI's memory, so "
                "that it forgets the segments, and queue again"
            )
        with VideoReader(self.path) as reader:
            return torch.from_numpy(np.stack(list(reader)))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


@dataclass(frozen=True)
class SegmentSetup:
    """What all segments have in common; see the inputs of Animate Long Video."""

    model: Any
    vae: Any
    sampler: Any
    sigmas: torch.Tensor
    driving_pose: Any
    width: int
    height: int
    cfg: float
    noise_prior: int
    text: Any = None
    clip_vision_output: Any = None
    reference_image: torch.Tensor | None = None
    reference_pose: torch.Tensor | None = None

    def poses(self, start: int, length: int, padding: int = 0) -> torch.Tensor:
        """Drawn poses of some frames, over the last of them, the padding, that before it held: length H W 3."""
        drawn = self.driving_pose[start : start + length - padding]
        if not isinstance(drawn, torch.Tensor):
            drawn = torch.from_numpy(np.stack(list(draw_frames(drawn, self.width, self.height)))) / 255
        return torch.cat((drawn, drawn[-1:].expand(padding, -1, -1, -1)))

    def mask(self, poses: torch.Tensor, frames: int) -> torch.Tensor:
        """Where the person is in the first of some drawn poses: frames H W."""
        return pose_mask(poses, 0, frames, self.width, self.height)

    def target(self, colours: str, first: SegmentOnDisk | None) -> colour.ColourStatistics | None:
        """What the colours of a segment are held to, if to anything."""
        if colours == "reference":
            picture = fitted_pixels(self.reference_image[:1], self.width, self.height)
            return colour_target(rearrange(picture, "1 c h w -> 1 h w c"), self.mask(self.reference_pose, 1))
        if colours == "first-segment" and first is not None:
            frames = first.read()
            return colour_target(frames, self.mask(self.poses(first.start_frame, len(frames)), len(frames)))
        return None

    def sample(self, poses: torch.Tensor, seed: int, first_frame: torch.Tensor | None) -> torch.Tensor:
        """One segment by the nodes that Animate Long Video lays out: length H W 3, 0-1."""
        positive, negative, latent, *_ = UniAnimateConditioning.execute(
            vae=self.vae,
            driving_pose=poses,
            width=self.width,
            height=self.height,
            length=len(poses),
            start_frame=0,
            noise_prior=self.noise_prior,
            text=self.text,
            clip_vision_output=self.clip_vision_output,
            reference_image=self.reference_image,
            reference_pose=self.reference_pose,
            first_frame=first_frame,
        ).args
        guider = _core_node("CFGGuider", model=self.model, positive=positive, negative=negative, cfg=self.cfg)[0]
        noise = OffsetNoise(seed, OFFSET)
        samples = _core_node(
            "SamplerCustomAdvanced",
            noise=noise,
            guider=guider,
            sampler=self.sampler,
            sigmas=self.sigmas,
            latent_image=latent,
        )[0]["samples"]
        groups = []
        for group in samples.split(DECODED_AT_ONCE):
            comfy.model_management.throw_exception_if_processing_interrupted()
            groups.append(self.vae.decode(group).cpu())
        return torch.cat(groups)


def _core_node(class_type: str, **inputs: Any) -> tuple:
    """Run one of core's nodes, of the new kind or the old."""
    node = core_nodes.NODE_CLASS_MAPPINGS[class_type]
    if issubclass(node, io.ComfyNode):
        return node.execute(**inputs).args
    return getattr(node(), node.FUNCTION)(**inputs)


class SegmentSetupNode(io.ComfyNode):
    """What all segments have in common, in one link: the executor notes every link behind each segment."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The inputs of Animate Long Video that no segment has for itself."""
        same = "As in Animate Long Video to File."
        return internal_schema(
            node_id="UniAnimateSegmentSetup",
            display_name="Segment Setup",
            description="Part of Animate Long Video to File: what all segments have in common.",
            inputs=[
                io.Model.Input("model", tooltip=same),
                io.Vae.Input("vae", tooltip=same),
                io.Sampler.Input("sampler", tooltip=same),
                io.Sigmas.Input("sigmas", tooltip=same),
                io.MultiType.Input("driving_pose", [PoseKeypoint, io.Image], tooltip=same),
                io.Int.Input("width", default=512, min=64, max=16384, tooltip=same),
                io.Int.Input("height", default=768, min=64, max=16384, tooltip=same),
                io.Float.Input("cfg", default=2.5, min=0.0, max=100.0, tooltip=same),
                io.Int.Input("noise_prior", default=0, min=0, max=999, tooltip=same),
                io.Conditioning.Input("text", optional=True, tooltip=same),
                io.ClipVisionOutput.Input("clip_vision_output", optional=True, tooltip=same),
                io.Image.Input("reference_image", optional=True, tooltip=same),
                io.Image.Input("reference_pose", optional=True, tooltip=same),
            ],
            outputs=[Setup.Output(display_name="setup", tooltip="For Make Segment.")],
        )

    @classmethod
    def execute(cls, driving_pose: Any, width: int, height: int, **given: Any) -> io.NodeOutput:
        """Fit keypoints to the video."""
        if not isinstance(driving_pose, torch.Tensor):
            driving_pose = fit_track(pick_person(split_people(driving_pose), 0), width, height, "crop")
        return io.NodeOutput(SegmentSetup(driving_pose=driving_pose, width=width, height=height, **given))


class SegmentFileNode(io.ComfyNode):
    """One segment, from its conditions to its frames on disk."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The setup, one segment's numbers, and the segment before."""
        return internal_schema(
            node_id="UniAnimateSegmentFile",
            display_name="Make Segment",
            description="Part of Animate Long Video to File: makes one segment and keeps its frames on disk.",
            inputs=[
                Setup.Input("setup", tooltip="From Segment Setup."),
                io.Int.Input("start_frame", default=0, min=0, max=1000000, tooltip="First frame of the motion."),
                io.Int.Input("length", default=32, min=1, max=16384, tooltip="Frames to make."),
                io.Int.Input("shared_frames", default=0, min=0, max=16384, tooltip="Made by the segment before too."),
                io.Int.Input("padding", default=0, min=0, max=16384, tooltip="Last frames, which are cut."),
                io.Int.Input("noise_seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, tooltip="Of this segment."),
                io.Combo.Input("colours", options=list(HELD_COLOURS), tooltip="What they are held to."),
                SegmentFrames.Input("before", optional=True, tooltip="The segment before."),
                SegmentFrames.Input("first", optional=True, tooltip="The first segment, to hold its colours."),
                io.Image.Input("first_frame", optional=True, tooltip="Of the first segment, a given picture."),
            ],
            outputs=[SegmentFrames.Output(display_name="segment", tooltip="For the next, and for Join Files.")],
        )

    @classmethod
    def execute(
        cls,
        setup: SegmentSetup,
        start_frame: int,
        length: int,
        shared_frames: int,
        padding: int,
        noise_seed: int,
        colours: str,
        before: SegmentOnDisk | None = None,
        first: SegmentOnDisk | None = None,
        first_frame: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        """Go on from the segment before, as the video shows it."""
        shared = before.read()[-shared_frames:] / 255 if before is not None else None
        poses = setup.poses(start_frame, length, padding)
        images = setup.sample(poses, noise_seed, first_frame if shared is None else shared[:1])
        frames = to_uint8(images[: length - padding])
        target = setup.target(colours, first)
        if target is not None:
            frames = colour.hold_colours(frames, setup.mask(poses, len(frames)), target)
        if shared is not None:
            frames[:shared_frames] = to_uint8(join_shared(shared, frames[:shared_frames] / 255))
        return io.NodeOutput(SegmentOnDisk(frames, start_frame))


class JoinFilesNode(io.ComfyNode):
    """All segments of a plan as one file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """The plan's numbers and a file; segments come as segment_1, segment_2, …, which no schema can list."""
        same = "As in Animate Long Video to File."
        return internal_schema(
            node_id="UniAnimateJoinFiles",
            display_name="Join Segments to File",
            description="Part of Animate Long Video to File: joins the segments on disk.",
            inputs=[
                *plan_inputs(),
                io.Int.Input("width", default=512, min=1, max=16384, tooltip=same),
                io.Int.Input("height", default=768, min=1, max=16384, tooltip=same),
                io.Float.Input("fps", default=30.0, min=0.1, max=1000.0, tooltip=same),
                io.String.Input("filename_prefix", default="video/unianimate", tooltip=same),
                io.Combo.Input("format", options=list(FORMATS), tooltip=same),
                io.Video.Input("sound_of", optional=True, tooltip=same),
            ],
            outputs=[io.Video.Output(tooltip="The file.")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        frames: int,
        segment_length: int,
        shared_frames: int,
        last_segment: LastSegment,
        width: int,
        height: int,
        fps: float,
        filename_prefix: str,
        format: str,
        sound_of: Any = None,
        **segments: SegmentOnDisk,
    ) -> io.NodeOutput:
        """Copy from every segment what the next one does not show."""
        plan = plan_segments(frames, segment_length, shared_frames, last_segment)
        ends = [following.start for following in plan[1:]] + [frames]
        path, subfolder = output_path(filename_prefix, format, width, height)
        progress = comfy.utils.ProgressBar(frames)
        with open_writer(path, format, width, height, fps, sound_of) as writer:
            for number, (segment, end) in enumerate(zip(plan, ends, strict=True), start=1):
                made = segments[f"segment_{number}"].read()[: end - segment.start]
                writer.write(made)
                progress.update(len(made))
        saved = [ui.SavedResult(path.name, subfolder, io.FolderType.output)]
        shown = ui.SavedImages(saved, is_animated=True) if path.suffix in (".gif", ".webp") else ui.PreviewVideo(saved)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), ui=shown)


def open_writer(path: Path, format: str, width: int, height: int, fps: float, sound_of: Any = None) -> VideoWriter:
    """A writer of one of our formats, with the sound of a VIDEO; nothing is on disk before the first frame.

    Raises:
        InputError: See `VideoWriter`; or the sound is in no file.
    """
    sound = None if sound_of is None else sound_of.get_stream_source()
    if sound is not None and not isinstance(sound, str):
        raise InputError("sound_of is no file: connect Load Video to it")
    return VideoWriter(path, width, height, fps, codec=FORMATS[format][1], audio=sound)


NODES = [SegmentSetupNode, SegmentFileNode, JoinFilesNode]
