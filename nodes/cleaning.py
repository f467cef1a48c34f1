"""A motion cleaned and edited: each node one step, with before and after side by side."""

from __future__ import annotations

from typing import Any, ClassVar

from comfy_api.latest import io

from ..unianimate_core.pose import MotionTrack
from ..unianimate_core.pose import cleaning as clean
from ..unianimate_core.pose.several import join_people, split_people
from .motion import CATEGORY, PoseKeypoint, preview

METHOD = "How to go from one frame to the next: pchip is smooth and does not overshoot."


class _Edit(io.ComfyNode):
    """A step; each kind says what it is called, which widgets it has, and what it does to one person's motion."""

    NODE: ClassVar[tuple[str, str, str]]  # id, name, description

    @classmethod
    def widgets(cls) -> list[Any]:
        """Its settings."""
        return []

    @classmethod
    def edit(cls, track: MotionTrack, **settings: Any) -> MotionTrack:
        """One person's motion after the step."""
        raise NotImplementedError

    @classmethod
    def define_schema(cls) -> io.Schema:
        """A motion in, a motion out."""
        node_id, name, description = cls.NODE
        return io.Schema(
            node_id=node_id,
            display_name=name,
            category=f"{CATEGORY}/cleaning",
            description=f"{description} Shows the motion before (left) and after (right).",
            is_output_node=True,
            inputs=[
                PoseKeypoint.Input("pose_keypoint", tooltip="A motion; of several people, all are edited."),
                *cls.widgets(),
            ],
            outputs=[PoseKeypoint.Output(display_name="pose_keypoint", tooltip="The motion after this step.")],
        )

    @classmethod
    def execute(cls, pose_keypoint: list[dict], **settings: Any) -> io.NodeOutput:
        """Edit every person, and show both motions."""
        before = split_people(pose_keypoint)
        after = [cls.edit(track, **settings) for track in before]
        return io.NodeOutput(join_people(after), ui=preview(before, after, cls=cls))


class DropPoseFlicker(_Edit):
    """Joints that show up for a moment."""

    NODE = (
        "UniAnimateDropPoseFlicker",
        "Drop Pose Flicker",
        "Removes joints that appear for a few frames only, as guesses at a hidden limb do.",
    )

    @classmethod
    def widgets(cls) -> list[Any]:
        """How short is too short."""
        return [
            io.Int.Input(
                "shortest", default=3, min=1, max=1000, tooltip="Appearances of fewer frames than this are removed."
            )
        ]

    @classmethod
    def edit(cls, track: MotionTrack, shortest: int) -> MotionTrack:
        """See `drop_flicker`."""
        return clean.drop_flicker(track, shortest)


class DropPoseOutliers(_Edit):
    """Joints in a wrong place."""

    NODE = (
        "UniAnimateDropPoseOutliers",
        "Drop Pose Outliers",
        "Removes joints that jump away and back, or that lie too far from the one that they hang on.",
    )

    @classmethod
    def widgets(cls) -> list[Any]:
        """How far is too far."""
        return [
            io.Int.Input(
                "window",
                default=7,
                min=1,
                max=101,
                step=2,
                tooltip="Odd number of frames to compare with; jumps shorter than half of it are found. 1: none.",
            ),
            io.Float.Input(
                "jump",
                default=0.06,
                min=0.0,
                max=10.0,
                step=0.01,
                tooltip="How far a joint may always jump, in body heights.",
            ),
            io.Float.Input(
                "stretch",
                default=1.8,
                min=0.0,
                max=100.0,
                step=0.1,
                tooltip="How many times its usual length a limb may have. 0: any.",
            ),
        ]

    @classmethod
    def edit(cls, track: MotionTrack, window: int, jump: float, stretch: float) -> MotionTrack:
        """See `drop_outliers`."""
        return clean.drop_outliers(track, window=window, jump=jump, stretch=stretch)


class FillPoseGaps(_Edit):
    """Frames in which a joint, or the person, is absent."""

    NODE = (
        "UniAnimateFillPoseGaps",
        "Fill Pose Gaps",
        "Fills short gaps of every joint between the frames that show it.",
    )

    @classmethod
    def widgets(cls) -> list[Any]:
        """How long a gap may be."""
        return [
            io.Int.Input("longest", default=10, min=0, max=100000, tooltip="Gaps of more frames stay open."),
            io.Int.Input(
                "hold",
                default=0,
                min=0,
                max=100000,
                tooltip="At the motion's ends: gaps of up to so many frames take the nearest position.",
            ),
            io.Combo.Input("method", options=list(clean.INTERPOLATIONS), tooltip=METHOD),
            io.Boolean.Input(
                "hold_last_pose",
                default=False,
                tooltip="Frames that still do not show the person repeat the pose before them; those before the "
                "first, the first. Of several people each is held.",
            ),
        ]

    @classmethod
    def edit(cls, track: MotionTrack, longest: int, hold: int, method: str, hold_last_pose: bool) -> MotionTrack:
        """See `fill_gaps` and `hold_pose`."""
        track = clean.fill_gaps(track, longest, method=method, hold=hold)
        return clean.hold_pose(track) if hold_last_pose else track


class SmoothPose(_Edit):
    """Jitter."""

    NODE = (
        "UniAnimateSmoothPose",
        "Smooth Pose",
        "Takes jitter out of a motion. One euro smooths what is slow and leaves what is fast; Savitzky-Golay smooths "
        "everything alike.",
    )

    @classmethod
    def widgets(cls) -> list[Any]:
        """The two filters' settings."""
        return [
            io.Combo.Input("method", options=list(clean.SMOOTHINGS), tooltip="The filter."),
            io.Float.Input(
                "fps", default=30.0, min=1.0, max=1000.0, step=0.01, tooltip="One euro: the motion's frames a second."
            ),
            io.Float.Input(
                "min_cutoff",
                default=2.0,
                min=0.01,
                max=1000.0,
                step=0.1,
                tooltip="One euro: cutoff at rest in Hz; lower for less jitter.",
            ),
            io.Float.Input(
                "beta",
                default=15.0,
                min=0.0,
                max=10000.0,
                step=0.5,
                tooltip="One euro: how much the cutoff rises with speed; higher follows fast motion more closely.",
            ),
            io.Int.Input("window", default=7, min=1, max=101, step=2, tooltip="Savitzky-Golay: odd number of frames."),
            io.Int.Input(
                "order", default=2, min=0, max=10, tooltip="Savitzky-Golay: degree of the polynomial, below window."
            ),
        ]

    @classmethod
    def edit(cls, track: MotionTrack, method: str, **settings: Any) -> MotionTrack:
        """See `smooth`."""
        return clean.smooth(track, method, **settings)


class TrimPose(_Edit):
    """A part of a motion."""

    NODE = ("UniAnimateTrimPose", "Trim Pose", "Cuts a part out of a motion.")

    @classmethod
    def widgets(cls) -> list[Any]:
        """Which part."""
        return [
            io.Int.Input("start", default=0, min=0, max=1000000, tooltip="First frame to keep, from 0."),
            io.Int.Input("frames", default=0, min=0, max=1000000, tooltip="How many to keep; 0 for all to the end."),
        ]

    @classmethod
    def edit(cls, track: MotionTrack, start: int, frames: int) -> MotionTrack:
        """See `trim`."""
        return clean.trim(track, start, frames or None)


class RetimePose(_Edit):
    """Another frame rate."""

    NODE = (
        "UniAnimateRetimePose",
        "Retime Pose",
        "Gives a motion another frame rate at the same speed; with rates that are not the true ones, another speed.",
    )

    @classmethod
    def widgets(cls) -> list[Any]:
        """Both rates."""
        return [
            io.Float.Input(
                "from_fps", default=30.0, min=1.0, max=1000.0, step=0.01, tooltip="Frames a second of this motion."
            ),
            io.Float.Input(
                "to_fps", default=30.0, min=1.0, max=1000.0, step=0.01, tooltip="Frames a second of the result."
            ),
            io.Combo.Input("method", options=list(clean.INTERPOLATIONS), tooltip=METHOD),
        ]

    @classmethod
    def edit(cls, track: MotionTrack, from_fps: float, to_fps: float, method: str) -> MotionTrack:
        """See `retime`."""
        return clean.retime(track, from_fps, to_fps, method=method)


class LoopPose(_Edit):
    """Again and again."""

    NODE = ("UniAnimateLoopPose", "Loop Pose", "Plays a motion several times, or forwards and backwards by turns.")

    @classmethod
    def widgets(cls) -> list[Any]:
        """How often, and how."""
        return [
            io.Int.Input("times", default=2, min=1, max=10000, tooltip="How often it is played."),
            io.Combo.Input(
                "mode", options=list(clean.LOOPS), tooltip="Ping-pong goes forwards and backwards by turns."
            ),
            io.Int.Input(
                "blend",
                default=0,
                min=0,
                max=100000,
                tooltip="Repeat: over so many frames the end passes into the beginning. 0: it jumps.",
            ),
        ]

    @classmethod
    def edit(cls, track: MotionTrack, times: int, mode: str, blend: int) -> MotionTrack:
        """See `loop`."""
        return clean.loop(track, times, mode, blend=blend if mode == "repeat" else 0)


class MirrorPose(_Edit):
    """Left for right."""

    NODE = ("UniAnimateMirrorPose", "Mirror Pose", "Shows a motion as in a mirror, with left and right exchanged.")

    @classmethod
    def edit(cls, track: MotionTrack) -> MotionTrack:
        """See `mirror`."""
        return clean.mirror(track)


class TransformPose(_Edit):
    """Place, size, angle."""

    NODE = ("UniAnimateTransformPose", "Move, Scale, Rotate Pose", "Moves, scales and turns a motion in its canvas.")

    @classmethod
    def widgets(cls) -> list[Any]:
        """By how much."""
        move = "By which fraction of the {} to move it {}."
        return [
            io.Float.Input(
                "move_x", default=0.0, min=-10.0, max=10.0, step=0.01, tooltip=move.format("width", "to the right")
            ),
            io.Float.Input(
                "move_y", default=0.0, min=-10.0, max=10.0, step=0.01, tooltip=move.format("height", "down")
            ),
            io.Float.Input("scale", default=1.0, min=0.01, max=100.0, step=0.01, tooltip="About the canvas's middle."),
            io.Float.Input(
                "rotate",
                default=0.0,
                min=-360.0,
                max=360.0,
                step=1.0,
                tooltip="Degrees clockwise, about the canvas's middle.",
            ),
        ]

    @classmethod
    def edit(cls, track: MotionTrack, move_x: float, move_y: float, scale: float, rotate: float) -> MotionTrack:
        """See `transform`."""
        return clean.transform(track, move=(move_x, move_y), scale=scale, rotate=rotate)


class ScaleLimbs(_Edit):
    """Another build."""

    NODE = (
        "UniAnimateScaleLimbs",
        "Scale Limbs",
        "Makes limbs longer or shorter; what hangs on them moves along, and the neck stays in its place.",
    )
    LIMBS = ("torso", "shoulders", "upper arms", "forearms", "hands", "hips", "thighs", "shins", "feet", "neck", "head")

    @classmethod
    def widgets(cls) -> list[Any]:
        """A factor for each limb."""
        tooltips = {
            "torso": "Neck to hips.",
            "shoulders": "Their width.",
            "hips": "Their width.",
            "neck": "To the nose.",
        }
        return [
            io.Float.Input(
                name.replace(" ", "_"),
                default=1.0,
                min=0.1,
                max=10.0,
                step=0.01,
                tooltip=f"Factor. {tooltips.get(name, 'Of both sides.' if name[-1] == 's' else '')}".strip(),
            )
            for name in cls.LIMBS
        ]

    @classmethod
    def edit(cls, track: MotionTrack, **factors: float) -> MotionTrack:
        """See `scale_limbs`."""
        return clean.scale_limbs(track, {name.replace("_", " "): factor for name, factor in factors.items()})


NODES = [
    DropPoseFlicker,
    DropPoseOutliers,
    FillPoseGaps,
    SmoothPose,
    TrimPose,
    RetimePose,
    LoopPose,
    MirrorPose,
    TransformPose,
    ScaleLimbs,
]
