"""Pose pictures against the golden ones, and at the edges."""

import colorsys
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unianimate_core.errors import InputError
from unianimate_core.pose import MotionTrack, draw_frames, draw_motion

ROOT = Path(__file__).parent.parent
GOLDEN = np.load(ROOT / "tests" / "golden_data" / "pose_alignment.npz")
ALIGNED = MotionTrack(GOLDEN["aligned.body"], GOLDEN["aligned.hands"], width=512, height=768)
REFERENCE = MotionTrack(GOLDEN["reference.body"][None], GOLDEN["reference.hands"][None], width=512, height=768)


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


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float64, (1, 20, 2), elements=st.floats(allow_nan=True, allow_infinity=True)),
    arrays(np.float64, (1, 2, 21, 2), elements=st.floats(-3, 4) | st.just(float("nan"))),
    st.integers(1, 90),
    st.integers(1, 90),
)
def test_any_points_can_be_drawn(body, hands, width, height):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        track = MotionTrack(body, hands, width=width, height=height)
        pictures = draw_motion(track, width, height)
    assert pictures.shape == (1, height, width, 3)
    inside = track.body[0][((track.body[0] >= 0) & (track.body[0] < 1)).all(-1)]
    for x, y in inside:
        assert pictures[0, int(y * height), int(x * width)].any(), "a joint inside the picture is not drawn"


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
