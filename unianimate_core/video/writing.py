"""Writes a video while its frames are made."""

from __future__ import annotations

import math
import secrets
import shutil
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from ..errors import InputError
from ..optional import require
from ..output import check_output, rename
from .film import Film
from .formats import PICTURES, codec_for, suffixes_of
from .picture_folder import PictureFolder, check_picture_folder
from .sound import Sound


class VideoWriter:
    """Writes frames to a video, group by group; a context manager.

    The suffix chooses the format: ``.mp4``, ``.mov``, ``.mkv`` (H.264), ``.webm`` (VP9), ``.gif`` (a palette per frame;
    times rounded to 1/100 s), ``.webp`` (animated; times rounded to 1/1000 s). A codec may be named instead: ``h264``,
    ``h265`` (the same suffixes), ``prores`` (``.mov``; 422 HQ, 10 bits), ``ffv1`` (``.mkv``; lossless), ``png`` (a
    folder of pictures, lossless).

    H.264, H.265 and VP9 are stored as 8-bit 4:2:0, which every player shows and which needs even sizes: an odd width or
    height grows by one pixel, the last column or row repeated; so it does in ProRes. Their colours are BT.709, limited
    range, tagged so. The same frames give the same bytes on one machine: no dates, no random numbers, a fixed thread
    count. There is no alpha channel in any of them.

    Frames go to a temporary name in the same folder; only a complete video gets the real name. When the ``with``
    block fails, or no frame was written, nothing is left behind.

    Args:
        path: The file to write; a folder for ``png``.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        fps: Frames per second.
        overwrite: Whether an existing file may be replaced.
        lossless: Store every value as it is; the same as the codec ``ffv1``, and few players show it.
        codec: How frames are stored; None for the suffix's own.
        audio: A video or sound file, the first sound of which is written along: copied where the container takes it,
            else encoded anew (AAC; Opus in ``.webm``). It ends with the video.
        partial: The temporary name, on the same disk; None for one beside the video.

    Attributes:
        frames_written: So far.

    Raises:
        InputError: As `check_output`; or a size below 1, or fps not in 0.1–1000 (GIF: –50, WebP: –90), an unknown
            codec, sound that cannot be read or written; or PyAV is missing.
    """

    def __init__(
        self,
        path: str | Path,
        width: int,
        height: int,
        fps: float | Fraction = 30.0,
        overwrite: bool = False,
        lossless: bool = False,
        codec: str | None = None,
        audio: str | Path | None = None,
        partial: Path | None = None,
    ) -> None:
        if lossless and codec not in (None, "ffv1"):
            raise InputError(f"codec {codec} is not lossless here: leave one of the two out, or choose ffv1")
        codec = "ffv1" if lossless else codec
        self._codec = None
        if codec == PICTURES:
            self.path = check_picture_folder(path, overwrite)
        else:
            self.path = check_output(path, suffixes_of(codec), overwrite)
            self._codec = codec_for(self.path, codec)
        if width < 1 or height < 1:
            raise InputError(f"a video cannot be {width}×{height}: both must be at least 1")
        suffix = self.path.suffix.lower() if self._codec else ""
        fastest = self._codec.fastest if self._codec else 1000
        if not (math.isfinite(fps) and 0.1 <= fps <= fastest):
            raise InputError(f"{fps} frames per second are not possible in {suffix}: give 0.1 to {fastest}")
        av = require("av", "the extra `standalone` of this package")
        if self._codec and self._codec.encoder not in av.codecs_available:
            raise InputError(f"this PyAV cannot write {suffix} (no {self._codec.encoder}): install a newer av")
        self.width, self.height = int(width), int(height)
        self.fps = Fraction(fps).limit_denominator(1001)
        self.sound = None if audio is None else Sound(audio, suffix)
        self.frames_written = 0
        self._errors = (OSError, av.FFmpegError)
        self._overwrite = overwrite
        self._partial = partial or self.path.with_name(f".unianimate-{secrets.token_hex(6)}.partial")
        self._output: Film | PictureFolder | None = None
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
                self._open().add(pixels)
            except self._errors as error:
                self._discard()
                raise InputError(f"cannot write {self.path}: {error}") from error
            self.frames_written += 1

    def close(self) -> None:
        """Finish the video and give it its name.

        Raises:
            InputError: No frame was written, or the file cannot be written.
        """
        if self._closed:
            return
        if self._output is None:
            self._discard()
            raise InputError(f"no frames were given for {self.path}: nothing was written")
        try:
            self._output.finish()
            if self.path.exists() and not self._overwrite:
                raise InputError(f"{self.path} appeared meanwhile: choose another name, or pass --overwrite")
            if self.path.is_dir():  # a folder of pictures: none can be replaced in one step
                shutil.rmtree(self.path)
            rename(self._partial, self.path)
        except self._errors as error:
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

    def _open(self) -> Film | PictureFolder:
        if self._output is None:
            if self._codec is None:
                self._output = PictureFolder(self._partial)
            else:
                size = self.width, self.height
                suffix = self.path.suffix.lower()
                self._output = Film(self._partial, suffix, self._codec, size, self.fps, self.sound)
        return self._output

    def _discard(self) -> None:
        self._closed = True
        output, self._output = self._output, None
        if output is not None:
            output.discard()
        elif self._partial.is_file():  # it could not even be opened whole
            self._partial.unlink()


def _to_uint8(frame: torch.Tensor | np.ndarray) -> np.ndarray:
    if isinstance(frame, np.ndarray):
        frame = torch.from_numpy(np.require(frame, requirements=["C", "W"]))  # a read-only or reversed view: copied
    tensor = to_uint8(frame.detach())
    return tensor.cpu().numpy()  # h w 3


def to_uint8(pixels: torch.Tensor) -> torch.Tensor:
    """Pixels of any shape, floats in [0, 1], clamped and rounded to 8 bits; NaN becomes 0. uint8 stays as it is.

    Raises:
        InputError: Another type.
    """
    if pixels.is_floating_point():
        return torch.nan_to_num(pixels.float()).clamp(0, 1).mul(255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise InputError(f"frames must be floats in 0–1 or uint8, not {pixels.dtype}")
    return pixels
