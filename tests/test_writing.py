import os
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from unianimate_core.errors import InputError
from unianimate_core.output import check_output
from unianimate_core.video import VideoWriter, read_video

SUFFIXES = [".mp4", ".mov", ".mkv", ".webm", ".gif"]
CODECS = {".mp4": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "vp9", ".gif": "gif"}


@pytest.fixture(scope="module")
def moving():
    """Smooth colours which drift: 12 frames of 96 × 64."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    large = cv2.resize(coarse, (96, 128), interpolation=cv2.INTER_CUBIC)
    return np.stack([large[2 * i : 2 * i + 96, i : i + 64] for i in range(12)])


def write(path, frames, fps=24, **options):
    with VideoWriter(path, frames.shape[2], frames.shape[1], fps=fps, **options) as writer:
        writer.write(frames)
    return path


def decode(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.codec_context, stream.average_rate, list(container.decode(stream))


def bt709_to_rgb(frame):
    """A yuv420p frame's top left pixels, by the standard's formula (limited range)."""
    planes = frame.to_ndarray().astype(float)
    height, width = frame.height, frame.width
    y = planes[:height].ravel()[0] - 16
    chroma = planes[height:].ravel()
    u, v = chroma[0] - 128, chroma[width * height // 4] - 128
    y, u, v = y / 219, u / 224, v / 224
    return 255 * np.array([y + 1.5748 * v, y - 0.187324 * u - 0.468124 * v, y + 1.8556 * u])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_frames_come_back_in_order(tmp_path, moving, suffix):
    codec, rate, frames = decode(write(tmp_path / f"a{suffix}", moving, fps=25))
    assert codec.name.removeprefix("lib").startswith(CODECS[suffix][:3])
    assert rate == 25
    assert len(frames) == 12
    back = np.stack([frame.to_ndarray(format="rgb24") for frame in frames]).astype(float)
    near = [min(range(12), key=lambda other: np.abs(back[i] - moving[other]).mean()) for i in range(12)]
    assert near == list(range(12))
    smooth = [
        cv2.GaussianBlur(b - m, (0, 0), 2) for b, m in zip(back, moving.astype(float), strict=True)
    ]  # GIF dithers
    assert np.abs(smooth).mean() < 8  # PyAV before 17 decodes with BT.601's matrix unless told


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 40)])
def test_a_solid_colour_is_bt709_and_tagged(tmp_path, suffix, colour):
    path = write(tmp_path / f"a{suffix}", np.full((4, 32, 48, 3), colour, np.uint8))
    codec, _, frames = decode(path)
    assert codec.pix_fmt == "yuv420p"
    for frame in frames:
        assert (frame.colorspace, frame.color_range) == (1, 1)
        np.testing.assert_allclose(bt709_to_rgb(frame), colour, atol=3)
    assert (codec.color_primaries, codec.color_trc) == (1, 1)
    back, _ = read_video(path)
    np.testing.assert_allclose(back, np.broadcast_to(colour, back.shape), atol=3)


def test_a_solid_colour_in_a_gif_is_exact_and_times_are_right(tmp_path):
    frames = np.full((6, 20, 30, 3), (200, 120, 40), np.uint8)
    frames[:, 0, 0] = np.arange(6)[:, None]
    with Image.open(write(tmp_path / "a.gif", frames, fps=30)) as image:
        pages = [(np.asarray(page.convert("RGB")), page.info["duration"]) for page in ImageSequence.Iterator(image)]
    assert len(pages) == 6
    assert sum(duration for _, duration in pages) == 200
    assert all((page[5:, 5:] == (200, 120, 40)).all() for page, _ in pages)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_frames_give_the_same_bytes(tmp_path, moving, suffix):
    first = write(tmp_path / f"a{suffix}", moving).read_bytes()
    with VideoWriter(tmp_path / f"b{suffix}", 64, 96, fps=24) as writer:
        for start in (0, 5, 6):  # groups of other sizes
            writer.write(moving[start : {0: 5, 5: 6, 6: 12}[start]])
    assert (tmp_path / f"b{suffix}").read_bytes() == first
    assert write(tmp_path / f"c{suffix}", moving[::-1]).read_bytes() != first


def test_no_date_is_written(tmp_path, moving):
    content = write(tmp_path / "a.mp4", moving).read_bytes()
    for box in (b"mvhd", b"tkhd", b"mdhd"):
        start = content.index(box) + 8
        assert content[start : start + 8] == bytes(8)  # creation and modification time
    with av.open(str(write(tmp_path / "a.mkv", moving))) as container:
        assert not {"creation_time", "date"} & {key.lower() for key in container.metadata}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_sizes_are_padded_by_the_edge_or_kept(tmp_path, moving, suffix):
    _, _, frames = decode(write(tmp_path / f"a{suffix}", moving[:3, :49, :63]))
    assert (frames[0].width, frames[0].height) == ((63, 49) if suffix == ".gif" else (64, 50))
    if suffix != ".gif":
        luma = frames[0].to_ndarray(format="gray").astype(int)
        assert np.abs(luma[:, 63] - luma[:, 62]).mean() < 4
        assert np.abs(luma[49] - luma[48]).mean() < 4


@pytest.mark.parametrize("fps", [Fraction(30000, 1001), 12.5, 60])
def test_frame_rates(tmp_path, moving, fps):
    path = write(tmp_path / "a.mp4", moving, fps=fps)
    _, rate, frames = decode(path)
    assert float(rate) == pytest.approx(float(fps))
    assert frames[-1].time == pytest.approx(11 / float(fps), abs=1e-3)
    assert read_video(path)[1] == pytest.approx(float(fps))


def test_floats_are_rounded_and_clamped(tmp_path, moving):
    expected = write(tmp_path / "a.mkv", moving).read_bytes()
    exact = torch.from_numpy(moving).float() / 255
    for error in (0.4, -0.4):
        assert write(tmp_path / "b.mkv", exact + error / 255, overwrite=True).read_bytes() == expected
    assert write(tmp_path / "c.mkv", exact.numpy().astype(np.float64)).read_bytes() == expected
    assert (
        write(tmp_path / "d.mkv", exact.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)).read_bytes() == expected
    )
    wild = torch.tensor([float("nan"), -3.0, 7.0]).expand(3, 16, 16, 3).to(torch.bfloat16)
    tame = np.broadcast_to(np.uint8([0, 0, 255]), (3, 16, 16, 3))
    assert write(tmp_path / "e.mkv", wild).read_bytes() == write(tmp_path / "f.mkv", tame).read_bytes()


def test_the_name_appears_only_when_the_file_is_whole(tmp_path, moving):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 64, 96) as writer:
        writer.write(moving)
        assert not path.exists()
        writer.write(moving[:0])
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert writer.frames_written == 12
    (tmp_path / "ordinary").touch()
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    with pytest.raises(InputError, match="closed"):
        writer.write(moving)


def fail_after(frames, path, error, overwrite=False):
    with VideoWriter(path, 64, 96, overwrite=overwrite) as writer:
        writer.write(frames)
        raise error


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_leaves_nothing_behind(tmp_path, moving, suffix):
    with pytest.raises(RuntimeError, match="sampling"):
        fail_after(np.tile(moving, (10, 1, 1, 1)), tmp_path / f"a{suffix}", RuntimeError("sampling failed"))
    assert os.listdir(tmp_path) == []


def test_a_failure_keeps_the_file_that_was_there(tmp_path, moving):
    before = write(tmp_path / "a.mp4", moving).read_bytes()
    with pytest.raises(KeyboardInterrupt):
        fail_after(moving[:2], tmp_path / "a.mp4", KeyboardInterrupt(), overwrite=True)
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_no_frames_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no frame"), VideoWriter(tmp_path / "a.mp4", 64, 96):
        pass
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 64, 96, 3), np.uint8),
        np.zeros((96, 64, 3), np.uint8),
        np.zeros((2, 96, 64, 4), np.uint8),
        np.zeros((2, 96, 64, 3), np.int64),
    ],
)
def test_wrong_frames_are_an_input_error(tmp_path, frames):
    with pytest.raises(InputError, match="frames must be"), VideoWriter(tmp_path / "a.mp4", 64, 96) as writer:
        writer.write(frames)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_an_input_error_and_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource", reason="no file-size limits on this system")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    frames = np.random.default_rng(0).integers(0, 256, (20, 128, 128, 3), dtype=np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # x264 makes about 20 kB of each of these
    try:
        with pytest.raises(InputError, match="cannot write"):
            write(tmp_path / "a.mp4", frames)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_an_existing_file_is_kept_unless_told(tmp_path, moving):
    path = write(tmp_path / "a.mkv", moving)
    before = path.read_bytes()
    for attempt in (lambda: check_output(path, SUFFIXES), lambda: VideoWriter(path, 64, 96)):
        with pytest.raises(InputError, match="--overwrite"):
            attempt()
    assert path.read_bytes() == before
    assert check_output(path, SUFFIXES, overwrite=True) == path
    write(path, moving[::-1], overwrite=True)
    assert path.read_bytes() != before


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, moving):
    path = tmp_path / "a.mp4"
    writer = VideoWriter(path, 64, 96)
    writer.write(moving)
    path.write_text("mine")
    with pytest.raises(InputError, match="--overwrite"):
        writer.close()
    assert path.read_text() == "mine"
    assert os.listdir(tmp_path) == ["a.mp4"]


@pytest.mark.parametrize("name", ["a", "a.avi", "a.png", "mp4"])
def test_an_unknown_suffix_names_the_known_ones(tmp_path, name):
    with pytest.raises(InputError, match=r"\.mp4, \.mov, \.mkv, \.webm, \.gif"):
        check_output(tmp_path / name, SUFFIXES)


def test_outputs_that_cannot_be_written(tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("")
    for path, message in [
        (tmp_path / "folder.mp4", "is a folder"),
        (tmp_path / "missing" / "a.mp4", "no folder"),
        (tmp_path / "file" / "a.mp4", "no folder"),
        (tmp_path / ("x" * 300 + ".mp4"), "cannot write"),
    ]:
        with pytest.raises(InputError, match=message):
            check_output(path, SUFFIXES)
    assert check_output(tmp_path / "A.MP4", SUFFIXES) == tmp_path / "A.MP4"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.mp4"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a folder that even root cannot write to")
def test_an_unwritable_folder_is_an_input_error():
    with pytest.raises(InputError, match="cannot write"):
        check_output("/proc/a.mp4", SUFFIXES)


@pytest.mark.parametrize(
    ("width", "height", "fps"), [(0, 8, 24), (8, -2, 24), (8, 8, 0), (8, 8, float("nan")), (8, 8, 1e6), (8, 8, 1e-9)]
)
def test_impossible_sizes_and_rates(tmp_path, width, height, fps):
    with pytest.raises(InputError):
        VideoWriter(tmp_path / "a.mp4", width, height, fps=fps)


def test_missing_pyav_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    for attempt in (lambda: VideoWriter(tmp_path / "a.mp4", 8, 8), lambda: read_video(tmp_path / "a.mp4")):
        with pytest.raises(InputError, match="install the extra `standalone`"):
            attempt()
