"""Long videos in a real ComfyUI: what cannot work is refused at once."""

import re

import pytest
from comfy_server import PromptFailed, PromptRejected
from graphs import exact, graph, long_video

TO_FILE = "UniAnimateLongVideoToFile"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 300}, "the motion has 280 frames, but start_frame 2 and length 300 need 302: lower length to 278"),
        ({"start_frame": 280, "length": 0}, "the motion has 280 frames: lower start_frame from 280 below that"),
        ({"width": 100}, "width is 100: give a positive multiple of 8"),
        ({"segment_seeds": "3 = 5"}, "'3 = 5' is not a segment and its seed: write for example 3: 77, 5: 12"),
        ({"segment_seeds": "9: 5"}, "'9: 5' is out of range: segments are 1 to 3"),
        (
            {"hold_colours": "reference", "reference_pose": None},
            "to hold colours to the reference, connect reference_p",
        ),
        ({"length": 0, "segment_length": 2}, "277 segments are more than the 2"),
        ({"width": 16384, "height": 16384, "length": 0}, "278 frames of 16384 x 16384, in segments and joined, would"),
    ],
    ids=str,
)
def test_what_cannot_work_is_said_before_the_first_segment(comfy, change, message):
    prompt = long_video(graph())
    inputs = prompt["20"]["inputs"] | change
    prompt["20"]["inputs"] = {name: value for name, value in inputs.items() if value is not None}
    with pytest.raises(PromptFailed, match=re.escape(message)):
        comfy.queue(prompt)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "gif", "fps": 60.0}, "60.0 frames per second are not possible in .gif"),
        ({"filename_prefix": "../outside"}, "Saving image outside the output folder is not allowed"),
        ({"sound_of": ["60", 0]}, "the sound would begin too early"),
        ({"sound_of": ["60", 0], "start_frame": 0}, "dance.mp4"),  # it has none
    ],
    ids=str,
)
def test_a_file_that_cannot_be_written_is_refused_before_the_first_segment(comfy, change, message):
    prompt = long_video(graph(), TO_FILE, **change)
    prompt["60"] = {"class_type": "LoadVideo", "inputs": {"file": "dance.mp4"}}
    with pytest.raises(PromptFailed, match=re.escape(message)) as failure:
        comfy.queue(prompt)
    assert failure.value.node_type == TO_FILE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segment_length": 1}, "segment length is 1: give 2 or more"),
        ({"shared_frames": 4}, "4 shared frames in segments of 4: give 1 to 3"),
        ({"last_segment": "repeat"}, "repeat"),
    ],
    ids=str,
)
def test_segments_that_nothing_can_be_cut_into_are_refused_when_queued(comfy, change, message):
    with pytest.raises(PromptRejected, match=re.escape(message)):
        comfy.queue(long_video(graph(), **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_frame": 0}, "start_frame is 0, but 1 frames before it are shared: connect start_frame"),
        ({"start_frame": 9, "shared_frames": 5}, "5 shared frames in a segment of 5: give 1 to 4"),
        ({"start_frame": 9, "shared_frames": 3}, "continue_from has 1 frames, but 3 are shared"),
    ],
    ids=str,
)
def test_going_on_from_what_does_not_fit_is_refused(comfy, change, message):
    with pytest.raises(PromptFailed, match=re.escape(message)):
        comfy.queue(exact(graph(continue_from=["3", 0], **change)))
