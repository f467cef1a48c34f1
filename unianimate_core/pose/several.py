"""From frames of several people to one motion each, and back."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .keypoints import MotionTrack
from .people import follow_everyone
from .wire_format import FOLLOWED, complete_frames, decode_person, read_people


def split_people(frames: Sequence[dict[str, Any]], follow: bool = True) -> list[MotionTrack]:
    """One motion for each person in `POSE_KEYPOINT` frames.

    Where frames show several, people are followed through time, and come in the order of `follow_everyone`; frames that
    it or `join_people` made have everyone in their place already.

    Args:
        frames: Of any pack.
        follow: Whether to follow people; else they are told by their places in the lists, which is enough for pictures.

    Raises:
        InputError: There is nobody in any frame, or a frame cannot be read.
    """
    whole, tables = read_people(frames)
    if follow and max(map(len, tables)) > 1 and not all(frame.get(FOLLOWED) for frame in whole):
        whole, tables = read_people(follow_everyone(whole))
    shown = [
        person
        for person in range(max(map(len, tables)))
        if any(person < len(group) and np.isfinite(group[person][:, 0]).any() for group in tables)
    ]
    if not shown:
        raise InputError(f"No person has a point in any of {len(whole)} frames; give a motion with someone in it.")
    return [MotionTrack(**decode_person(whole, tables, person)) for person in shown]


def pick_person(people: Sequence[MotionTrack], person: int) -> MotionTrack:
    """One of the people that `split_people` gave, by number.

    Raises:
        InputError: There is no such person.
    """
    if not people:
        raise InputError("There is no person in the motion; give one with someone in it.")
    if not 0 <= person < len(people):
        raise InputError(f"There is no person {person}: the motion shows {len(people)}; give 0 to {len(people) - 1}.")
    return people[person]


def join_people(tracks: Sequence[MotionTrack]) -> list[dict[str, Any]]:
    """`POSE_KEYPOINT` frames that show several motions at once; `split_people` gives them back.

    Of several people each keeps their place in every frame, with all points 0, 0, 0 where they are absent.

    Args:
        tracks: Of as many frames, on one canvas.

    Raises:
        InputError: There is no motion, or they differ in length or canvas.
    """
    for what, kinds in {
        "frames": {len(track) for track in tracks},
        "pixels": {f"{track.width} x {track.height}" for track in tracks},
    }.items():
        if len(kinds) != 1:
            shown = " and ".join(sorted(map(str, kinds))) or "no"
            raise InputError(f"The motions have {shown} {what}; give one or more, alike in that.")
    alone = [track.to_pose_keypoints() for track in tracks]
    if len(alone) == 1:
        return alone[0]
    joined = []
    for frames in zip(*alone, strict=True):
        people = [frame["people"][0] if frame["people"] else {} for frame in frames]
        joined.append({**frames[0], "people": people, FOLLOWED: True})
    return complete_frames(joined)
