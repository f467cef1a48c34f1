"""POSE_KEYPOINT frames to tracks and back."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack
from unianimate_core.pose.keypoints import BODY_JOINTS

GOLDEN = np.load(Path(__file__).parent / "golden_data" / "pose_alignment.npz")
PARTS = ("body", "hands", "face")


def golden_track(name="driving"):
    return MotionTrack(**{part: GOLDEN[f"{name}.{part}"] for part in PARTS}, width=512, height=768)


def standing(width=512, height=768):
    """18 body points of a person standing in the middle, in pixels, scored 1."""
    x = [0.5, 0.5, 0.4, 0.35, 0.3, 0.6, 0.65, 0.7, 0.45, 0.45, 0.45, 0.55, 0.55, 0.55, 0.48, 0.52, 0.46, 0.54]
    y = [0.1, 0.2, 0.2, 0.35, 0.5, 0.2, 0.35, 0.5, 0.55, 0.7, 0.9, 0.55, 0.7, 0.9, 0.08, 0.08, 0.09, 0.09]
    return np.column_stack([np.multiply(x, width), np.multiply(y, height), np.ones(18)])


def hand_at(point, size=20):
    steps = np.linspace(0, size, 21)
    return np.column_stack([point[0] + steps, point[1] + steps, np.ones(21)]).ravel().tolist()


def frame(body=None, width=512, height=768, **lists):
    body = standing(width, height) if body is None else np.asarray(body)
    person = {"pose_keypoints_2d": body.ravel().tolist(), **lists}
    return {"canvas_width": width, "canvas_height": height, "people": [person]}


def same(a, b):
    for part in PARTS:
        np.testing.assert_allclose(getattr(a, part), getattr(b, part), rtol=0, atol=1e-12)
    assert (a.width, a.height) == (b.width, b.height)


def test_golden_motion_survives_the_round_trip():
    track = golden_track()
    frames = track.to_pose_keypoints()
    assert len(frames) == 12
    person = frames[0]["people"][0]
    assert {key: len(values) for key, values in person.items()} == {
        "pose_keypoints_2d": 54,
        "foot_keypoints_2d": 18,
        "face_keypoints_2d": 210,
        "hand_left_keypoints_2d": 63,
        "hand_right_keypoints_2d": 63,
    }
    np.testing.assert_allclose(person["pose_keypoints_2d"][:2], GOLDEN["driving.body"][0, 0] * [512, 768])
    same(MotionTrack.from_pose_keypoints(frames), track)


@settings(max_examples=60, deadline=None)
@given(
    arrays(bool, (3, 20)),
    arrays(np.float64, (3, 20), elements=st.floats(0.3, 2)),
    st.integers(9, 4000),
    st.integers(9, 4000),
    st.integers(0, 2**32 - 1),
)
def test_round_trip_is_lossless(absent, scores, width, height, seed):
    body = np.random.default_rng(seed).uniform(-3, 4, (3, 20, 2))  # over three pixels apart: not taken for fractions
    body[absent] = np.nan
    body[0, 0] = 3.9
    track = MotionTrack(body, width=width, height=height, body_scores=scores)
    back = MotionTrack.from_pose_keypoints(track.to_pose_keypoints())
    same(back, track)
    np.testing.assert_array_equal(back.body_scores, track.body_scores)


def test_scores_unknown_are_written_as_one_and_zero():
    body = np.full((1, 20, 2), 0.5)
    body[0, 4] = np.nan
    values = MotionTrack(body, width=100, height=100).to_pose_keypoints()[0]["people"][0]["pose_keypoints_2d"]
    assert values[2::3] == [1.0] * 4 + [0.0] + [1.0] * 13
    assert values[12:15] == [0.0, 0.0, 0.0]


def test_frames_without_the_person_are_absent():
    empty = [{"canvas_width": 512, "canvas_height": 768, "people": people} for people in ([], None, [None], [{}])]
    track = MotionTrack.from_pose_keypoints([*empty, {}, None, frame()])
    assert track.present.tolist() == [False] * 6 + [True]
    assert np.isnan(track.hands).all()
    np.testing.assert_allclose(track.body[6, :18] * [512, 768], standing()[:, :2])


def test_lists_may_be_missing_none_or_empty():
    track = MotionTrack.from_pose_keypoints(
        [frame(face_keypoints_2d=None, hand_left_keypoints_2d=[], foot_keypoints_2d=None)]
    )
    assert np.isnan(track.face).all()
    assert np.isnan(track.hands).all()
    assert np.isnan(track.body[0, 18:]).all()


def test_each_frame_is_measured_on_its_own_canvas():
    track = MotionTrack.from_pose_keypoints([frame(), frame(width=1024, height=300), frame(width=64, height=64)])
    np.testing.assert_allclose(track.body[1], track.body[0])
    np.testing.assert_allclose(track.body[2], track.body[0])
    assert (track.width, track.height) == (512, 768)


def test_people_are_chosen_by_number():
    both, alone = frame(), frame()
    moved = np.add(standing(), [100, 0, 0])
    both["people"].append(frame(moved)["people"][0])
    track = MotionTrack.from_pose_keypoints([alone, both], person=1)
    assert track.present.tolist() == [False, True]
    np.testing.assert_allclose(track.body[1, :18] * [512, 768], moved[:, :2])
    for person in (2, -1):
        with pytest.raises(InputError, match=f"no person {person}: frames have at most 2 people"):
            MotionTrack.from_pose_keypoints([alone, both], person=person)


def test_absent_points_of_a_list():
    body = standing()
    body[0] = 0, 0, 0
    body[1, 2] = 0.29
    body[2, 2] = -0.5
    body[3, 2] = np.nan
    body[4, 0] = np.inf
    body[5] = 0, 0, 1  # the corner, and sure of it
    body[6, 2] = 0.3
    track = MotionTrack.from_pose_keypoints([frame(body)])
    assert np.isnan(track.body[0]).all(-1).nonzero()[0].tolist() == [0, 1, 2, 3, 4, 18, 19]
    assert track.body[0, 5].tolist() == [0, 0]
    assert (track.body_scores[0, :5] == 0).all()


def test_feet_are_the_middle_of_the_toes():
    # whole-body points 18–23: left big toe, small toe, heel; right big toe, small toe, heel
    foot = np.array([[300, 700, 0.9], [320, 720, 0.5], [0, 0, 0], [200, 700, 1], [180, 710, 0.2], [190, 690, 1]])
    track = MotionTrack.from_pose_keypoints([frame(foot_keypoints_2d=foot.ravel().tolist())])
    np.testing.assert_allclose(track.body[0, 18] * [512, 768], [310, 710])
    assert track.body_scores[0, 18] == 0.5
    assert np.isnan(track.body[0, 19]).all()


def test_body_25_is_put_in_order():
    # OpenPose's BODY_25 by name; 8 is the middle of the hips, the feet come last
    names = [*BODY_JOINTS[:8], "mid_hip", *BODY_JOINTS[8:18], *(f"left_{n}" for n in ("big_toe", "small_toe", "heel"))]
    names += [f"right_{n}" for n in ("big_toe", "small_toe", "heel")]
    assert (names.index("right_hip"), names.index("left_ankle"), names.index("left_ear")) == (9, 14, 18)
    points = np.column_stack([10.0 * np.arange(25), 400 + np.arange(25), np.ones(25)])
    track = MotionTrack.from_pose_keypoints([frame(points)])
    for joint, name in enumerate(BODY_JOINTS[:18]):
        np.testing.assert_allclose(track.body[0, joint] * [512, 768], points[names.index(name), :2])
    np.testing.assert_allclose(track.body[0, 18] * [512, 768], [195, 419.5])
    np.testing.assert_allclose(track.body[0, 19] * [512, 768], [225, 422.5])


def test_a_face_of_70_loses_its_pupils():
    face = np.column_stack([np.arange(70), np.arange(70), np.ones(70)])
    track = MotionTrack.from_pose_keypoints([frame(face_keypoints_2d=face.ravel().tolist())])
    np.testing.assert_allclose(track.face[0, :, 0] * 512, np.arange(68))


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("pose_keypoints_2d", [1.0] * 53, "53 numbers, not a multiple of 3"),
        ("pose_keypoints_2d", [1.0] * 51, "17 points; give 18 or 25"),
        ("hand_left_keypoints_2d", [1.0] * 60, "20 points; give 21"),
        ("face_keypoints_2d", [1.0] * 207, "69 points; give 68 or 70"),
        ("foot_keypoints_2d", [1.0] * 3, "1 points; give 6"),
        ("face_keypoints_2d", ["a", "b", "c"], "not a list of numbers"),
        ("face_keypoints_2d", {"x": 1}, "not a list of numbers"),
    ],
)
def test_lists_of_the_wrong_length_are_named(key, values, words):
    bad = frame()
    bad["people"][0][key] = values
    with pytest.raises(InputError, match=f"Frame 1: {key}.*{words}"):
        MotionTrack.from_pose_keypoints([frame(), bad])


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "no frame"),
        ("people", "are str"),
        ([1], "Frame 0 is int"),
        ([{"canvas_width": 8, "canvas_height": 8, "people": []}] * 3, "no person in any of 3 frames"),
        ([frame(np.zeros((18, 3)))] * 2, "no point in any of 2 frames"),
        ([{"people": [{}]}], "canvas_width and canvas_height"),
        ([{**frame(), "canvas_width": 0}], "the canvas is 0 × 768"),
        ([{**frame(), "canvas_width": "wide"}], "the canvas is 'wide' × 768"),
        ([{**frame(), "people": 3}], "people is not a list"),
    ],
)
def test_what_is_no_motion_is_refused(frames, words):
    with pytest.raises(InputError, match=words):
        MotionTrack.from_pose_keypoints(frames)


# Fractions instead of pixels


def test_fractions_are_recognised():
    fractions = standing(1, 1)
    walking_out = np.add(fractions, [0.4, 0, 0])
    for bodies in ([fractions], [fractions, walking_out]):
        track = MotionTrack.from_pose_keypoints([frame(body) for body in bodies])
        np.testing.assert_allclose(track.body[:, :18], np.stack(bodies)[..., :2])


def test_pixels_are_not_taken_for_fractions():
    near_corner = standing(2, 2)  # a person of two pixels, on a canvas that small
    track = MotionTrack.from_pose_keypoints([frame(near_corner, width=8, height=8)])
    np.testing.assert_allclose(track.body[0, :18] * 8, near_corner[:, :2])
    one_joint = np.zeros((18, 3))
    one_joint[3] = 1, 1, 1
    track = MotionTrack.from_pose_keypoints([frame(one_joint)])
    np.testing.assert_allclose(track.body[0, 3] * [512, 768], [1, 1])
    track = MotionTrack.from_pose_keypoints([frame(standing(1, 1)), frame()])  # all frames have one unit
    np.testing.assert_allclose(track.body[0, :18] * [512, 768], standing(1, 1)[:, :2])


# Hands go to their wrist

LEFT, RIGHT = standing()[7, :2], standing()[4, :2]  # the wrists


@pytest.mark.parametrize("names", [("left", "right"), ("right", "left")])
def test_hands_go_to_the_wrist_they_lie_on(names):
    on_left, on_right = (f"hand_{name}_keypoints_2d" for name in names)
    both = frame(**{on_left: hand_at(LEFT), on_right: hand_at(RIGHT)})
    track = MotionTrack.from_pose_keypoints([both] * 2)
    np.testing.assert_allclose(track.hands[:, 0, 0], track.body[:, 7])
    np.testing.assert_allclose(track.hands[:, 1, 0], track.body[:, 4])

    track = MotionTrack.from_pose_keypoints([frame(**{on_right: hand_at(RIGHT)})])
    np.testing.assert_allclose(track.hands[0, 1, 0], track.body[0, 4])
    assert np.isnan(track.hands[0, 0]).all()


def test_a_single_hand_finds_its_wrist_when_the_other_is_absent():
    body = standing()
    body[7] = 0  # no left wrist
    track = MotionTrack.from_pose_keypoints([frame(body, hand_left_keypoints_2d=hand_at(RIGHT))])
    np.testing.assert_allclose(track.hands[0, 1, 0], track.body[0, 4])
    track = MotionTrack.from_pose_keypoints([frame(body, hand_left_keypoints_2d=hand_at(LEFT))])
    assert np.isfinite(track.hands[0, 0]).all()


def test_hands_do_not_flip_where_wrists_meet():
    apart = frame(hand_left_keypoints_2d=hand_at(RIGHT), hand_right_keypoints_2d=hand_at(LEFT))  # names exchanged
    body = standing()
    body[4, :2], body[7, :2] = (250, 400), (256, 400)
    # the roots are noisy, so that the hand called left looks nearer to the left wrist by a few pixels
    close = frame(body, hand_left_keypoints_2d=hand_at((255, 400)), hand_right_keypoints_2d=hand_at((251, 400)))
    track = MotionTrack.from_pose_keypoints([apart, close, apart])
    assert (track.hands[:, 1, 0, 0] * 512).tolist() == pytest.approx([RIGHT[0], 255, RIGHT[0]])


def test_hands_keep_their_names_without_a_body():
    none = np.zeros((18, 3))
    track = MotionTrack.from_pose_keypoints([frame(none, hand_left_keypoints_2d=hand_at((400, 300)))])
    np.testing.assert_allclose(track.hands[0, 0, 0] * [512, 768], [400, 300])
    assert track.present.tolist() == [False]


# The exact form of each pack's frames

FACE = np.column_stack([np.linspace(240, 280, 68), np.linspace(50, 90, 68)])
FOOT = np.array([[300, 720], [310, 722], [270, 700], [220, 720], [210, 722], [240, 700]])  # left toes, heel; right


def fingers(wrist):
    return wrist + np.column_stack([np.linspace(0, 12, 21), np.linspace(0, 30, 21)])


def flat(points, scores):
    return np.column_stack([points, np.broadcast_to(scores, len(points))]).ravel().tolist()


def sdpose_frame(body_scores):
    """As SDPoseKeypointExtractor writes it: all lists whole, real scores, points not found at -1, hands exchanged."""
    body = standing()[:, :2]
    lost = np.less(body_scores, 0.3)
    body[lost & (np.arange(18) != 1)] = -1
    person = {
        "pose_keypoints_2d": flat(body, body_scores),
        "foot_keypoints_2d": flat(FOOT, [0.91, 0.72, 0.4, 0.88, 0.97, 0.0]),
        "face_keypoints_2d": flat(np.vstack([FACE, body[[14, 15]]]), [*np.linspace(0.31, 1.02, 68), 0.9, 0.8]),
        "hand_right_keypoints_2d": flat(fingers(LEFT), np.linspace(0.9, 0.1, 21)),
        "hand_left_keypoints_2d": flat(fingers(RIGHT), 0.62),
    }
    return {"canvas_width": 512, "canvas_height": 768, "people": [person]}


def test_frames_of_comfyuis_sdpose_nodes():
    scores = np.array(
        [0.95, 0.83, 0.83, 0.9, 0.7, 0.86, 0.9, 0.75, 0.8, 0.6, 0.5, 0.8, 0.6, 0.02, 0.9, 0.8, -0.01, 0.66]
    )
    nobody = {"canvas_width": 512, "canvas_height": 768, "people": []}
    track = MotionTrack.from_pose_keypoints([nobody, sdpose_frame(scores), sdpose_frame(scores)])
    assert track.present.tolist() == [False, True, True]
    seen = scores >= 0.3
    np.testing.assert_allclose(track.body[1, :18][seen] * [512, 768], standing()[seen, :2])
    assert np.isnan(track.body[1, [13, 16]]).all()
    np.testing.assert_array_equal(track.body_scores[1, :18], np.where(seen, scores, 0))
    np.testing.assert_allclose(track.body[1, 18:] * [512, 768], [[305, 721], [215, 721]])
    assert track.body_scores[1, 18:].tolist() == [0.72, 0.88]
    np.testing.assert_allclose(track.face[1] * [512, 768], FACE)
    found = np.linspace(0.9, 0.1, 21) >= 0.3
    np.testing.assert_allclose(track.hands[1, 0, found] * [512, 768], fingers(LEFT)[found])
    assert np.isnan(track.hands[1, 0, ~found]).all()
    np.testing.assert_allclose(track.hands[1, 1] * [512, 768], fingers(RIGHT))
    assert (track.hands_scores[1, 1] == 0.62).all()


def controlnet_aux_frame(absent=(), left=True, right=True, face=True):
    """As DWPreprocessor writes it: scores 0 or 1, whole parts None, no feet, the eyes at the face's end."""
    body = standing()
    body[list(absent)] = 0
    person = {
        "pose_keypoints_2d": body.ravel().tolist(),
        "face_keypoints_2d": flat(FACE, 1.0) + body[14].tolist() + body[15].tolist() if face else None,
        "hand_left_keypoints_2d": flat(fingers(LEFT), 1.0) if left else None,
        "hand_right_keypoints_2d": flat(fingers(RIGHT), 1.0) if right else None,
    }
    return {"people": [person], "canvas_height": 768, "canvas_width": 512}


def test_frames_of_controlnet_aux():
    frames = [
        controlnet_aux_frame(),
        controlnet_aux_frame(absent=(10, 15), left=False, face=False),
        controlnet_aux_frame(absent=range(18)),
        {"people": [], "canvas_height": 768, "canvas_width": 512},
    ]
    track = MotionTrack.from_pose_keypoints(frames)
    assert track.present.tolist() == [True, True, False, False]
    np.testing.assert_allclose(track.body[0, :18] * [512, 768], standing()[:, :2])
    assert np.isnan(track.body[:, 18:]).all()
    assert np.isnan(track.body[1, :18]).all(-1).nonzero()[0].tolist() == [10, 15]
    np.testing.assert_allclose(track.hands[0, 0] * [512, 768], fingers(LEFT))
    np.testing.assert_allclose(track.hands[:3, 1] * [512, 768], [fingers(RIGHT)] * 3)
    assert np.isnan(track.hands[1, 0]).all()
    np.testing.assert_allclose(track.face[[0, 2]] * [512, 768], [FACE] * 2)
    assert np.isnan(track.face[[1, 3]]).all()
    assert set(np.unique(track.body_scores)) == {0.0, 1.0}


def test_animals_are_no_people():
    """AnimalPosePreprocessor passes its own form under the same type."""
    frame = {"version": "ap10k", "animals": [[[1.0, 2.0, 1.0]] * 17], "canvas_height": 768, "canvas_width": 512}
    with pytest.raises(InputError, match="no person in any of 1 frames"):
        MotionTrack.from_pose_keypoints([frame])


def test_points_off_the_canvas_are_kept():
    body = standing()
    body[4, :2], body[13, :2], body[7, :2] = (-40, -1e-3), (512, 900), (1e5, 30)
    track = MotionTrack.from_pose_keypoints([frame(body)])
    np.testing.assert_allclose(track.body[0, :18] * [512, 768], body[:, :2])
