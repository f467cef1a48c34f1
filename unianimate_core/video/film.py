"""Writes frames into a video file by PyAV."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..optional import require
from .formats import CONTAINERS, Codec
from .sound import Sound

BT709 = 1  # the code for primaries, transfer and matrix in H.264, H.265, ProRes and VP9 alike
LIMITED_RANGE = 1
THREADS = 4  # fixed: x264's output depends on the number of threads
_CONTAINER_OPTIONS = {
    ".mp4": {"movflags": "+faststart"},
    ".mov": {"movflags": "+faststart"},
    ".webp": {"loop": "0"},  # for ever, as a GIF's default
}


class Film:
    """A video file that grows frame by frame.

    Args:
        path: The file, whatever its name.
        suffix: Of the name that it will get, which tells its container.
        codec: How frames are stored.
        size: Width and height of the frames in pixels.
        fps: Frames per second.
        sound: Written along as far as the frames reach.
    """

    def __init__(
        self, path: Path, suffix: str, codec: Codec, size: tuple[int, int], fps: Fraction, sound: Sound | None
    ) -> None:
        self.path, self.frames = path, 0
        self._av = require("av", "the extra `standalone` of this package")
        self._codec, self._size, self._fps, self._sound = codec, size, fps, sound
        options = {"fflags": "+bitexact", **_CONTAINER_OPTIONS.get(suffix, {})}  # no dates, no random track ids
        self._container = self._av.open(str(path), "w", format=CONTAINERS[suffix], options=options)
        self._stream = self._container.add_stream(codec.encoder, rate=fps, options=dict(codec.options))
        even = 2 if codec.chroma else 1
        self._stream.width, self._stream.height = (-(-side // even) * even for side in size)
        self._stream.pix_fmt = codec.pixels
        context = self._stream.codec_context
        context.time_base = 1 / fps
        context.thread_count = THREADS
        if codec.encoder == "libx265" and suffix != ".mkv":
            context.codec_tag = "hvc1"  # Apple's players know no other
        if codec.chroma:
            context.color_primaries = context.color_trc = context.colorspace = BT709
            context.color_range = LIMITED_RANGE
        if sound is not None:
            sound.start(self._container)

    def add(self, pixels: np.ndarray) -> None:
        """Write a frame, uint8 h w 3."""
        frame = self._frame(pixels)
        frame.pts, frame.time_base = self.frames, 1 / self._fps
        self._container.mux(self._stream.encode(frame))
        self.frames += 1
        self._write_sound()

    def finish(self) -> None:
        """Write what is held back, and close the file."""
        self._container.mux(self._stream.encode(None))
        self._write_sound()
        self._container.close()
        self._close_sound()

    def discard(self) -> None:
        """Close and remove the file, whatever state it is in."""
        try:
            self._container.close()
        except (OSError, self._av.FFmpegError):
            pass  # it is being thrown away
        finally:
            self._close_sound()
            self.path.unlink(missing_ok=True)

    def _frame(self, pixels: np.ndarray) -> Any:
        if self._codec.pixels == "pal8":
            return self._av.VideoFrame.from_ndarray(_to_palette(pixels), format="pal8")
        width, height = self._size
        padding = ((0, self._stream.height - height), (0, self._stream.width - width), (0, 0))
        frame = self._av.VideoFrame.from_ndarray(np.pad(pixels, padding, mode="edge"), format="rgb24")
        if not self._codec.chroma:
            return frame.reformat(format=self._codec.pixels)
        return frame.reformat(  # PyAV before 17 ignores a target colour space equal to the source's
            format=self._codec.pixels, src_colorspace="DEFAULT", dst_colorspace="ITU709", dst_color_range="MPEG"
        )

    def _write_sound(self) -> None:
        if self._sound is not None:
            self._sound.until(self.frames / self._fps, self._container)

    def _close_sound(self) -> None:
        if self._sound is not None:
            self._sound.close()


def _to_palette(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The best 256 colours for one frame. Pillow's octree takes a fiftieth of FFmpeg's palettegen's time."""
    Image = require("PIL.Image", "the extra `standalone` of this package")
    image = Image.fromarray(pixels)
    colours = image.quantize(256, method=Image.Quantize.FASTOCTREE)
    indices = np.asarray(image.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG))  # h w
    palette = np.full((256, 4), 255, dtype=np.uint8)  # alpha, red, green, blue
    rgb = np.array(colours.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    palette[: len(rgb), 1:] = rgb
    return indices, palette
