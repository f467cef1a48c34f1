import cv2
import numpy as np
import pytest

from unianimate_core.errors import InputError
from unianimate_core.video import VideoWriter, read_video


@pytest.fixture(scope="module")
def moving():
    """Smooth colours which drift: 12 frames of 96 × 64."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    large = cv2.resize(coarse, (96, 128), interpolation=cv2.INTER_CUBIC)
    return np.stack([large[2 * i : 2 * i + 96, i : i + 64] for i in range(12)])


def write(path, frames):
    with VideoWriter(path, frames.shape[2], frames.shape[1], fps=24) as writer:
        writer.write(frames)
    return path


def test_reading_equals_opencv(tmp_path, moving):
    path = write(
        tmp_path / "a.mp4", np.repeat(moving.mean(3, keepdims=True), 3, 3).astype(np.uint8)
    )  # no colour matrix
    frames, fps = read_video(path)
    assert (frames.dtype, frames.shape, fps) == (np.uint8, (12, 96, 64, 3), 24)
    video = cv2.VideoCapture(str(path))
    for frame in frames:
        _, expected = video.read()
        np.testing.assert_allclose(frame, expected[..., ::-1], atol=3)


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)])
def test_a_phones_rotation_is_applied_as_opencv_does(tmp_path, moving, matrix):
    path = write(tmp_path / "a.mp4", moving)
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (value << 16 for value in matrix)
    content[start : start + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    path.write_bytes(content)
    video = cv2.VideoCapture(str(path))
    _, expected = video.read()
    frames, _ = read_video(path)
    assert frames[0].shape == expected.shape
    assert np.abs(frames[0].astype(int) - expected[..., ::-1]).mean() < 12  # OpenCV takes the colours for BT.601


def test_what_is_not_a_video_is_an_input_error(tmp_path, moving):
    (tmp_path / "text.mp4").write_text("hello" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    whole = write(tmp_path / "whole.mp4", moving).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:600])
    for name in ("missing.mp4", "text.mp4", "empty.mp4", "cut.mp4"):
        with pytest.raises(InputError, match=name):
            read_video(tmp_path / name)
