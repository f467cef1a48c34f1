"""Part measures on drawn rectangles, where every number is known beforehand."""

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from unianimate_core.errors import InputError
from unianimate_core.evaluation.parts import LEAST_PIXELS, PartMeter, Parts, read_parts

NAMES = ("background", "face", "torso", "left_forearm", "right_thigh")
WALL, SKIN, SHIRT, SLEEVE, TROUSERS = (90, 90, 90), (230, 180, 150), (200, 30, 30), (30, 30, 200), (20, 160, 40)
HEIGHT, WIDTH = 64, 80
BOXES = {1: (4, 14, 30, 40), 2: (16, 36, 25, 45), 3: (18, 24, 50, 70), 4: (40, 60, 30, 40)}  # top bottom left right


def draw(colours, moves=None, frames=2):
    """A video and its labels; ``moves`` shifts a part to the right, ``colours`` are of the background and the parts."""
    labels = np.zeros((frames, HEIGHT, WIDTH), np.uint8)
    for part, (top, bottom, left, right) in BOXES.items():
        shift = (moves or {}).get(part, 0)
        labels[:, top:bottom, left + shift : right + shift] = part
    return np.array(colours, np.uint8)[labels], labels


def meter(colours, names=NAMES):
    video, labels = draw(colours)
    background = np.broadcast_to(np.array(colours[0], np.uint8), (HEIGHT, WIDTH, 3))
    return PartMeter(Parts(labels, names, background), video), video


DISTINCT = (WALL, SKIN, SHIRT, SLEEVE, TROUSERS)


def test_the_truth_of_distinct_colours_is_perfect():
    ours, video = meter(DISTINCT)
    found = ours.measure(video)
    assert {name: values.tolist() for name, values in found.items()} == {
        "limb_iou": [1, 1],
        "person_iou": [1, 1],
        "identity": [0, 0],
    }
    assert ours.group_names() == [["face"], ["torso"], ["left_forearm"], ["right_thigh"]]


def test_limbs_that_moved_are_missed_by_a_known_share():
    ours, _ = meter(DISTINCT)
    found = ours.measure(draw(DISTINCT, {3: 5, 4: 4})[0])
    # Boxes 20 and 10 wide, moved by 5 and 4: 15 of 25 columns, 6 of 14.
    assert found["limb_iou"] == pytest.approx([(15 / 25 + 6 / 14) / 2] * 2)
    person, lost = 100 + 400 + 120 + 200, 5 * 6 + 4 * 20
    assert found["person_iou"] == pytest.approx([(person - lost) / (person + lost)] * 2)


def test_limbs_that_are_not_there_have_no_iou_above_zero():
    ours, video = meter(DISTINCT)
    found = ours.measure(np.broadcast_to(np.array(WALL, np.uint8), video.shape))
    assert found["limb_iou"].tolist() == found["person_iou"].tolist() == [0, 0]
    wall, *parts = rgb2lab(np.array(DISTINCT) / 255)
    expected = np.mean([deltaE_ciede2000(wall, colour) for colour in parts])  # one by one: it does not broadcast
    assert found["identity"] == pytest.approx([expected] * 2, rel=1e-4)


def test_a_limb_like_another_part_is_measured_where_they_can_be_told_apart():
    """The arm is bare: its colour is the face's. The face is left out, neither a hit nor a miss."""
    bare = (WALL, SKIN, SHIRT, SKIN, TROUSERS)
    ours, video = meter(bare)
    assert ours.group_names() == [["torso"], ["face", "left_forearm"], ["right_thigh"]]
    assert ours.measure(video)["limb_iou"].tolist() == [1, 1]
    assert ours.measure(draw(bare, {3: 5})[0])["limb_iou"] == pytest.approx([(15 / 25 + 1) / 2] * 2)
    # A face that moved onto the wall is skin where there is none: 5 of its columns count against the arm.
    assert ours.measure(draw(bare, {1: 5})[0])["limb_iou"] == pytest.approx([(120 / (120 + 5 * 10) + 1) / 2] * 2)


def test_two_limbs_of_one_colour_count_as_one():
    same = (WALL, SKIN, SHIRT, SLEEVE, SLEEVE)
    ours, _ = meter(same)
    found = ours.measure(draw(same, {3: 5})[0])
    assert found["limb_iou"] == pytest.approx([(320 - 30) / (320 + 30)] * 2)


def test_identity_is_the_colour_difference_of_each_part():
    ours, _ = meter(DISTINCT)
    faded = (WALL, SKIN, (150, 60, 60), SLEEVE, TROUSERS)
    a, b = rgb2lab(np.array([DISTINCT[2], faded[2]]) / 255)
    assert ours.measure(draw(faded)[0])["identity"] == pytest.approx([float(deltaE_ciede2000(a, b)) / 4] * 2, rel=1e-4)


def test_a_rim_of_one_pixel_does_not_count_for_identity():
    ours, video = meter(DISTINCT)
    rim = video.copy()
    for top, bottom, left, right in BOXES.values():
        rim[:, top:bottom, [left, right - 1]] = rim[:, [top, bottom - 1], left:right] = 255
    assert not ours.measure(rim)["identity"].any()


def test_small_parts_are_not_measured():
    video, labels = draw(DISTINCT)
    labels[:, 18:24, 50:70] = 0
    labels[:, 18:21, 50:55] = 3
    assert (labels[0] == 3).sum() < LEAST_PIXELS
    ours = PartMeter(Parts(labels, NAMES, np.full((HEIGHT, WIDTH, 3), 90, np.uint8)), video)
    moved = draw(DISTINCT, {4: 4})[0]
    assert ours.measure(moved)["limb_iou"] == pytest.approx([6 / 14] * 2)


def test_without_limbs_there_is_no_number():
    ours, video = meter(DISTINCT, ("background", "face", "torso", "hat", "shoe"))
    assert np.isnan(ours.measure(video)["limb_iou"]).all()


def test_labels_are_cropped_and_resized_with_the_pictures():
    video, labels = draw(DISTINCT)
    fitted = Parts(labels, NAMES, video[0]).fit(24, 32)
    assert (fitted.labels.shape, fitted.background.shape) == ((2, 32, 24), (32, 24, 3))
    # 48 of 80 columns remain, from 16 on; every second pixel of them.
    assert np.array_equal(fitted.labels, labels[:, 1::2, 17:64:2])
    assert np.array_equal(Parts(labels, NAMES, video[0]).fit(WIDTH, HEIGHT).labels, labels)
    assert np.array_equal(Parts(labels, NAMES, video[0]).fit(WIDTH, HEIGHT).background, video[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "labels"),
        ({"labels": np.zeros((2, 4, 4), np.int64)}, "labels must be uint8"),
        ({"names": np.array(["background"])}, "list of 3 or more strings"),
        ({"names": np.array(["background", "face", None], dtype=object)}, "cannot be read"),
        ({"background": np.zeros((4, 5, 3), np.uint8)}, r"background must be uint8 \(4, 4, 3\)"),
    ],
)
def test_files_that_are_no_parts(tmp_path, change, message):
    arrays = {
        "labels": np.full((2, 4, 4), 2, np.uint8),
        "names": np.array(["background", "face", "arm"]),
        "background": np.zeros((4, 4, 3), np.uint8),
    }
    arrays = {name: value for name, value in (arrays | change).items() if value is not None}
    np.savez(tmp_path / "parts.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read_parts(tmp_path / "parts.npz")


def test_damaged_files_and_empty_labels(tmp_path):
    np.savez(tmp_path / "parts.npz", labels=np.zeros((1, 2, 2), np.uint8))
    content = (tmp_path / "parts.npz").read_bytes()
    for damaged in (b"", b"nonsense", content[:40]):
        (tmp_path / "parts.npz").write_bytes(damaged)
        with pytest.raises(InputError, match=r"parts\.npz cannot be read"):
            read_parts(tmp_path / "parts.npz")
    nobody = Parts(np.zeros((1, 2, 2), np.uint8), NAMES, np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="show nobody"):
        PartMeter(nobody, np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(InputError, match="labels are"):
        PartMeter(nobody, np.zeros((3, 2, 2, 3), np.uint8))
