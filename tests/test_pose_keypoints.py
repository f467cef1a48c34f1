"""The motion track: what it accepts, how it is cut and cropped."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack
from unianimate_core.pose.keypoints import BODY_JOINTS

GOLDEN = np.load(Path(__file__).parent / "golden_data" / "pose_alignment.npz")
PARTS = ("body", "hands", "face")


def golden_track(name="driving"):
    return MotionTrack(**{part: GOLDEN[f"{name}.{part}"] for part in PARTS}, width=512, height=768)


def test_joints_are_named_in_openpose_order():
    assert len(BODY_JOINTS) == len(set(BODY_JOINTS)) == 20
    assert [BODY_JOINTS.index(name) for name in ("neck", "right_wrist", "left_wrist", "left_ankle")] == [1, 4, 7, 13]
    assert BODY_JOINTS[18:] == ("left_toes", "right_toes")


def test_absent_points_have_neither_coordinate():
    body = np.full((1, 20, 2), 0.5)
    body[0, 3, 0], body[0, 4, 1], body[0, 5, 0] = np.nan, np.inf, -np.inf
    track = MotionTrack(body, width=10, height=10)
    assert np.isnan(track.body[0, 3:6]).all()
    assert np.isfinite(np.delete(track.body[0], [3, 4, 5], 0)).all()
    assert np.isnan(track.hands).all()
    assert track.hands.shape == (1, 2, 21, 2)
    assert track.face.shape == (1, 68, 2)
    assert body[0, 3, 1] == 0.5, "the caller's array was changed"


@pytest.mark.parametrize("score", [0.0, 0.29, -1.0, float("nan"), float("inf")])
def test_points_without_a_good_score_are_absent(score):
    scores = np.ones((1, 20))
    scores[0, 7] = score
    track = MotionTrack(np.full((1, 20, 2), 0.5), width=10, height=10, body_scores=scores)
    assert np.isnan(track.body).all(-1).nonzero()[1].tolist() == [7]
    assert track.body_scores[0, 7] == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_tensors_and_lists_are_accepted(dtype):
    body = torch.full((2, 20, 2), 0.25, dtype=dtype, requires_grad=True)
    assert (MotionTrack(body, width=8, height=8).body == 0.25).all()
    assert (MotionTrack(body.tolist(), width=8, height=8).body == 0.25).all()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"body": np.zeros((20, 2))}, r"body has shape \(20, 2\), one frame without the frame axis"),
        ({"body": np.zeros((3, 18, 2))}, r"body has shape \(3, 18, 2\).*\(frames, 20, 2\)"),
        ({"body": np.zeros((0, 20, 2))}, "no frame"),
        ({"body": None}, "body"),
        ({"body": "abc"}, "body is not an array of numbers"),
        ({"hands": np.zeros((2, 2, 21, 2))}, r"hands has shape \(2, 2, 21, 2\).*\(3, 2, 21, 2\)"),
        ({"face": np.zeros((3, 70, 2))}, r"face has shape \(3, 70, 2\)"),
        ({"body_scores": np.zeros((3, 18))}, r"body_scores has shape \(3, 18\)"),
        ({"width": 0}, "width is 0"),
        ({"height": float("nan")}, "height is nan"),
    ],
)
def test_wrong_fields_are_named(fields, words):
    with pytest.raises(InputError, match=words):
        MotionTrack(**{"body": np.zeros((3, 20, 2)), "width": 512, "height": 768} | fields)


def test_fields_cannot_be_set():
    with pytest.raises(AttributeError):
        golden_track().width = 3


def test_indexing_keeps_frames():
    track = golden_track()
    assert len(track) == 12
    for index, rows in ((3, slice(3, 4)), (-1, slice(11, 12)), (slice(2, 9, 3), slice(2, 9, 3))):
        cut = track[index]
        for part in PARTS:
            np.testing.assert_array_equal(getattr(cut, part), GOLDEN[f"driving.{part}"][rows])
    assert [len(one) for one in track] == [1] * 12
    with pytest.raises(IndexError):
        track[12]
    with pytest.raises(InputError, match="no frame"):
        track[5:5]


def test_present_tells_frames_with_a_body():
    body = np.full((3, 20, 2), np.nan)
    body[1, 9] = 0.5
    assert MotionTrack(body, width=8, height=8).present.tolist() == [False, True, False]


def test_crop_shows_a_part_of_the_canvas():
    track = golden_track().crop(0.25, 0.5, 0.75, 1.0)
    assert (track.width, track.height) == (256, 384)
    np.testing.assert_allclose(track.body[..., 0] * 256 + 128, GOLDEN["driving.body"][..., 0] * 512)
    np.testing.assert_allclose(track.hands[..., 1] * 384 + 384, GOLDEN["driving.hands"][..., 1] * 768)


@settings(max_examples=40)
@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(0.1, 3), st.floats(0.1, 3))
def test_a_crop_is_undone_by_its_inverse(left, top, width, height):
    track = golden_track()
    back = track.crop(left, top, left + width, top + height)
    back = back.crop(-left / width, -top / height, (1 - left) / width, (1 - top) / height)
    for part in PARTS:
        np.testing.assert_allclose(getattr(back, part), getattr(track, part), atol=1e-9)


@pytest.mark.parametrize("edges", [(0.5, 0, 0.5, 1), (0, 1, 1, 0), (0, 0, float("nan"), 1)])
def test_a_crop_needs_area(edges):
    with pytest.raises(InputError, match="no area"):
        golden_track().crop(*edges)
