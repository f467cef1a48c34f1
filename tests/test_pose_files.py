"""Motions on disk."""

import json
from pathlib import Path

import numpy as np
import pytest

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, read_motion, read_pose_frames, write_motion, write_pose_frames
from unianimate_core.pose.export import write_csv

ROOT = Path(__file__).parent.parent
GOLDEN = np.load(ROOT / "tests" / "golden_data" / "pose_alignment.npz")
DANCE = ROOT / "samples" / "dance.json"


def golden_track():
    arrays = {part: GOLDEN[f"driving.{part}"] for part in ("body", "hands", "face")}
    return MotionTrack(**arrays, width=512, height=768)


def openpose_frame(x):
    """One frame in OpenPose's own format: BODY_25, no canvas, empty lists for what was not asked for."""
    body = [value for n in range(25) for value in (x, 10.0 + n, 0.9)]
    person = {"person_id": [-1], "pose_keypoints_2d": body, "face_keypoints_2d": [], "hand_left_keypoints_2d": []}
    return {"version": 1.3, "people": [person]}


def test_the_example_is_a_whole_dance():
    track = read_motion(DANCE)
    assert (len(track), track.width, track.height) == (280, 512, 768)
    assert track.present.all()
    assert np.isfinite(track.body).all()
    assert ((track.body > -0.1) & (track.body < 1.1)).all()
    first = json.loads(DANCE.read_text())[0]["people"][0]["pose_keypoints_2d"][:2]
    np.testing.assert_allclose(track.body[0, 0] * [512, 768], first)


def test_a_single_frame_is_read(tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps(json.loads(DANCE.read_text())[7]))
    np.testing.assert_array_equal(read_motion(path).body, read_motion(DANCE)[7].body)


def test_a_folder_is_read_in_the_order_of_numbers(tmp_path):
    for number in (10, 2, 1, 100):
        (tmp_path / f"frame_{number}_keypoints.json").write_text(json.dumps(openpose_frame(float(number))))
    (tmp_path / "notes.txt").write_text("not a frame")
    (tmp_path / "._frame_1_keypoints.json").write_bytes(b"\x00\x05\x16\x07")  # as macOS leaves beside files
    track = read_motion(tmp_path, canvas=(200, 100))
    np.testing.assert_allclose(track.body[:, 0, 0] * 200, [1, 2, 10, 100])
    assert (track.width, track.height) == (200, 100)


def test_a_canvas_must_be_known(tmp_path):
    path = tmp_path / "frame.json"
    path.write_text(json.dumps(openpose_frame(5.0)))
    with pytest.raises(
        InputError, match=r"frame\.json does not say how large its canvas is; give its width and height"
    ):
        read_pose_frames(path)
    with pytest.raises(InputError, match="canvas is 512"):
        read_pose_frames(path, canvas=512)
    path.write_text(json.dumps({**openpose_frame(5.0), "canvas_width": 64, "canvas_height": 48}))
    assert read_pose_frames(path, canvas=(9, 9))[0]["canvas_width"] == 64, "a file's own canvas comes first"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        (" \n", "is empty"),
        ('[\n {"people": [}]', "is not JSON: .* at line 2, column 14"),
        ("[]", "holds an empty list"),
        ("[1, 2]", "holds a list with 1 in it, not pose keypoints"),
        ("[[]]", "holds a list with a list in it"),
        ('[{"people": []}, null]', "holds a list with null in it"),
        ("null", "holds null"),
        ('"hello"', 'holds "hello"'),
        ('{"nodes": [], "links": []}', "holds an object with the keys nodes, links, not pose keypoints"),
        ("{}", "an object with no keys"),
    ],
)
def test_what_is_no_motion_is_described(tmp_path, content, words):
    path = tmp_path / "motion.json"
    path.write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        read_pose_frames(path)
    assert str(path) in str(caught.value)


def test_bytes_that_are_not_text_are_refused(tmp_path):
    path = tmp_path / "motion.json"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not text"):
        read_pose_frames(path)


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "motion.json"
    path.write_text(DANCE.read_text(), encoding="utf-8-sig")
    assert len(read_motion(path)) == 280


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.json does not exist"):
        read_motion(tmp_path / "nothing.json")
    with pytest.raises(InputError, match=r"holds no \.json file"):
        read_motion(tmp_path)


def test_errors_in_frames_name_the_file():
    with pytest.raises(InputError, match=r"dance\.json: There is no person 3: the motion shows 1; give 0 to 0"):
        read_motion(DANCE, person=3)


@pytest.mark.parametrize("name", ["motion.json", "new/motion.json", "motion"])
def test_what_is_written_is_read_back(tmp_path, name):
    track = golden_track()
    write_motion(track, tmp_path / name)
    back = read_motion(tmp_path / name)
    for part in ("body", "hands", "face"):
        np.testing.assert_allclose(getattr(back, part), getattr(track, part), rtol=0, atol=1e-12)
    if name == "motion":
        assert len(list((tmp_path / name).iterdir())) == 12


@pytest.mark.parametrize("name", ["motion.json", "motion"])
def test_nothing_is_overwritten_unasked(tmp_path, name):
    path = tmp_path / name
    write_motion(golden_track()[:5], path)
    with pytest.raises(InputError, match="exists already"):
        write_motion(golden_track(), path)
    assert len(read_motion(path)) == 5
    write_motion(golden_track()[:3], path, overwrite=True)
    assert len(read_motion(path)) == 3
    assert [entry.name for entry in tmp_path.iterdir()] == [name], "something was left behind"


def test_a_folder_of_other_things_is_never_replaced(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match=r"holds more than a motion \(holiday.jpg\)"):
        write_motion(golden_track(), tmp_path, overwrite=True)
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match="is a folder, where the motion would be a file"):
        write_motion(golden_track(), tmp_path / "folder.json", overwrite=True)
    with pytest.raises(InputError, match="is a file, where the motion would be a folder"):
        write_motion(golden_track(), tmp_path / "holiday.jpg", overwrite=True)


@pytest.mark.parametrize("name", ["motion.json", "motion"])
def test_a_failed_write_leaves_the_old_motion(tmp_path, monkeypatch, name):
    path = tmp_path / name
    write_motion(golden_track()[:5], path)
    real = Path.replace

    def failing(source, target):
        if source.suffix == ".partial":
            raise OSError(28, "disk full")
        return real(source, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(InputError, match=f"cannot write .*{name} .disk full.: free some space"):
        write_motion(golden_track(), path, overwrite=True)
    assert len(read_motion(path)) == 5
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def strict_json(path):
    """What the standard allows: no NaN, no infinity."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def test_numpys_numbers_and_points_that_are_not_finite_are_written_as_json_has_them(tmp_path):
    points = np.arange(54, dtype=np.float32)
    points[[3, 10]] = np.nan, np.inf
    person = {"pose_keypoints_2d": points, "hand_left_keypoints_2d": [np.float64("nan")] * 63, "id": np.int64(7)}
    listed = {"pose_keypoints_2d": list(points), "face_keypoints_2d": None, "hand_right_keypoints_2d": ()}
    frame = {"canvas_width": np.int32(64), "canvas_height": np.float32(48), "people": [person, listed]}
    write_pose_frames([frame] * 2, tmp_path / "motion.json")
    write_pose_frames([frame] * 2, tmp_path / "motion")
    (content, _) = strict_json(tmp_path / "motion.json")
    assert strict_json(tmp_path / "motion" / "frame_000001.json") == content
    expected = [float(n) for n in range(54)]
    expected[3:6] = expected[9:12] = [0.0, 0.0, 0.0]
    assert content == {
        "canvas_width": 64,
        "canvas_height": 48,
        "people": [
            {"pose_keypoints_2d": expected, "hand_left_keypoints_2d": [0.0] * 63, "id": 7},
            {"pose_keypoints_2d": expected, "face_keypoints_2d": None, "hand_right_keypoints_2d": []},
        ],
    }


@pytest.mark.parametrize("wrong", [{"canvas_width": float("nan")}, {"people": [object()]}, {("a", 1): 2}])
def test_what_json_cannot_hold_is_named_and_nothing_written(tmp_path, wrong):
    with pytest.raises(InputError, match="Frame 1 cannot be written as JSON"):
        write_pose_frames([{"people": []}, wrong], tmp_path / "motion.json")
    assert not list(tmp_path.iterdir())


def test_a_table_is_a_motion_too(tmp_path):
    write_csv(golden_track(), tmp_path / "motion.CSV")
    back = read_motion(tmp_path / "motion.CSV")
    for part in ("body", "hands", "face"):
        np.testing.assert_allclose(getattr(back, part), getattr(golden_track(), part), rtol=0, atol=1e-9)
    assert read_pose_frames(tmp_path / "motion.CSV")[0]["canvas_width"] == 512
    (tmp_path / "other.csv").write_text("a,b")
    with pytest.raises(InputError, match=r"other\.csv has no column frame"):
        read_motion(tmp_path / "other.csv")


def test_a_person_is_the_same_through_all_frames_whatever_the_order_of_the_lists(tmp_path):
    """The larger one stands first in half of the frames only; person 0 is that one in all of them."""
    large, small = golden_track(), golden_track()
    bodies = [large.body * 0.6 + (0.4, 0.2), small.body * 0.3 + (0.0, 0.3)]
    tracks = [MotionTrack(body, width=512, height=768) for body in bodies]
    frames = []
    for number, (a, b) in enumerate(zip(*(track.to_pose_keypoints() for track in tracks), strict=True)):
        people = a["people"] + b["people"]
        frames.append({**a, "people": people[:: (-1) ** number]})
    write_pose_frames(frames, tmp_path / "two.json")
    for person, body in enumerate(bodies):
        np.testing.assert_allclose(read_motion(tmp_path / "two.json", person).body, body, atol=1e-9)
    with pytest.raises(InputError, match=r"two\.json: There is no person 2: the motion shows 2; give 0 to 1"):
        read_motion(tmp_path / "two.json", person=2)


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "9" * 5001 + "]"])
def test_json_of_no_reasonable_kind_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        read_pose_frames(tmp_path / "a.json")
