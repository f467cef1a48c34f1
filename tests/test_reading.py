"""Videos read as a stream: against OpenCV, Pillow, FFmpeg's fps filter and the colour standards."""

import threading
from fractions import Fraction

import av
import cv2
import numpy as np
import psutil
import pytest
from PIL import Image, ImageSequence
from videos import encode, moving_frames, write

from unianimate_core.video import VideoReader, read_video

STEPS = [np.full((16, 24, 3), 4 * n, np.uint8) for n in range(60)]  # a frame's number is a quarter of its grey
IRREGULAR = np.cumsum(np.r_[0, np.random.default_rng(0).integers(5, 200, 59)]).tolist()  # milliseconds


@pytest.fixture(scope="module")
def moving():
    return moving_frames()


def numbers(frames):
    return [round(float(np.mean(frame)) / 4) for frame in frames]


def by_ffmpegs_filter(path, rate):
    """The frames of a video at a constant rate, as FFmpeg's fps filter gives them."""
    graph, out = av.filter.Graph(), []
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        links = graph.add_buffer(template=stream), graph.add("fps", str(rate)), graph.add("buffersink")
        links[0].link_to(links[1])
        links[1].link_to(links[2])
        graph.configure()
        for frame in (*file.decode(stream), None):
            graph.push(frame)
            while True:
                try:
                    out.append(graph.pull().to_ndarray(format="rgb24"))
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    return out


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


def test_a_stream_gives_what_was_written_one_frame_at_a_time_and_again(tmp_path, moving):
    path = encode(tmp_path / "a.mkv", moving)
    with VideoReader(path) as reader:
        assert (reader.width, reader.height, reader.fps, reader.frames, reader.problem) == (64, 96, 30, 12, None)
        first = iter(reader)
        next(first)[:] = 0
        for _ in range(2):
            frames = list(reader)
            np.testing.assert_array_equal(frames, moving)
        assert all(frame.flags.c_contiguous and frame.flags.writeable for frame in frames)
        assert list(first) == []  # a new reading ended it
    np.testing.assert_array_equal(read_video(path)[0], moving)


@pytest.mark.parametrize("codec", ["qtrle", "png", "rawvideo"])
def test_frames_may_be_changed_in_place(tmp_path, codec):
    frames = np.full((6, 32, 64, 3), 9, np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 5 * number : 5 * number + 5] = 200
    path = encode(tmp_path / "a.mov", frames, codec, "rgb24")  # FFmpeg's decoders of RGB need their last frame again
    for frame, expected in zip(VideoReader(path), frames, strict=True):
        np.testing.assert_array_equal(frame, expected)
        frame[:] = 77


def test_the_file_is_closed_at_the_end_of_the_block(tmp_path):
    def is_open():
        return str(path) in [file.path for file in psutil.Process().open_files()]

    path = encode(tmp_path / "a.mkv", STEPS)
    with VideoReader(path) as reader:
        reading = iter(reader)
        next(reading)
        assert is_open()
    assert not is_open()
    assert list(reading) == []


def test_a_thread_that_reads_does_not_keep_the_block_from_ending(tmp_path):
    path, arrived, go_on = encode(tmp_path / "a.mkv", STEPS), threading.Event(), threading.Event()
    with VideoReader(path) as reader:
        shot = reader._source.shots

        def slow():
            for one in shot():
                arrived.set()
                go_on.wait(10)
                yield one

        object.__setattr__(reader._source, "shots", slow)
        thread = threading.Thread(target=lambda: next(iter(reader)))
        thread.start()
        assert arrived.wait(10)
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()


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
    reader = VideoReader(path)
    assert (reader.height, reader.width) == expected.shape[:2]
    assert next(iter(reader)).flags.c_contiguous


def test_pixels_that_are_not_square_are_made_so(tmp_path, moving):
    path = encode(tmp_path / "a.mp4", moving, "libx264", "yuv420p", sample_aspect_ratio=Fraction(4, 3))
    reader = VideoReader(path)
    assert (reader.width, reader.height) == (85, 96)  # 64 × 4/3
    expected = cv2.resize(moving[0], (85, 96), interpolation=cv2.INTER_LINEAR)
    assert np.abs(next(iter(reader)).astype(int) - expected).mean() < 4


@pytest.mark.parametrize("rate", [5, 12.5, 24, 30, 60, Fraction(30000, 1001)])
@pytest.mark.parametrize("times", [IRREGULAR, None], ids=["irregular", "regular"])
def test_a_constant_rate_equals_ffmpegs_filter(tmp_path, times, rate):
    path = encode(tmp_path / "a.mkv", STEPS, times=times)  # Matroska rounds times to milliseconds: 0, 33, 67, …
    with VideoReader(path, fps=rate) as reader:
        frames = list(reader)
    assert numbers(frames) == numbers(by_ffmpegs_filter(path, Fraction(rate)))
    assert (reader.fps, reader.frames) == (float(rate), len(frames))
    assert len({id(frame) for frame in frames}) == len(frames)  # repeated ones too are arrays of their own


def test_without_a_rate_every_frame_comes_once(tmp_path):
    path = encode(tmp_path / "a.mkv", STEPS, times=IRREGULAR)
    assert numbers(VideoReader(path)) == list(range(60))
    path = encode(tmp_path / "a.mp4", STEPS, "libx264", "yuv420p", times=IRREGULAR, qp=0)
    with VideoReader(path) as reader:
        assert len(list(reader)) == reader.frames == 60
        assert reader.fps == pytest.approx(60 / (IRREGULAR[-1] / 1000), rel=0.02)


@pytest.mark.parametrize(("first", "jump"), [(10_000, -9_000), (0, 10**10)])
def test_damaged_time_stamps_count_as_the_usual_interval(tmp_path, first, jump):
    gaps = np.array([0, 100, 300, 100, 200, 100, 100, 400, 100, 100])  # milliseconds since the frame before
    times = [int(first + gaps[: n + 1].sum() + (jump if n >= 5 else 0)) for n in range(10)]  # the fifth gap is damaged
    frames = [av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0") for frame in STEPS[:10]]
    path = tmp_path / "a.nut"  # a container that takes such times, and tells them
    with av.open(str(path), "w") as file:
        stream = file.add_stream("rawvideo", rate=10)
        stream.width, stream.height, stream.pix_fmt = 24, 16, "bgr0"
        stream.time_base = Fraction(1, 1000)
        for number, (time, frame) in enumerate(zip(times, frames, strict=True)):
            frame.pts, frame.time_base = number, Fraction(1, 10)
            for packet in stream.encode(frame):
                packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), time, number
                file.mux(packet)
    with VideoReader(path, fps=10) as reader:
        assert numbers(reader) == np.repeat(range(10), [*gaps[1:] // 100, 1]).tolist()


def test_files_without_duration_or_number_of_frames(tmp_path):
    class Pipe:  # cannot seek, so the header cannot be completed
        def __init__(self, path):
            self.file = path.open("wb")
            self.write = self.file.write

    live, bare = tmp_path / "live.mkv", tmp_path / "bare.h264"
    pipe = Pipe(live)
    encode(pipe, STEPS, container="matroska", times=IRREGULAR)
    pipe.file.close()
    encode(bare, STEPS, "libx264", "yuv420p", container="h264", qp=0)
    for path in (live, bare):
        with VideoReader(path) as reader:
            assert (reader.frames, reader.fps) == (None, 30)
            assert numbers(reader) == list(range(60))
            assert reader.problem is None
    assert VideoReader(live, fps=10).frames is None
    assert len(list(VideoReader(live, fps=10))) == pytest.approx(IRREGULAR[-1] / 100, abs=1.5)
    assert numbers(VideoReader(bare, fps=15)) == numbers(VideoReader(bare))[::2]  # it has no time stamps either


@pytest.mark.parametrize(("suffix", "options"), [(".gif", {}), (".webp", {"lossless": True}), (".png", {})])
def test_animated_pictures_equal_pillow(tmp_path, suffix, options):
    colours = np.random.default_rng(1).integers(0, 256, (5, 3), dtype=np.uint8)
    pages = [Image.fromarray(np.broadcast_to(colour, (21, 33, 3)).copy()) for colour in colours]
    path, delays = tmp_path / f"a{suffix}", [100, 200, 50, 400, 100]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=delays, **options)
    with Image.open(path) as image:
        expected = [np.asarray(page.convert("RGB")) for page in ImageSequence.Iterator(image)]
    with VideoReader(path) as reader:
        frames = list(reader)
        np.testing.assert_array_equal(frames, expected)
        assert all(frame.flags.writeable for frame in frames)
        assert (reader.width, reader.height, reader.frames, reader.problem) == (33, 21, 5, None)
        assert reader.fps == pytest.approx(5 / 0.85)
    if hasattr(av.VideoFrame, "duration"):  # else the last is shown for as long as the average
        frames = list(VideoReader(path, fps=20))  # every 50 ms
        np.testing.assert_array_equal(frames, np.repeat(expected, [2, 4, 1, 8, 2], axis=0))
    regular = tmp_path / f"b{suffix}"
    pages[0].save(regular, save_all=True, append_images=pages[1:3], duration=[30, 30, 40], **options)
    assert VideoReader(regular).fps == pytest.approx(30)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_a_still_picture_is_one_upright_frame(tmp_path, suffix):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    picture.save(path := tmp_path / f"a{suffix}", exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with VideoReader(path, fps=24) as reader:
        frames = list(reader)
        assert (len(frames), reader.frames, reader.fps, reader.width, reader.height) == (1, 1, 24, 30, 50)
    with Image.open(path) as image:
        np.testing.assert_array_equal(frames[0], np.rot90(np.asarray(image.convert("RGB")), -1))
    assert VideoReader(path).fps == 0


def test_a_folder_of_pictures_comes_in_number_order_and_one_size(tmp_path):
    for number in (10, 9, 1, 100):
        Image.fromarray(np.full((20, 30, 3), number, np.uint8)).save(tmp_path / f"frame_{number}.png")
    Image.fromarray(np.full((40, 20, 3), 200, np.uint8)).save(tmp_path / "frame_101.png")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"")
    with VideoReader(tmp_path) as reader:
        frames = list(reader)
    assert (reader.width, reader.height, reader.frames, reader.fps) == (30, 20, 5, 0)
    assert [int(frame[0, 0, 0]) for frame in frames[:4]] == [1, 9, 10, 100]
    inside = frames[4][..., 0] == 200  # of 40 × 20, so 20 × 10 in the middle
    assert inside.sum() == 20 * 10
    assert inside[:, 10:20].all()
    assert not frames[4][~inside].any()
    (tmp_path / "frame_99.png").write_bytes((tmp_path / "frame_100.png").read_bytes()[:40])
    with VideoReader(tmp_path) as reader:
        assert len(list(reader)) == 3
    assert "after 3 frames" in reader.problem
    assert "frame_99.png" in reader.problem


def test_sizes_that_change_midway_become_the_firsts(tmp_path):
    sizes = [(40, 60), (40, 60), (80, 120), (60, 30)]
    pictures = [cv2.imencode(".jpg", np.full((*size, 3), 150, np.uint8))[1].tobytes() for size in sizes]
    (path := tmp_path / "a.mjpeg").write_bytes(b"".join(pictures))  # JPEGs in a row are a motion JPEG
    with VideoReader(path) as reader:
        frames = np.stack(list(reader))
    assert frames.shape == (4, 40, 60, 3)
    assert reader.problem is None
    assert (np.abs(frames[:3].astype(int) - 150) <= 1).all()
    assert (np.abs(frames[3, :, 20:40].astype(int) - 150) <= 1).all()
    assert not frames[3, :, :20].any()
    assert not frames[3, :, 40:].any()


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (3, 37, 53, 3), (1, 64, 2, 3)])
def test_odd_sizes_and_single_frames(tmp_path, shape):
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    with VideoReader(encode(tmp_path / "a.mkv", frames), fps=30) as reader:
        np.testing.assert_array_equal(list(reader), frames)
        assert reader.frames == len(frames)
    one = VideoReader(tmp_path / "a.mkv", fps=0.1)
    assert len(list(one)) == 1  # shown for a thirtieth of a second, but never none


@pytest.mark.parametrize(
    ("matrix", "weights"), [(1, (0.2126, 0.0722)), (5, (0.299, 0.114)), (9, (0.2627, 0.0593)), (2, (0.299, 0.114))]
)
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("bits", [8, 10])
def test_colours_follow_the_tags(tmp_path, matrix, weights, full_range, bits):
    luma, blue, red = 120, 100, 160
    frame = av.VideoFrame(64, 48, "yuv420p" if bits == 8 else "yuv420p10le")
    for plane, value in zip(frame.planes, (luma, blue, red), strict=True):
        kind = np.uint8 if bits == 8 else np.uint16
        plane.update(np.full(plane.buffer_size // kind().nbytes, value << (bits - 8), kind).tobytes())
    tags = {"colorspace": matrix, "color_range": 2 if full_range else 1}
    frame.colorspace, frame.color_range = tags.values()
    path = encode(tmp_path / "a.mkv", [frame], "libx264", frame.format.name, qp=0, **tags)
    # ITU-R BT.601, BT.709, BT.2020: Y' = kr R + (1 − kr − kb) G + kb B
    kr, kb = weights
    black, span, chroma = (0, 255, 255) if full_range else (16, 219, 224)
    y, b, r = (luma - black) / span, 2 * (1 - kb) * (blue - 128) / chroma, 2 * (1 - kr) * (red - 128) / chroma
    expected = np.array([y + r, y - (kr * r + kb * b) / (1 - kr - kb), y + b]) * 255
    np.testing.assert_allclose(next(iter(VideoReader(path)))[20, 20], expected, atol=3)


@pytest.mark.parametrize(
    ("codec", "pixels", "suffix"),
    [
        *(("qtrle", "argb", ".mov"), ("png", "rgba", ".mov"), ("png", "rgb48be", ".mov"), ("ffv1", "yuva420p", ".mkv")),
        *(("ffv1", "gbrp10le", ".mkv"), ("prores_ks", "yuva444p10le", ".mov"), ("mjpeg", "yuvj422p", ".avi")),
    ],
)
def test_alpha_and_more_than_eight_bits(tmp_path, codec, pixels, suffix):
    path = encode(tmp_path / f"a{suffix}", [np.full((32, 48, 3), (200, 120, 40), np.uint8)] * 2, codec, pixels)
    for frame in VideoReader(path):
        np.testing.assert_allclose(frame, np.broadcast_to((200, 120, 40), frame.shape), atol=2)


@pytest.mark.parametrize("matrix", [8, 10, 14])
def test_colours_that_swscale_does_not_know_can_be_read(tmp_path, matrix):
    frames = [np.full((32, 48, 3), 128, np.uint8)]
    path = encode(tmp_path / "a.mkv", frames, "libx264", "yuv420p", colorspace=matrix)
    np.testing.assert_allclose(read_video(path)[0], frames, atol=2)


def test_ten_thousand_frames_take_the_memory_of_a_few(tmp_path):
    path, count = tmp_path / "a.mkv", 10_000
    frame = av.VideoFrame(64, 64, "yuv420p")
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    encode(path, [frame] * count, "libx264", "yuv420p", preset="ultrafast", tune="zerolatency", thread_count=1)
    process, used = psutil.Process(), []
    with VideoReader(path) as reader:
        assert reader.frames == count
        for number, _ in enumerate(reader):
            if number % 500 == 499:
                used.append(process.memory_info().rss)
    assert len(used) == 20
    assert max(used[1:]) - used[0] < 8 << 20  # all frames would be 117 MiB
