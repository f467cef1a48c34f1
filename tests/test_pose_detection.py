"""People and their keypoints in pictures, compared with the golden data."""

import numpy as np
import pytest
from pose_networks import DETECTOR, KEYPOINTS, STUBS, save, stub

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack
from unianimate_core.pose.detection import NobodyFound, PoseDetector, people_to_frame

GOLDEN = np.load(STUBS / "dwpose.npz")
PICTURES = [GOLDEN["0.image_rgb"], GOLDEN["1.image_rgb"]]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def detector():
    return PoseDetector(DETECTOR, KEYPOINTS)


@pytest.fixture(scope="module")
def nobody(tmp_path_factory):
    """A detector that finds no one, and the usual keypoint network."""
    return PoseDetector(save(stub(DETECTOR, shift=-20), tmp_path_factory.mktemp("nobody") / "detector.onnx"), KEYPOINTS)


def is_golden(people, number):
    boxes, keypoints, scores = people
    assert people.found
    np.testing.assert_allclose(boxes, GOLDEN[f"{number}.boxes"], rtol=0, atol=0.01)
    np.testing.assert_allclose(scores, GOLDEN[f"{number}.scores"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(keypoints, GOLDEN[f"{number}.keypoints"], rtol=0, atol=0.01)


@pytest.mark.parametrize("number", [0, 1])
def test_people_equal_the_golden_data(detector, number):
    is_golden(detector.detect(PICTURES[number]), number)


@pytest.mark.parametrize("batch", [None, 5])
def test_another_batch_axis_changes_nothing(tmp_path, batch):
    files = [save(stub(path, batch), tmp_path / path.name) for path in (DETECTOR, KEYPOINTS)]
    for number, people in enumerate(PoseDetector(*files).detect_frames(PICTURES)):
        is_golden(people, number)


def test_half_precision_networks_take_half_precision(tmp_path):
    """The same people: boxes and points differ by the rounding, which moves the best place of a few points far away."""
    from onnx import TensorProto, helper

    model = stub(KEYPOINTS)
    source = model.graph.input[0].name
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    model.graph.node.insert(0, helper.make_node("Cast", [source], ["single"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "single"
    people = PoseDetector(DETECTOR, save(model, tmp_path / "half.onnx")).detect(PICTURES[1])
    np.testing.assert_allclose(people.scores, GOLDEN["1.scores"], rtol=0, atol=0.02)
    far = np.abs(people.keypoints - GOLDEN["1.keypoints"]).max(-1) > 5
    assert far.mean() < 0.02


def test_a_picture_that_is_turned_in_memory_only_is_the_same(detector):
    turned = np.rot90(np.rot90(PICTURES[0], 1).copy(), -1)
    assert not turned.flags.c_contiguous
    is_golden(detector.detect(turned), 0)


def test_nobody_is_the_whole_picture(nobody):
    people = nobody.detect(PICTURES[1])
    assert isinstance(people, NobodyFound)
    assert not people.found
    np.testing.assert_array_equal(people.boxes, [[0, 0, 500, 900]])
    # 900 × 1.25 high; three quarters of that are wider than 500 × 1.25
    seen = people.keypoints[0][people.scores[0] > 0]
    assert (np.abs(seen - (250, 450)) <= (843.75 / 2, 1125 / 2)).all()
    assert np.ptp(seen[:, 1]) > 300


@pytest.mark.parametrize("shape", [(1, 1), (1, 3000), (3000, 1), (7, 5), (641, 639)])
def test_any_size_of_picture_will_do(detector, nobody, shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for each in (detector, nobody):
        people = each.detect(picture)
        n = len(people.boxes)
        assert n >= 1
        assert (people.boxes.shape, people.keypoints.shape, people.scores.shape) == ((n, 4), (n, 134, 2), (n, 134))
        assert all(np.isfinite(part).all() for part in people)
    np.testing.assert_array_equal(people.boxes, [[0, 0, shape[1], shape[0]]])


def test_boxes_without_end_or_size_do_no_harm(tmp_path):
    """Logits of size of ±1000: e to that is infinite, or 0."""
    from onnx import numpy_helper

    for logit in (1000, -1000, 80):
        model = stub(DETECTOR, shift=-1)
        for constant in model.graph.initializer:
            if constant.name in ("b8", "b16", "b32"):
                bias = numpy_helper.to_array(constant).copy()
                bias[2:4] = logit
                constant.CopyFrom(numpy_helper.from_array(bias, constant.name))
        people = PoseDetector(save(model, tmp_path / "sizes.onnx"), KEYPOINTS).detect(PICTURES[0])
        assert people.found == (logit != 1000)
        assert all(np.isfinite(part).all() for part in people)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (PICTURES[0] / 255, "The picture is float64; give uint8"),
        (PICTURES[0][..., 0], r"The picture has shape \(480, 640\)"),
        (np.zeros((8, 8, 4), np.uint8), "without transparency"),
        (np.zeros((0, 8, 3), np.uint8), "8 × 0 pixels"),
        (np.zeros((40000, 1, 3), np.uint8), "1 to 32766 a side"),
        ([[1, 2, 3]], "The picture is list"),
    ],
)
def test_what_is_no_picture_is_an_input_error(detector, picture, message):
    with pytest.raises(InputError, match=message):
        detector.detect(picture)


def test_frames_of_the_wire_are_read_to_the_body_of_twenty(detector):
    people = detector.detect(PICTURES[0])
    frame = people_to_frame(people, 640, 480)
    assert (frame["canvas_width"], frame["canvas_height"], len(frame["people"])) == (640, 480, 20)
    points, scores = GOLDEN["0.keypoints"], GOLDEN["0.scores"]
    for person in range(20):
        track = MotionTrack.from_pose_keypoints([frame], person)
        expected = np.full((20, 2), np.nan)
        sure = scores[person] >= 0.3
        expected[:18][sure[:18]] = points[person, :18][sure[:18]]
        for joint, toes in ((18, [18, 19]), (19, [21, 22])):
            if sure[toes].all():
                expected[joint] = points[person, toes].mean(0)
        np.testing.assert_allclose(track.body[0] * (640, 480), expected, rtol=0, atol=0.01)
        np.testing.assert_allclose(track.body_scores[0][:18], np.where(sure, scores[person], 0)[:18], rtol=0, atol=1e-4)
        face = np.where(sure[24:92, None], points[person, 24:92], np.nan)
        np.testing.assert_allclose(track.face[0] * (640, 480), face, rtol=0, atol=0.01)
        hands = np.where(sure[92:, None], points[person, 92:], np.nan).reshape(2, 21, 2)
        found = track.hands[0] * (640, 480)
        found = found if np.allclose(found, hands, rtol=0, atol=0.01, equal_nan=True) else found[::-1]
        np.testing.assert_allclose(found, hands, rtol=0, atol=0.01)


def test_frames_of_the_wire_hold_all_scores_but_no_place_for_points_without_one(detector):
    people = detector.detect(PICTURES[0])
    frame = people_to_frame(people, 640, 480)
    names = ("pose_keypoints_2d", "foot_keypoints_2d", "face_keypoints_2d", "hand_left_keypoints_2d")
    lists = [[*(someone[name] for name in names), someone["hand_right_keypoints_2d"]] for someone in frame["people"]]
    assert [len(values) // 3 for values in lists[0]] == [18, 6, 70, 21, 21]
    table = np.array([np.concatenate([*v[:2], v[2][: 3 * 68], *v[3:]]).reshape(134, 3) for v in lists])
    placed = people.scores > 0
    assert (~placed).any()
    np.testing.assert_array_equal(table[..., 2][placed], people.scores[placed])
    np.testing.assert_array_equal(table[..., :2][placed], people.keypoints[placed])
    assert not table[~placed].any()


def test_a_frame_that_shows_nobody_has_no_people(nobody):
    people = nobody.detect(PICTURES[0])
    assert len(people_to_frame(people, 640, 480)["people"]) == 1  # the stub is sure of some points, whatever it sees
    doubtful = NobodyFound(people.boxes, people.keypoints, people.scores.clip(0, 0.29))
    assert people_to_frame(doubtful, 640, 480)["people"] == []
