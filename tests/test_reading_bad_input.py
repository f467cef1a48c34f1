"""Videos that break off, and files that are none."""

import sys

import av
import numpy as np
import pytest
from PIL import Image
from videos import add_sound, encode, moving_frames, write

from unianimate_core.errors import InputError
from unianimate_core.video import VideoReader, read_video


@pytest.fixture(scope="module")
def moving():
    return moving_frames()


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "damage"),
    [
        *(("a.mp4", "libx264", "yuv420p", damage) for damage in ("cut", "blank")),
        *(("a.mkv", "libx264", "yuv420p", damage) for damage in ("cut", "blank")),
        *(("a.webm", "libvpx-vp9", "yuv420p", "cut"), ("a.avi", "mjpeg", "yuvj420p", "blank")),
    ],
)
def test_a_video_that_breaks_in_the_middle_keeps_what_was_read(tmp_path, moving, name, codec, pixels, damage):
    options = {"crf": 10, "bf": 3} if codec == "libx264" else {}
    path = encode(tmp_path / name, np.concatenate([moving] * 6), codec, pixels, gop_size=12, **options)
    whole = list(VideoReader(path))
    content = bytearray(path.read_bytes())
    middle = len(content) * 6 // 10
    if damage == "cut":
        del content[middle:]
    else:
        content[middle : middle + len(content) // 5] = bytes(len(content) // 5)
    path.write_bytes(content)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert 20 < len(frames) < 72
        np.testing.assert_array_equal(frames[:20], whole[:20])
        assert f"after {len(frames)} frames" in reader.problem
        assert name in reader.problem
        next(iter(reader))
        assert reader.problem is None  # of the reading that has begun
    with pytest.raises(InputError, match=f"after {len(frames)} frames"):
        read_video(path)
    with VideoReader(path, fps=15) as reader:
        assert len(list(reader)) == pytest.approx(len(frames) / 2, abs=2)
        assert reader.problem is not None


def test_frames_that_wait_for_damaged_ones_are_kept(tmp_path, moving):
    path = encode(tmp_path / "a.mp4", moving, "libx264", "yuv420p", crf=10, bf=3)
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    last = packets[-1]  # in order of decoding: the frame before the very last in time, on which none depends
    assert max(packet.pts for packet in packets) > last.pts
    content = bytearray(path.read_bytes())
    content[last.pos : last.pos + last.size] = bytes(last.size)
    whole = read_video(path)[0]
    path.write_bytes(content)
    with VideoReader(path) as reader:
        frames = list(reader)
    assert "after 11 frames" in reader.problem
    np.testing.assert_array_equal(frames, np.delete(whole, 10, axis=0))


def test_an_animation_that_breaks_off_keeps_its_first_pictures(tmp_path):
    pages = [Image.fromarray(page) for page in np.random.default_rng(0).integers(0, 256, (8, 40, 50, 3), np.uint8)]
    pages[0].save(path := tmp_path / "a.png", save_all=True, append_images=pages[1:], duration=100)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    with VideoReader(path) as reader:
        np.testing.assert_array_equal(list(reader), np.stack(pages)[:4])
        assert reader.fps == 10
    assert "after 4 frames" in reader.problem


@pytest.mark.parametrize("seconds", [0.2, 5])
def test_sound_of_another_length_is_no_problem(tmp_path, moving, seconds):
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 96, "yuv420p"
        sound = list(add_sound(file, seconds))
        for frame in moving:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode(None))
        file.mux(sound)
    with VideoReader(tmp_path / "a.mkv") as reader:
        assert len(list(reader)) == 12
    assert reader.problem is None


def test_sound_and_a_cover_picture_are_no_video(tmp_path):
    for name in ("sound.mp4", "cover.mp4"):
        with av.open(str(tmp_path / name), "w") as file:
            packets = list(add_sound(file, 1))
            if name == "cover.mp4":
                cover = file.add_stream("png", rate=1)
                cover.width, cover.height, cover.pix_fmt = 16, 16, "rgb24"
                cover.disposition = av.stream.Disposition.attached_pic.value
                packets += cover.encode(av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24"))
            file.mux(packets)
        for read in (VideoReader, read_video):
            with pytest.raises(InputError, match=rf"{name} has no video in it"):
                read(tmp_path / name)


def test_what_is_not_a_video_is_an_input_error(tmp_path, moving):
    (tmp_path / "text.mp4").write_text("hello" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.webp").write_text("hello" * 100)
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    whole = write(tmp_path / "whole.mp4", moving).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:600])
    start = whole.index(b"mdat") + 4  # after the index
    (tmp_path / "blank.mp4").write_bytes(whole[:start] + bytes(len(whole) - start))
    names = ("missing.mp4", "missing.png", "text.mp4", "empty.mp4", "cut.mp4", "blank.mp4", "text.webp", "empty.png")
    for name in (*names, "folder"):
        for read in (VideoReader, read_video):
            with pytest.raises(InputError, match=name):
                read(tmp_path / name)


@pytest.mark.parametrize("fps", [0, -1, 0.01, 2000, float("nan"), float("inf")])
def test_impossible_rates(tmp_path, fps):
    with pytest.raises(InputError, match=r"give 0\.1 to 1000"):
        VideoReader(tmp_path / "a.mp4", fps=fps)


def test_without_pyav_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match="install the extra `standalone`"):
        VideoReader(tmp_path / "a.mp4")
