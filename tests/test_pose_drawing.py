"""Pose pictures against the golden ones, and at the edges."""

import colorsys
import logging
import math
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, draw_frames, draw_motion
from unianimate_core.pose.drawing import HAND_EDGE_COLOURS, HAND_EDGES, JOINT_COLOURS, LIMBS

ROOT = Path(__file__).parent.parent
GOLDEN = np.load(ROOT / "tests" / "golden_data" / "pose_alignment.npz")
ALIGNED = MotionTrack(GOLDEN["aligned.body"], GOLDEN["aligned.hands"], width=512, height=768)
REFERENCE = MotionTrack(GOLDEN["reference.body"][None], GOLDEN["reference.hands"][None], width=512, height=768)


FACE = np.concatenate([GOLDEN["aligned.face"][:3], np.full((1, 68, 2), np.nan)])


def with_joints(**joints):
    """A track of one frame with the given body joints (j3=(x, y)) and no others."""
    body = np.full((1, 20, 2), np.nan)
    for name, point in joints.items():
        body[0, int(name[1:])] = point
    return MotionTrack(body, width=512, height=512)


def coloured(picture):
    return picture.any(-1)


@pytest.mark.parametrize(("track", "golden"), [(ALIGNED[:3], "image.aligned"), (REFERENCE, "image.reference")])
def test_pictures_equal_the_golden_ones(track, golden):
    pictures = draw_motion(track, 512, 768)
    assert pictures.dtype == np.uint8
    np.testing.assert_array_equal(pictures, GOLDEN[golden].reshape(pictures.shape))


def by_the_public_steps(tracks, frame, width, height):
    """One picture of several people, step by step as the specification tells it for one."""
    size = np.array((width, height))
    bodies = [track.body[frame] * size for track in tracks]
    canvas = np.zeros((height, width, 3), np.uint8)
    for (a, b), colour in zip(LIMBS, JOINT_COLOURS[:19], strict=True):
        for body in bodies:
            (x, y), length = (body[a] + body[b]) / 2, math.dist(body[a], body[b])
            angle = math.degrees(math.atan2(body[a, 1] - body[b, 1], body[a, 0] - body[b, 0]))
            outline = cv2.ellipse2Poly((int(x), int(y)), (int(length / 2), 4), int(angle), 0, 360, 1)
            cv2.fillConvexPoly(canvas, outline, colour)
    canvas = (canvas * 0.6).astype(np.uint8)
    for joint, colour in enumerate(JOINT_COLOURS):
        for body in bodies:
            cv2.circle(canvas, [int(x) for x in body[joint]], 4, colour, -1)
    for side in range(2):
        for track in tracks:
            hand = (track.hands[frame, side] * size).astype(int).tolist()
            for (a, b), colour in zip(HAND_EDGES, HAND_EDGE_COLOURS, strict=True):
                cv2.line(canvas, hand[a], hand[b], colour, 2)
            for point in hand:
                cv2.circle(canvas, point, 4, (255, 0, 0), -1)
    return canvas


def test_several_people_are_drawn_step_by_step_together():
    shift = np.array((0.06, 0.02))
    other = MotionTrack(ALIGNED.body[::-1] + shift, ALIGNED.hands[::-1] + shift, width=300, height=300)
    third = MotionTrack(ALIGNED.body * 0.7, ALIGNED.hands * 0.7, width=512, height=768)
    assert np.isfinite(other.body).all()
    for people in ([ALIGNED], [ALIGNED, other], [other, ALIGNED, third]):
        pictures = draw_motion(people, 512, 768)
        for frame in range(0, 12, 4):
            np.testing.assert_array_equal(pictures[frame], by_the_public_steps(people, frame, 512, 768))
        np.testing.assert_array_equal(list(draw_frames(tuple(people), 512, 768)), pictures)
    either = [draw_motion(people, 512, 768, hands=False) for people in ([ALIGNED, other], [other, ALIGNED])]
    np.testing.assert_array_equal(*either)  # no body covers another


def test_a_person_who_is_absent_changes_nothing():
    absent = MotionTrack(np.full((12, 20, 2), np.nan), width=512, height=768)
    np.testing.assert_array_equal(draw_motion([absent, ALIGNED, absent], 512, 768), draw_motion(ALIGNED, 512, 768))


def test_hands_can_be_left_out():
    without = MotionTrack(ALIGNED.body, width=512, height=768)
    np.testing.assert_array_equal(draw_motion(ALIGNED, 512, 768, hands=False), draw_motion(without, 512, 768))


def test_the_face_is_drawn_where_asked_and_warned_of_once(caplog):
    track = MotionTrack(ALIGNED.body[:4], ALIGNED.hands[:4], FACE, width=512, height=768)
    plain = draw_motion(ALIGNED[:4], 512, 768)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(draw_motion(track, 512, 768), plain)
        assert not caplog.records
        pictures = draw_motion([track, track], 512, 768, face=True)
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert len(list(draw_frames(track, 512, 768, face=True))) == 4
        assert len(caplog.records) == 2
    np.testing.assert_array_equal(pictures[3], plain[3])
    for frame in range(3):
        white = np.zeros((768, 512), np.uint8)
        for x, y in FACE[frame] * (512, 768):
            cv2.circle(white, (int(x), int(y)), 3, 1, -1)
        np.testing.assert_array_equal(pictures[frame], np.where(white[..., None], 255, plain[frame]))


@pytest.mark.parametrize(("factor", "radius"), [(0.1, 1), (0.25, 1), (0.5, 2), (1.5, 6), (2, 8), (10, 40)])
def test_line_width_is_a_factor(factor, radius):
    joint = with_joints(j9=(0.5, 0.5))
    assert coloured(draw_motion(joint, 512, 512, line_width=factor)[0]).any(0).sum() == 2 * radius + 1
    limb = with_joints(j9=(0.1, 0.5), j10=(0.9, 0.5))
    assert coloured(draw_motion(limb, 512, 512, line_width=factor)[0])[:, 256].sum() == 2 * radius + 1
    half = coloured(draw_motion(joint, 256, 256, line_width=factor)[0])
    assert half.any(0).sum() == 2 * max(1, math.floor(2 * factor + 0.5)) + 1


def test_red_and_blue_are_exchanged():
    def middle_of_limb(a, b):
        return draw_motion(with_joints(**{a: (0.2, 0.5), b: (0.8, 0.5)}), 512, 512)[0, 256, 256].tolist()

    assert middle_of_limb("j0", "j1") == [153, 0, 0]  # nose to neck: dark red
    assert middle_of_limb("j1", "j2") == [0, 0, 153]  # right shoulder: dark blue
    hands = np.full((1, 2, 21, 2), np.nan)
    hands[0, 0, 5] = 0.5
    track = MotionTrack(np.full((1, 20, 2), np.nan), hands, width=512, height=512)
    assert draw_motion(track, 512, 512)[0, 256, 256].tolist() == [255, 0, 0]


def test_fingers_are_coloured_by_hue():
    for edge in range(20):
        tip = edge + 1
        root = 0 if edge % 4 == 0 else tip - 1
        hands = np.full((1, 2, 21, 2), np.nan)
        hands[0, 1, root], hands[0, 1, tip] = (0.2, 0.5), (0.8, 0.5)
        track = MotionTrack(np.full((1, 20, 2), np.nan), hands, width=512, height=512)
        red_blue_exchanged = draw_motion(track, 512, 512)[0, 256, 256, ::-1].astype(float)
        np.testing.assert_allclose(red_blue_exchanged, np.multiply(colorsys.hsv_to_rgb(edge / 20, 1, 1), 255), atol=0.5)


@pytest.mark.parametrize("size", [(512, 768), (1216, 768), (768, 768), (256, 384), (1024, 1536), (70, 3000)])
def test_widths_grow_with_the_shorter_side(size):
    width, height = size
    radius = max(1, round(4 * min(size) / 512))
    disc = coloured(draw_motion(with_joints(j9=(0.5, 0.5)), width, height)[0])
    rows, columns = disc.any(1).sum(), disc.any(0).sum()
    assert rows == columns == 2 * radius + 1
    assert disc[height // 2, width // 2]
    limb = coloured(draw_motion(with_joints(j9=(0.1, 0.5), j10=(0.9, 0.5)), width, height)[0])
    assert limb[:, width // 2].sum() == 2 * radius + 1


@pytest.mark.parametrize(("side", "rows"), [(128, 1), (512, 3), (1024, 5)])  # OpenCV's lines of 1, 2 and 4 pixels
def test_finger_lines_grow_too(side, rows):
    hands = np.full((1, 2, 21, 2), np.nan)
    hands[0, 0, 9], hands[0, 0, 10] = (0.1, 0.5), (0.9, 0.5)
    track = MotionTrack(np.full((1, 20, 2), np.nan), hands, width=512, height=512)
    assert coloured(draw_motion(track, side, side)[0])[:, side // 2].sum() == rows


def test_a_limb_needs_both_its_joints():
    body = GOLDEN["reference.body"][None].copy()
    whole = draw_motion(MotionTrack(body, width=512, height=768), 512, 768)[0]
    body[0, 3] = np.nan
    without = draw_motion(MotionTrack(body, width=512, height=768), 512, 768)[0]
    changed = (whole != without).any(-1)
    assert changed.any()
    x, y = GOLDEN["reference.body"][[2, 3, 4]].T * [[512], [768]]
    where = np.argwhere(changed)
    assert where[:, 1].min() >= x.min() - 5
    assert where[:, 1].max() <= x.max() + 5
    assert where[:, 0].min() >= y.min() - 5
    assert where[:, 0].max() <= y.max() + 5


def test_an_absent_person_is_black():
    assert not draw_motion(MotionTrack(np.full((2, 20, 2), np.nan), width=8, height=8), 64, 48).any()


def test_a_limb_without_length_is_a_spot():
    spot = coloured(draw_motion(with_joints(j9=(0.5, 0.5), j10=(0.5, 0.5)), 512, 512)[0])
    ys, xs = np.nonzero(spot)
    assert 0 < len(ys) <= 81
    assert abs(ys - 256).max() <= 4
    assert abs(xs - 256).max() <= 4


@pytest.mark.parametrize("far", [1e6, -1e6, 1e300, -1e300])
def test_joints_far_outside_are_drawn_towards(far):
    picture = coloured(draw_motion(with_joints(j9=(0.5, 0.25), j10=(0.5, far)), 64, 64)[0])
    below = picture[40:, 28:36].any()
    above = picture[:8, 28:36].any()
    assert (below, above) == (far > 0, far < 0)


@settings(max_examples=80, deadline=None)
@given(
    arrays(np.float64, (2, 1, 20, 2), elements=st.floats(allow_nan=True, allow_infinity=True)),
    arrays(np.float64, (2, 1, 2, 21, 2), elements=st.floats(-3, 4) | st.just(float("nan"))),
    arrays(np.float64, (2, 1, 68, 2), elements=st.floats(allow_nan=True, allow_infinity=True), fill=st.just(0.5)),
    st.integers(1, 90),
    st.integers(1, 90),
    st.booleans(),
    st.floats(0.1, 10),
)
def test_any_points_can_be_drawn(bodies, hands, faces, width, height, face, line_width):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        people = [MotionTrack(*parts, width=width, height=height) for parts in zip(bodies, hands, faces, strict=True)]
        pictures = draw_motion(people, width, height, face=face, line_width=line_width)
    assert pictures.shape == (1, height, width, 3)
    for track in people:
        inside = track.body[0][((track.body[0] >= 0) & (track.body[0] < 1)).all(-1)]
        for x, y in inside:
            assert pictures[0, int(y * height), int(x * width)].any(), "a joint inside the picture is not drawn"


@pytest.mark.parametrize("size", [(1, 1), (1, 40_000), (40_000, 1), (3, 33_000), (9000, 5000)])
@pytest.mark.parametrize("line_width", [0.1, 1, 10])
def test_very_small_and_very_large_pictures(size, line_width):
    width, height = size
    body = np.full((1, 20, 2), np.nan)
    body[0, [0, 1, 2, 5, 8]] = (0.5, 0.2), (0.5, 0.4), (-1e12, 0.4), (1e12, 1e12), (0.5, 0.9)
    hands = np.full((1, 2, 21, 2), np.nan)
    hands[0, 0, :2] = (0.5, 0.5), (1e9, -1e9)
    track = MotionTrack(body, hands, np.full((1, 68, 2), 0.1), width=64, height=64)
    picture = draw_motion(track, width, height, face=True, line_width=line_width)[0]
    assert picture.shape == (height, width, 3)
    for x, y in ((0.5, 0.2), (0.5, 0.4), (0.5, 0.9), (0.1, 0.1), (0.5, 0.5)):
        assert picture[int(y * height), int(x * width)].any()


@pytest.mark.parametrize("line_width", [0, -1, 0.05, 11, float("nan"), float("inf")])
def test_the_line_width_is_checked_at_once(line_width):
    for draw in (draw_motion, draw_frames):
        with pytest.raises(InputError, match=r"factor from 0\.1 to 10"):
            draw(REFERENCE, 512, 768, line_width=line_width)


@pytest.mark.parametrize(
    ("tracks", "said"),
    [([], "nothing"), ([None], "NoneType"), ([ALIGNED, {}], "dict"), ([ALIGNED, REFERENCE], "12, 1 frames")],
)
def test_what_is_no_people_is_told_at_once(tracks, said):
    for draw in (draw_motion, draw_frames):
        with pytest.raises(InputError, match=said):
            draw(tracks, 512, 768)


def test_frames_come_one_at_a_time():
    frames = draw_frames(ALIGNED, 256, 384)
    assert iter(frames) is frames
    one_by_one = list(frames)
    np.testing.assert_array_equal(np.stack(one_by_one), draw_motion(ALIGNED, 256, 384))
    assert not np.shares_memory(one_by_one[0], one_by_one[1])


@pytest.mark.parametrize("size", [(0, 768), (512, -1), (512.5, 768), ("512", 768), (None, 768)])
def test_sizes_are_checked_at_once(size):
    for draw in (draw_motion, draw_frames):
        with pytest.raises(InputError, match="whole number of pixels"):
            draw(REFERENCE, *size)


def test_without_opencv_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    for draw in (draw_motion, draw_frames):
        with pytest.raises(InputError, match="install the package opencv-python-headless"):
            draw(REFERENCE, 512, 768)


def test_importing_the_package_loads_nothing_heavy():
    optional = {"cv2", "av", "PIL", "diffusers", "open_clip", "onnxruntime", "typer"}
    code = f"import sys, unianimate_core; print(*({optional} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == ""
