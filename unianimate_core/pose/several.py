"""From frames of several people to one motion each, and back."""

from collections.abc import Sequence
from typing import Any

from ..errors import InputError
from .keypoints import MotionTrack
from .people import follow_everyone
from .wire_format import complete_frames


def split_people(frames: Sequence[dict[str, Any]]) -> list[MotionTrack]:
    """One motion for each person in `POSE_KEYPOINT` frames.

    Where a frame shows several, people are followed through time, and come in the order of `follow_everyone`.

    Raises:
        InputError: There is nobody in any frame, or a frame cannot be read.
    """
    if any(len(frame.get("people") or ()) > 1 for frame in frames):
        frames = follow_everyone(frames)
        return [MotionTrack.from_pose_keypoints(frames, person) for person in range(len(frames[0]["people"]))]
    return [MotionTrack.from_pose_keypoints(frames)]


def join_people(tracks: Sequence[MotionTrack]) -> list[dict[str, Any]]:
    """`POSE_KEYPOINT` frames that show several motions at once, of as many frames, on the first one's canvas.

    Of several people each keeps their place in every frame, with all points 0, 0, 0 where they are absent.

    Raises:
        InputError: There is no motion, or they differ in length.
    """
    lengths = sorted({len(track) for track in tracks})
    if len(lengths) != 1:
        shown = " and ".join(map(str, lengths)) or "no"
        raise InputError(f"The motions have {shown} frames; give one or more, of one length.")
    alone = [track.to_pose_keypoints() for track in tracks]
    if len(alone) == 1:
        return alone[0]
    joined = []
    for frames in zip(*alone, strict=True):
        people = [frame["people"][0] if frame["people"] else {} for frame in frames]
        joined.append({**frames[0], "people": people if any(people) else []})
    return complete_frames(joined)
