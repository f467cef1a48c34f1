"""Long videos: a motion of any length, cut into segments that ComfyUI's executor makes one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import GraphBuilder

from ..unianimate_core.diffusion.noise import LONG_VIDEO_PRIOR, OFFSET
from ..unianimate_core.errors import InputError
from ..unianimate_core.unet.config import check_size
from ..unianimate_core.unet.memory import require_memory
from ..unianimate_core.video.plan import LastSegment, plan_segments
from .motion import PoseKeypoint
from .parts import Part, check_chain, describe, plan_parts
from .segment_files import FORMATS, open_writer, output_path
from .segments import CATEGORY, HELD_COLOURS

PLANNED = ("start_frame", "length", "segment_length", "shared_frames", "last_segment", "noise_seed", "segment_seeds")
PASSED_ON = ("vae", "driving_pose", "text", "clip_vision_output", "reference_image", "reference_pose")


def _inputs(pose: io.Input, *more: io.Input) -> list[io.Input]:
    """What both nodes take."""
    return [
        io.Model.Input("model", tooltip="UniAnimate, with any patches: LoRA, Context Windows, ..."),
        io.Vae.Input("vae", tooltip="Stable Diffusion 1.5's VAE, or the small model's own."),
        io.Sampler.Input("sampler", tooltip="From KSamplerSelect; euler with UniAnimate Scheduler is the public DDIM."),
        io.Sigmas.Input("sigmas", tooltip="From UniAnimate Scheduler, or any scheduler; every segment walks them."),
        pose,
        io.Int.Input("width", default=512, min=64, max=16384, step=8, tooltip="Width of the video."),
        io.Int.Input("height", default=768, min=64, max=16384, step=8, tooltip="Height of the video."),
        io.Int.Input("length", default=0, min=0, max=1000000, tooltip="Frames of the video; 0 for the whole motion."),
        io.Int.Input("start_frame", default=0, min=0, max=1000000, tooltip="First frame of the motion to use."),
        io.Int.Input(
            "segment_length",
            default=32,
            min=2,
            max=16384,
            tooltip="Frames that are sampled at once. The public weights know 16 and 32.",
        ),
        io.Int.Input(
            "shared_frames",
            default=1,
            min=1,
            max=16384,
            tooltip="Frames that a segment makes again from the one before; the first of them is its first frame. "
            "More than 1 are cross-faded.",
        ),
        io.Combo.Input(
            "last_segment",
            options=list(get_args(LastSegment)),
            default="overlap",
            tooltip="A last segment that the motion does not fill: shorten makes fewer frames, overlap shares more "
            "frames with the one before, pad holds the last pose and cuts what is too much.",
        ),
        io.Float.Input("cfg", default=2.5, min=0.0, max=100.0, step=0.1, tooltip="Guidance; 2.5 is usual."),
        io.Int.Input(
            "noise_seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Of the first segment; the second takes one more, and so on. Leave it fixed to go on where a "
            "cancelled run stopped.",
        ),
        io.Int.Input(
            "noise_prior",
            default=LONG_VIDEO_PRIOR,
            min=0,
            max=999,
            tooltip="Each segment starts from the reference picture noised to this timestep. 939 suits long videos, "
            "959 to 969 helps against ghosting. 0: pure noise.",
        ),
        io.String.Input(
            "segment_seeds",
            default="",
            tooltip="Other seeds for some segments, such as 3: 77, 5: 12. Segments before the first of them are not "
            "made again.",
        ),
        io.Combo.Input(
            "hold_colours",
            options=list(HELD_COLOURS),
            default="free",
            tooltip="Against drift: hold mean and contrast of the colours, of person and background apart, to those of "
            "the reference picture (reference_image, reference_pose) or of the first segment.",
        ),
        *more,
        io.Conditioning.Input("text", optional=True, tooltip="The EMPTY prompt; see UniAnimate Conditioning."),
        io.ClipVisionOutput.Input(
            "clip_vision_output", optional=True, tooltip="The reference picture; see UniAnimate Conditioning."
        ),
        io.Image.Input("reference_image", optional=True, tooltip="The person to animate."),
        io.Image.Input("reference_pose", optional=True, tooltip="Drawn pose of the reference picture."),
        io.Image.Input(
            "first_frame", optional=True, tooltip="The video's first frame, where it is to be a given picture."
        ),
    ]


class _LongVideo(io.ComfyNode):
    """What both nodes do alike."""

    @classmethod
    def validate_inputs(cls, segment_length: int | None = None, shared_frames: int | None = None) -> bool | str:
        """Say at once, when the graph is queued, what no motion can be cut into."""
        try:
            if segment_length is not None and shared_frames is not None:
                plan_segments(1, segment_length, shared_frames)
        except InputError as error:
            return str(error)
        return True

    @classmethod
    def links(cls) -> dict[str, Any]:
        """Our inputs as the graph has them, links as links, so that the executor knows what depends on what."""
        return cls.hidden.dynprompt.get_node(cls.hidden.unique_id)["inputs"]

    @classmethod
    def parts(cls, values: dict[str, Any]) -> list[Part]:
        """Check the inputs and plan."""
        check_size(values["width"], values["height"])
        if values["hold_colours"] == "reference":
            missing = [name for name in ("reference_image", "reference_pose") if values.get(name) is None]
            if missing:
                raise InputError(f"to hold colours to the reference, connect {' and '.join(missing)}")
        return plan_parts(len(values["driving_pose"]), **{name: values[name] for name in PLANNED})


class UniAnimateLongVideo(_LongVideo):
    """Per segment the stock nodes, then all segments joined."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A model, how to sample, a motion."""
        pose = io.Image.Input(
            "driving_pose", tooltip="The motion, one picture per frame, from Draw UniAnimate Pose; of any length."
        )
        return io.Schema(
            node_id="UniAnimateLongVideo",
            display_name="Animate Long Video",
            category=CATEGORY,
            description="Animates a motion of any length in segments, each going on from the last frame of the one "
            "before. Cancelled, failed or changed runs go on from the last segment that is still right.",
            inputs=_inputs(pose),
            outputs=[
                io.Image.Output(display_name="images", tooltip="All frames, each once."),
                io.String.Output(display_name="plan", tooltip="Which frames each segment makes, and its seed."),
            ],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """Check everything, then lay out the nodes of all segments."""
        parts = cls.parts(values)
        links = cls.links()
        copied = (values["hold_colours"] != "free") + (values["shared_frames"] > 1)  # by a node each
        check_chain(parts, 4 + copied)
        width, height, plan = values["width"], values["height"], _plan(parts, values)
        what = f"{plan['frames']} frames of {width} x {height}, in segments and joined,"
        advice = "Use Animate Long Video to File, which holds one segment at a time, or lower width, height or length"
        require_memory((2 + copied) * plan["frames"] * width * height * 3 * 4, torch.device("cpu"), what, advice)
        graph = GraphBuilder()
        made: list[list] = []
        for part in parts:
            made.append(_add_segment(graph, part, values, links, made))
        segments = {f"segment_{part.number}": images for part, images in zip(parts, made, strict=True)}
        joined = graph.node("UniAnimateJoinAll", "join", **plan, **segments)
        return io.NodeOutput(joined.out(0), describe(parts), expand=graph.finalize())


def _plan(parts: Sequence[Part], values: dict[str, Any]) -> dict[str, Any]:
    """What `plan_segments` takes."""
    numbers = {name: values[name] for name in ("segment_length", "shared_frames", "last_segment")}
    return {"frames": sum(part.segment.added for part in parts), **numbers}


def _add_segment(
    graph: GraphBuilder, part: Part, values: dict[str, Any], links: dict[str, Any], made: Sequence[list]
) -> list:
    """The stock nodes of one segment, after the links to those before; returns the link to its frames."""

    def add(class_type: str, name: str, **inputs: Any) -> Any:
        given = {key: value for key, value in inputs.items() if value is not None}
        return graph.node(class_type, f"segment{part.number}.{name}", **given)

    segment, shared = part.segment, part.segment.shared
    kept = segment.length - segment.padding
    # Beyond the video's end its last pose is held, whether or not the motion goes on there.
    pose, start_frame = links["driving_pose"], part.start_frame
    if segment.padding:
        pose = add("ImageFromBatch", "pose", image=pose, batch_index=start_frame, length=kept).out(0)
        start_frame = 0
    before = {"continue_from": made[-1], "shared_frames": shared} if made else {"first_frame": links.get("first_frame")}
    conditioning = add(
        "UniAnimateConditioning",
        "conditioning",
        width=values["width"],
        height=values["height"],
        length=segment.length,
        start_frame=start_frame + shared,
        noise_prior=values["noise_prior"],
        hold_last_pose=segment.padding > 0,
        **before,
        **{name: links.get(name) for name in PASSED_ON} | {"driving_pose": pose},
    )
    guider = add(
        "CFGGuider",
        "guider",
        model=links["model"],
        positive=conditioning.out(0),
        negative=conditioning.out(1),
        cfg=values["cfg"],
    )
    samples = add(
        "SamplerCustomAdvanced",
        "sampler",
        noise=add("UniAnimateNoise", "noise", noise_seed=part.seed, offset=OFFSET).out(0),
        guider=guider.out(0),
        sampler=links["sampler"],
        sigmas=links["sigmas"],
        latent_image=conditioning.out(2),
    )
    images = add("VAEDecode", "decode", samples=samples.out(0), vae=links["vae"]).out(0)
    if segment.padding:
        images = add("ImageFromBatch", "cut", image=images, batch_index=0, length=kept).out(0)
    like = None
    if values["hold_colours"] == "first-segment" and made:
        like = {"like": made[0], "like_pose": links["driving_pose"], "like_start_frame": values["start_frame"]}
    elif values["hold_colours"] == "reference":
        picture = add("ImageFromBatch", "reference", image=links["reference_image"], batch_index=0, length=1).out(0)
        like = {"like": picture, "like_pose": links["reference_pose"], "like_start_frame": 0}
    if like is not None:
        poses = {"pose": links["driving_pose"], "start_frame": part.start_frame}
        images = add("UniAnimateHoldColours", "colours", images=images, **poses, **like).out(0)
    if shared > 1:
        images = add("UniAnimateFadeShared", "fade", before=made[-1], images=images, shared_frames=shared).out(0)
    return images


class UniAnimateLongVideoToFile(_LongVideo):
    """Per segment one node that keeps its frames on disk."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """As Animate Long Video, and a file."""
        pose = io.MultiType.Input(
            "driving_pose",
            [PoseKeypoint, io.Image],
            tooltip="The motion as keypoints, which take no memory: person 0 is drawn, cropped to the video's shape. "
            "Or as pictures from Draw UniAnimate Pose, for all its options.",
        )
        file = (
            io.Float.Input("fps", default=30.0, min=0.1, max=1000.0, step=0.01, tooltip="Frames per second."),
            io.String.Input(
                "filename_prefix",
                default="video/unianimate",
                tooltip="Name of the file in ComfyUI's output folder; a number follows.",
            ),
            io.Combo.Input("format", options=list(FORMATS), tooltip="Container and codec of the file."),
        )
        return io.Schema(
            node_id="UniAnimateLongVideoToFile",
            display_name="Animate Long Video to File",
            category=CATEGORY,
            description="As Animate Long Video, for videos longer than memory: one segment at a time is held, finished "
            "ones wait on disk, and the joined video is written to ComfyUI's output folder.",
            inputs=[
                *_inputs(pose, *file),
                io.Video.Input(
                    "sound_of",
                    optional=True,
                    tooltip="The video that the motion is from, by Load Video: its sound, which must last as long as "
                    "the video, is written along.",
                ),
            ],
            outputs=[
                io.Video.Output(tooltip="The file, for any node that takes videos."),
                io.String.Output(display_name="plan", tooltip="Which frames each segment makes, and its seed."),
            ],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            is_output_node=True,
            enable_expand=True,
        )

    @classmethod
    def execute(cls, **values: Any) -> io.NodeOutput:
        """Check everything, the file too, then lay out one node per segment."""
        parts = cls.parts(values)
        links = cls.links()
        check_chain(parts, 1)
        if values.get("sound_of") is not None and values["start_frame"]:
            raise InputError("the sound would begin too early: set start_frame to 0, or leave sound_of open")
        width, height, prefix = values["width"], values["height"], values["filename_prefix"]
        file = {name: values[name] for name in ("format", "width", "height", "fps")}
        path = output_path(prefix, values["format"], width, height)[0]
        plan = _plan(parts, values)
        if sound := open_writer(path, sound_of=values.get("sound_of"), **file).sound:
            sound.check_length(plan["frames"] / values["fps"])

        def wired(*names: str) -> dict[str, list]:
            return {name: links[name] for name in names if links.get(name) is not None}

        graph = GraphBuilder()
        common = {name: values[name] for name in ("width", "height", "cfg", "noise_prior")}
        common |= wired("model", "sampler", "sigmas", *PASSED_ON)
        setup = graph.node("UniAnimateSegmentSetup", "setup", **common).out(0)
        made: list[list] = []
        for part in parts:
            before = {"before": made[-1]} if made else wired("first_frame")
            if made and values["hold_colours"] == "first-segment":
                before["first"] = made[0]
            numbers = {
                "start_frame": part.start_frame,
                "length": part.segment.length,
                "shared_frames": part.segment.shared,
                "padding": part.segment.padding,
                "noise_seed": part.seed,
                "colours": values["hold_colours"],
            }
            name = f"segment{part.number}"
            made.append(graph.node("UniAnimateSegmentFile", name, setup=setup, **numbers, **before).out(0))
        segments = {f"segment_{part.number}": link for part, link in zip(parts, made, strict=True)}
        join = {"filename_prefix": prefix, **file, **plan, **wired("sound_of")}
        joined = graph.node("UniAnimateJoinFiles", "join", **join, **segments)
        return io.NodeOutput(joined.out(0), describe(parts), expand=graph.finalize())


NODES = [UniAnimateLongVideo, UniAnimateLongVideoToFile]
