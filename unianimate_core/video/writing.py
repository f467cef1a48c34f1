"""Writes a video file while its frames are made."""

from __future__ import annotations

import math
import os
import secrets
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

from ..errors import InputError
from ..optional import require
from ..output import check_output

BT709 = 1  # the code for primaries, transfer and matrix in H.264 and VP9 alike
LIMITED_RANGE = 1
THREADS = 4  # fixed: x264's output depends on the number of threads


@dataclass(frozen=True)
class _Format:
    container: str
    codec: str
    pixels: str
    options: dict[str, str]
    container_options: dict[str, str]


_X264 = {"crf": "17", "preset": "medium"}
_VP9 = {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "3", "row-mt": "1"}
_FORMATS = {
    ".mp4": _Format("mp4", "libx264", "yuv420p", _X264, {"movflags": "+faststart"}),
    ".mov": _Format("mov", "libx264", "yuv420p", _X264, {"movflags": "+faststart"}),
    ".mkv": _Format("matroska", "libx264", "yuv420p", _X264, {}),
    ".webm": _Format("webm", "libvpx-vp9", "yuv420p", _VP9, {}),
    ".gif": _Format("gif", "gif", "pal8", {}, {}),
}
_LOSSLESS = {".mkv": _Format("matroska", "ffv1", "bgr0", {"level": "3"}, {})}


class VideoWriter:
    """Writes frames to a video file, group by group; a context manager.

    The suffix chooses the format: ``.mp4``, ``.mov``, ``.mkv`` (H.264), ``.webm`` (VP9), ``.gif`` (a palette per frame;
    times rounded to 1/100 s). H.264 and VP9 are stored as 8-bit 4:2:0, which every player shows and which needs even
    sizes: an odd width or height grows by one pixel, the last column or row repeated. Colours are BT.709, limited
    range, tagged so. The same frames give the same bytes on one machine: no dates, no random numbers, a fixed thread
    count.

    Frames go to a temporary name in the same folder; only a complete file gets the real name. When the ``with``
    block fails, or no frame was written, nothing is left behind.

    Args:
        path: The file to write.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        fps: Frames per second.
        overwrite: Whether an existing file may be replaced.
        lossless: Store every value as it is (FFV1 in RGB); for ``.mkv``, and few players show it.

    Raises:
        InputError: As `check_output`; or a size below 1, or fps not in 0.1–1000 (GIF: –50); or PyAV is missing.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float | Fraction = 30.0,
        overwrite: bool = False,
        lossless: bool = False,
    ) -> None:
        formats = _LOSSLESS if lossless else _FORMATS
        self.path = check_output(path, formats, overwrite)
        if width < 1 or height < 1:
            raise InputError(f"a video cannot be {width}×{height}: both must be at least 1")
        fastest = 50 if self.path.suffix.lower() == ".gif" else 1000  # players slow a GIF down beyond 50
        if not (math.isfinite(fps) and 0.1 <= fps <= fastest):
            raise InputError(f"{fps} frames per second are not possible in {self.path.suffix}: give 0.1 to {fastest}")
        self.width, self.height = int(width), int(height)
        self.fps = Fraction(fps).limit_denominator(1001)
        self.frames_written = 0
        self._overwrite = overwrite
        self._format = formats[self.path.suffix.lower()]
        self._partial = self.path.with_name(f".unianimate-{secrets.token_hex(6)}.partial")
        self._av = require("av", "the extra `standalone` of this package")
        if self._format.codec not in self._av.codecs_available:
            raise InputError(f"this PyAV cannot write {self.path.suffix} (no {self._format.codec}): install a newer av")
        self._container: Any = None
        self._stream: Any = None
        self._closed = False

    def write(self, frames: torch.Tensor | np.ndarray) -> None:
        """Append frames.

        Args:
            frames: f h w 3, RGB; floats in [0, 1] (clamped, rounded to 8 bits) or uint8. Zero frames are allowed.

        Raises:
            InputError: Another shape or type; the file cannot be written; or the writer is closed.
        """
        if self._closed:
            raise InputError(f"{self.path} is closed: frames cannot be added")
        if tuple(frames.shape[1:]) != (self.height, self.width, 3):
            raise InputError(f"frames must be f {self.height} {self.width} 3, not {tuple(frames.shape)}")
        for frame in frames:  # one at a time: a long video as 8-bit copy would double the memory
            pixels = _to_uint8(frame)
            try:
                self._encode(pixels)
            except (OSError, self._av.FFmpegError) as error:
                self._discard()
                raise InputError(f"cannot write {self.path}: {error}") from error

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            InputError: No frame was written, or the file cannot be written.
        """
        if self._closed:
            return
        if self.frames_written == 0:
            self._discard()
            raise InputError(f"no frames were given for {self.path}: nothing was written")
        try:
            self._container.mux(self._stream.encode(None))
            self._container.close()
            if self.path.exists() and not self._overwrite:
                raise InputError(f"{self.path} appeared meanwhile: choose another name, or pass --overwrite")
            os.replace(self._partial, self.path)
        except (OSError, self._av.FFmpegError) as error:
            raise InputError(f"cannot write {self.path}: {error}") from error
        finally:
            self._discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._discard()

    def _open(self) -> None:
        chosen = self._format
        options = {"fflags": "+bitexact", **chosen.container_options}  # bitexact: no dates, no random track ids
        self._container = self._av.open(str(self._partial), "w", format=chosen.container, options=options)
        self._stream = self._container.add_stream(chosen.codec, rate=self.fps, options=dict(chosen.options))
        even = chosen.pixels == "yuv420p"
        self._stream.width = self.width + (self.width % 2 if even else 0)
        self._stream.height = self.height + (self.height % 2 if even else 0)
        self._stream.pix_fmt = chosen.pixels
        codec = self._stream.codec_context
        codec.time_base = 1 / self.fps
        codec.thread_count = THREADS
        if even:
            codec.color_primaries = codec.color_trc = codec.colorspace = BT709
            codec.color_range = LIMITED_RANGE

    def _encode(self, pixels: np.ndarray) -> None:
        if self._container is None:
            self._open()
        if self._format.pixels == "pal8":
            frame = self._av.VideoFrame.from_ndarray(_to_palette(pixels), format="pal8")
        elif self._format.pixels == "bgr0":
            frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="bgr0")
        else:
            padding = ((0, self._stream.height - self.height), (0, self._stream.width - self.width), (0, 0))
            frame = self._av.VideoFrame.from_ndarray(np.pad(pixels, padding, mode="edge"), format="rgb24")
            frame = frame.reformat(  # PyAV before 17 ignores a target colour space equal to the source's
                format=self._format.pixels, src_colorspace="DEFAULT", dst_colorspace="ITU709", dst_color_range="MPEG"
            )
        frame.pts, frame.time_base = self.frames_written, 1 / self.fps
        self._container.mux(self._stream.encode(frame))
        self.frames_written += 1

    def _discard(self) -> None:
        self._closed = True
        container, self._container, self._stream = self._container, None, None
        try:
            if container is not None:
                container.close()
        except (OSError, self._av.FFmpegError):
            pass  # it is being thrown away
        finally:
            self._partial.unlink(missing_ok=True)


def _to_uint8(frame: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(frame, np.ndarray):
        frame = torch.from_numpy(np.require(frame, requirements=["C", "W"]))  # a read-only or reversed view: copied
    tensor = frame.detach()
    if tensor.is_floating_point():
        tensor = torch.nan_to_num(tensor.float()).clamp(0, 1).mul(255).round().to(torch.uint8)
    elif tensor.dtype != torch.uint8:
        raise InputError(f"frames must be floats in 0–1 or uint8, not {tensor.dtype}")
    return tensor.cpu().numpy()  # h w 3


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
