"""Every format that a video may be written in, read back by PyAV or Pillow; and the sound that goes along."""

import os
import sys

import av
import cv2
import numpy as np
import pytest
from PIL import Image, ImageSequence
from videos import moving_frames

from unianimate_core.errors import InputError
from unianimate_core.video import VideoWriter, read_video

FPS = 24
RATE = 44100


@pytest.fixture(scope="module")
def moving():
    return moving_frames()


def write(path, frames, **options):
    with VideoWriter(path, frames.shape[2], frames.shape[1], fps=FPS, **options) as writer:
        writer.write(frames[:5])
        writer.write(frames[5:])
    return path


def interrupted(path, frames, **options):
    with VideoWriter(path, 64, 96, **options) as writer:
        writer.write(frames)
        raise KeyboardInterrupt


def blurred(frames):
    return np.stack([cv2.GaussianBlur(frame.astype(float), (0, 0), 2) for frame in frames])


@pytest.mark.parametrize(
    ("name", "codec", "stored", "tag", "pixels"),
    [
        ("a.mp4", "h264", "h264", "avc1", "yuv420p"),
        ("a.mp4", "h265", "hevc", "hvc1", "yuv420p"),
        ("a.mov", "h265", "hevc", "hvc1", "yuv420p"),
        ("a.mkv", "h265", "hevc", None, "yuv420p"),
        ("a.mov", "prores", "prores", "apch", "yuv422p10le"),
    ],
)
def test_lossy_films(tmp_path, moving, name, codec, stored, tag, pixels):
    path = write(tmp_path / name, moving, codec=codec)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context, frames = stream.codec_context, list(container.decode(stream))
        assert (context.name, context.pix_fmt, stream.average_rate) == (stored, pixels, FPS)
        assert tag in (None, context.codec_tag)
    assert len(frames) == len(moving)
    assert {(frame.colorspace, frame.color_range) for frame in frames} == {(1, 1)}
    assert np.abs(blurred(read_video(path)[0]) - blurred(moving)).mean() < 2
    assert write(tmp_path / f"b{path.suffix}", moving, codec=codec).read_bytes() == path.read_bytes()


def test_ffv1_is_exact(tmp_path, moving):
    path = write(tmp_path / "a.mkv", moving[:, :49, :63], codec="ffv1")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    np.testing.assert_array_equal(frames, moving[:, :49, :63])
    assert write(tmp_path / "b.mkv", moving[:, :49, :63], lossless=True).read_bytes() == path.read_bytes()


def test_a_folder_of_pictures_is_exact_and_whole_or_not_there(tmp_path, moving):
    with VideoWriter(tmp_path / "frames", 64, 96, codec="png") as writer:
        writer.write(moving)
        assert not (tmp_path / "frames").exists()
    names = sorted(os.listdir(tmp_path / "frames"))
    assert names == [f"{number:06d}.png" for number in range(12)]
    np.testing.assert_array_equal([np.asarray(Image.open(tmp_path / "frames" / name)) for name in names], moving)
    np.testing.assert_array_equal(read_video(tmp_path / "frames")[0], moving)
    with pytest.raises(InputError, match=r"frames exists.*--overwrite"):
        VideoWriter(tmp_path / "frames", 64, 96, codec="png")
    write(tmp_path / "frames", moving[:6], codec="png", overwrite=True)
    np.testing.assert_array_equal(read_video(tmp_path / "frames")[0], moving[:6])
    (tmp_path / "frames" / "mine.txt").touch()
    with pytest.raises(InputError, match=r"holds mine\.txt"):
        VideoWriter(tmp_path / "frames", 64, 96, codec="png", overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "other", moving, codec="png")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        VideoWriter(tmp_path / "file", 64, 96, codec="png")
    assert sorted(os.listdir(tmp_path)) == ["file", "frames"]


def test_animated_webp(tmp_path, moving):
    with Image.open(write(tmp_path / "a.webp", moving)) as image:
        assert (image.n_frames, image.info["loop"]) == (12, 0)
        pages = [(np.asarray(page.convert("RGBA")), page.info["duration"]) for page in ImageSequence.Iterator(image)]
    assert sum(duration for _, duration in pages) == 500  # milliseconds, 12 frames at 24 a second
    assert all((page[..., 3] == 255).all() for page, _ in pages)
    back = np.stack([page[..., :3] for page, _ in pages])
    assert np.abs(blurred(back) - blurred(moving)).mean() < 2
    assert b"ALPH" not in (tmp_path / "a.webp").read_bytes()
    with pytest.raises(InputError, match=r"120 frames per second.*\.webp"):
        VideoWriter(tmp_path / "b.webp", 8, 8, fps=120)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("a.mp4", {"codec": "cinepak"}, "'cinepak' is unknown: choose h264, h265, prores, ffv1, vp9, gif, webp, png"),
        ("a.webm", {"codec": "h265"}, r"must end in one of \.mp4, \.mov, \.mkv"),
        ("a.mp4", {"codec": "prores"}, r"must end in one of \.mov"),
        ("a.mp4", {"codec": "h264", "lossless": True}, "h264 is not lossless"),
        ("a.mp4", {"audio": "none.wav"}, r"no sound at none\.wav"),
        ("a.gif", {"audio": __file__}, r"\.gif holds no sound"),
        ("a", {"codec": "png", "audio": __file__}, "a folder of pictures holds no sound"),
        ("a.mp4", {"audio": __file__}, "cannot be read as sound"),
    ],
)
def test_what_cannot_be_is_told_before_any_frame(tmp_path, name, options, words):
    with pytest.raises(InputError, match=words):
        VideoWriter(tmp_path / name, 64, 96, **options)
    assert os.listdir(tmp_path) == []


# Sound: a tone of 441 Hz


def tone(path, codec, seconds, video=None, **options):
    """A file with a tone, and frames before it in the file."""
    with av.open(str(path), "w") as file:
        if video is not None:
            pictures = file.add_stream("libx264", rate=FPS)
            pictures.width, pictures.height, pictures.pix_fmt = video.shape[2], video.shape[1], "yuv420p"
        stream = file.add_stream(codec, rate=options.pop("rate", RATE), layout=options.pop("layout", "mono"))
        if video is not None:
            for frame in video:
                file.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            file.mux(pictures.encode(None))
        wave = 0.5 * np.sin(2 * np.pi * 441 * np.arange(int(seconds * stream.rate)) / stream.rate)
        for start in range(0, len(wave), 1024):
            part = wave[None, start : start + 1024].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="flt", layout="mono")
            frame.rate, frame.pts = stream.rate, start
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def packets(path):
    with av.open(str(path)) as file:
        return [bytes(packet) for packet in file.demux(audio=0) if packet.size]


def heard(path):
    """Codec, rate, seconds from the first sample to the last, and the loudest frequency."""
    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        frames = list(file.decode(stream))
        wave = np.concatenate([frame.to_ndarray().reshape(-1, 1)[:, 0] for frame in frames if frame.format.is_planar])
        end = float(frames[-1].time) + frames[-1].samples / frames[-1].sample_rate
        spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
        loudest = spectrum.argmax() * stream.rate / len(wave)
        return stream.codec_context.name, stream.rate, end - max(0.0, float(frames[0].time)), loudest


@pytest.fixture(scope="module")
def clip():
    return np.tile(moving_frames(), (4, 1, 1, 1))  # 2 seconds


def test_sound_that_fits_the_container_is_copied_byte_for_byte(tmp_path, clip):
    source = tone(tmp_path / "driving.mp4", "aac", 2, clip)
    for suffix in (".mp4", ".mov", ".mkv"):
        path = write(tmp_path / f"a{suffix}", clip, audio=source)
        assert packets(path) == packets(source)
        assert heard(path)[2] == pytest.approx(heard(source)[2], abs=0.025)
        assert len(read_video(path)[0]) == 48
        assert write(tmp_path / f"b{suffix}", clip, audio=source).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(("name", "stored"), [("a.mp4", "aac"), ("a.mov", "aac"), ("a.webm", "opus")])
def test_other_sound_is_encoded_anew(tmp_path, clip, name, stored):
    source = tone(tmp_path / "tone.flac", "flac", 2)
    codec, rate, seconds, loudest = heard(write(tmp_path / name, clip, audio=source))
    assert (codec.removeprefix("lib"), rate) == (stored, 48000 if stored == "opus" else RATE)
    assert seconds == pytest.approx(2, abs=0.05)
    assert loudest == pytest.approx(441, abs=2)


def test_sound_ends_with_the_video_or_before_it(tmp_path, clip):
    longer, shorter = tone(tmp_path / "long.mp4", "aac", 9, clip), tone(tmp_path / "short.mp4", "aac", 1, clip)
    path = write(tmp_path / "a.mp4", clip, audio=longer)
    assert heard(path)[2] == pytest.approx(2, abs=0.05)
    assert packets(longer)[: len(packets(path))] == packets(path)
    assert heard(write(tmp_path / "b.mp4", clip, audio=shorter))[2] == pytest.approx(1, abs=0.05)


def test_lengths_that_differ_are_told(tmp_path, clip):
    writer = VideoWriter(tmp_path / "a.mp4", 64, 96, audio=tone(tmp_path / "tone.mp4", "aac", 2, clip))
    writer.sound.check_length(2.1)
    for seconds in (1.5, 2.5):
        with pytest.raises(InputError, match=rf"lasts 2\.0\d s, the video {seconds:.2f} s"):
            writer.sound.check_length(seconds)


def test_a_video_without_sound_is_told(tmp_path, clip):
    silent = write(tmp_path / "silent.mp4", clip)
    with pytest.raises(InputError, match=r"silent\.mp4 has no sound"):
        VideoWriter(tmp_path / "a.mp4", 64, 96, audio=silent)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts the process's open files")
def test_files_are_closed_when_writing_fails(tmp_path, clip):
    source = tone(tmp_path / "tone.mp4", "aac", 2, clip)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            interrupted(tmp_path / "a.mp4", clip[:4], audio=source)
    assert len(os.listdir("/proc/self/fd")) == before
    assert os.listdir(tmp_path) == ["tone.mp4"]
