"""Videos that tests write by PyAV."""

from fractions import Fraction

import av
import cv2
import numpy as np

from unianimate_core.video import VideoWriter


def moving_frames():
    """Smooth colours which drift: 12 frames of 96 × 64."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    large = cv2.resize(coarse, (96, 128), interpolation=cv2.INTER_CUBIC)
    return np.stack([large[2 * i : 2 * i + 96, i : i + 64] for i in range(12)])


def write(path, frames):
    """Write frames (f h w 3, uint8) by our own writer."""
    with VideoWriter(path, frames.shape[2], frames.shape[1], fps=24) as writer:
        writer.write(frames)
    return path


def encode(path, frames, codec="ffv1", pixels="bgr0", times=None, rate=30, container=None, **options):
    """Write frames by PyAV; `times` in milliseconds. Attributes of the codec may be among the options."""
    flags = {"movflags": "faststart"} if str(path).endswith(".mp4") else {}  # the index first, as for the web
    with av.open(path if hasattr(path, "write") else str(path), "w", format=container, options=flags) as file:
        stream = file.add_stream(codec, rate=rate)
        first = frames[0]
        size = (first.width, first.height) if isinstance(first, av.VideoFrame) else first.shape[1::-1]
        (stream.width, stream.height), stream.pix_fmt = size, pixels
        for name in list(options):
            if hasattr(stream.codec_context, name):
                setattr(stream.codec_context, name, options.pop(name))
        stream.options = {name: str(value) for name, value in options.items()}
        clock = Fraction(1, rate) if times is None else Fraction(1, 1000)
        stream.time_base = stream.codec_context.time_base = clock
        for time, frame in zip(range(len(frames)) if times is None else times, frames, strict=True):
            if not isinstance(frame, av.VideoFrame):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(format=pixels)
            frame.pts, frame.time_base = time, clock
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def add_sound(file, seconds):
    """A stream of silence; the packets are yielded so that they can be interleaved."""
    stream = file.add_stream("aac", rate=8000)
    for number in range(round(seconds * 8000 / 1024)):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 8000, 1024 * number
        yield from stream.encode(frame)
    yield from stream.encode(None)
