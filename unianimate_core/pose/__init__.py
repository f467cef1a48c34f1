"""A person's motion: keypoints, the files that hold them, and the pictures drawn of them."""

from .drawing import draw_frames, draw_motion
from .files import read_motion, read_pose_frames, write_motion
from .fitting import FITS, fit_track
from .keypoints import MotionTrack
from .wire_format import complete_frames

__all__ = [
    "FITS",
    "MotionTrack",
    "complete_frames",
    "draw_frames",
    "draw_motion",
    "fit_track",
    "read_motion",
    "read_pose_frames",
    "write_motion",
]
