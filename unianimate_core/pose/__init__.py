"""A person's motion: keypoints, the files that hold them, and the pictures drawn of them."""

from .alignment import align_motion
from .detection import PoseDetector
from .drawing import draw_frames, draw_motion
from .files import read_motion, read_pose_frames, write_motion, write_pose_frames
from .fitting import FITS, fit_track
from .keypoints import MotionTrack
from .people import follow_everyone, follow_person
from .several import join_people, split_people
from .wire_format import complete_frames

__all__ = [
    "FITS",
    "MotionTrack",
    "PoseDetector",
    "align_motion",
    "complete_frames",
    "draw_frames",
    "draw_motion",
    "fit_track",
    "follow_everyone",
    "follow_person",
    "join_people",
    "read_motion",
    "read_pose_frames",
    "split_people",
    "write_motion",
    "write_pose_frames",
]
